"""Brute force for the bounds and rates of small placements, directly from the definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations, product
from math import ceil

from hypothesis import strategies as st

from asyncdmtl.plan.placement import Placement


def placement_of(holders: Sequence[Sequence[int]], workers: int) -> Placement:
    """The placement with these holders of partitions `p0`, `p1`, …"""
    return Placement(
        {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(workers)},
        [f"p{n}" for n in range(len(holders))],
    )


@st.composite
def small_placements(draw: st.DrawFn, most_workers: int = 6, most_partitions: int = 10) -> Placement:
    """Placements, also with partitions at one worker or all, and workers that store nothing or all."""
    K = draw(st.integers(1, most_workers))
    some = st.sets(st.integers(0, K - 1), min_size=1).map(sorted)
    one = st.integers(0, K - 1).map(lambda k: [k])
    everyone = st.just(list(range(K)))
    return placement_of(
        draw(st.lists(st.one_of(some, some, one, everyone), min_size=1, max_size=most_partitions)), K
    )


EDGES = [
    placement_of([[0]], 1),
    placement_of([[0], [0]], 2),
    placement_of([[0, 1]], 2),
    placement_of([[0], [1], [1]], 2),
    placement_of([[0, 1, 2]] * 3, 3),
    placement_of([[0], [1], [2], [3]], 4),
    placement_of([[0]] * 5, 4),
    placement_of([[0, 1], [0, 2], [0, 1, 2, 3]], 4),
    placement_of([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [2, 3]], 6),
    Placement.cyclic(6, 6, 3),
    Placement.cyclic(7, 9, 2),
    Placement.cyclic(7, 7, 6),
]


def set_partitions(elements: Sequence[int]) -> Iterator[list[list[int]]]:
    """All partitions of a set into non-empty blocks."""
    if not elements:
        yield []
        return
    first, rest = elements[0], elements[1:]
    for blocks in set_partitions(rest):
        yield [[first], *blocks]
        for i, block in enumerate(blocks):
            yield [*blocks[:i], [first, *block], *blocks[i + 1 :]]


def proper_subsets(K: int) -> Iterator[tuple[int, ...]]:
    """All non-empty proper subsets of `0..K-1`."""
    for size in range(1, K):
        yield from combinations(range(K), size)


def ex(placement: Placement, cut: Sequence[int]) -> int:
    """The number of partitions that only the workers of `cut` hold, counted one by one."""
    return sum(set(holders) <= set(cut) for holders in placement.holders)


def least_uplink_load(placement: Placement) -> tuple[Fraction, list[list[list[int]]]]:
    """`R_CO` by its formula, and all set partitions that attain it (none for one worker)."""
    best = Fraction(0)
    attained: list[list[list[int]]] = []
    everyone = range(len(placement.workers))
    for blocks in set_partitions(everyone):
        if len(blocks) < 2:
            continue
        lacking = sum(ex(placement, [k for k in everyone if k not in block]) for block in blocks)
        value = Fraction(lacking, len(blocks) - 1)
        if value > best:
            best, attained = value, []
        if value == best:
            attained.append(blocks)
    return best, attained


def feasible(placement: Placement, rates: Sequence[Fraction | int], subpackets: int = 1) -> bool:
    """Whether no cut is violated, by trying all of them."""
    return all(
        sum(rates[k] for k in cut) >= subpackets * ex(placement, cut)
        for cut in proper_subsets(len(placement.workers))
    )


def most_balanced_rates(placement: Placement, subpackets: int) -> list[int]:
    """The decreasingly minimal integral rates with sum `⌈P·R_CO⌉`, sorted in decreasing order."""
    K = len(placement.workers)
    total = ceil(subpackets * least_uplink_load(placement)[0])
    best = [total + 1]
    for head in product(range(total + 1), repeat=K - 1):
        rates = (*head, total - sum(head))
        if rates[-1] >= 0 and sorted(rates, reverse=True) < best and feasible(placement, rates, subpackets):
            best = sorted(rates, reverse=True)
    return best


def shortest_time(placement: Placement, speeds: Sequence[Fraction | int]) -> Fraction:
    """The smallest makespan, that of the slowest cut."""
    return max(
        (Fraction(ex(placement, cut)) / sum(Fraction(speeds[k]) for k in cut))
        for cut in proper_subsets(len(placement.workers))
    )
