"""Random trees of relays for sweeps of the planner, and what their links must carry, without the planner."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from support.linear_oracle import fractional_minimum
from support.oracle import placement_of, proper_subsets

from asyncdmtl import Topology


def random_tree(number: int) -> Topology:
    """Two to six workers below relays in up to three levels."""
    rng = random.Random(number)
    K, N, depth = rng.randint(2, 6), rng.randint(1, 7), rng.randint(1, 3)
    placement = placement_of([rng.sample(range(K), rng.randint(1, min(K, 3))) for _ in range(N)], K)
    return Topology(placement, tree_over(list(placement.workers), depth, rng))


def tree_over(workers: list[str], depth: int, rng: random.Random) -> dict[str, list[str]]:
    """Relays over these workers, level by level; some nodes are behind two relays, or behind none."""
    behind: dict[str, list[str]] = {}
    nodes = workers
    for level in range(depth):
        own = {f"r{level}{i}": list[str]() for i in range(rng.randint(1, 3))}
        for node in nodes:
            for relay in rng.sample(sorted(own), min(len(own), rng.choice([0, 1, 1, 1, 2]))):
                own[relay].append(node)
        own = {relay: below for relay, below in own.items() if below}
        behind |= own
        nodes = list(own) or nodes
    return behind or {"r": workers[:1]}


def stored_below(node: str, behind: Mapping[str, list[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
    """What the workers behind a node store together."""
    if node in stored:
        return set(stored[node])
    return set().union(*(stored_below(each, behind, stored) for each in behind[node]))


def least_between(held: Sequence[Collection[str]], N: int) -> Fraction:
    """The linear program over all cuts between nodes that hold these partitions."""
    K = len(held)
    everything = set().union(*held)
    cuts = {}
    for S in proper_subsets(K):
        outside = set().union(*(held[k] for k in range(K) if k not in S))
        if alone := len(everything - outside):
            cuts[frozenset(S)] = alone
    return fractional_minimum(K, cuts) if cuts else Fraction(0)
