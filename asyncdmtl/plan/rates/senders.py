"""The choice of a sender for every partition, for strategies whose updates go up once and uncoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction

from asyncdmtl.plan.placement import Placement


def choose_senders(placement: Placement, prices: Sequence[Fraction | int] | None = None) -> tuple[int, ...]:
    """Choose one holder for every partition: the cheapest, and among equals one that balances the work.

    The load of the most loaded worker is as small as possible. This is an optimal semi-matching (Harvey,
    Ladner, Lovász, Tamir, *Semi-matchings for bipartite graphs and load balancing*, 2006): start greedily,
    then move partitions along paths of holders from a worker to one with at least two fewer, until there is
    no such path. The same arguments give the same senders.

    Parameters
    ----------
    placement : Placement
    prices : sequence of K numbers, optional
        The price of a vector that worker `k` sends. Default: all prices are equal.

    Returns
    -------
    tuple of N ints
        The sender's index for every partition.
    """
    candidates = placement.holders
    if prices is not None:
        least = [min(prices[k] for k in holders) for holders in candidates]
        candidates = tuple(
            tuple(k for k in holders if prices[k] == price)
            for holders, price in zip(candidates, least, strict=True)
        )
    loads = [0] * len(placement.workers)
    senders = [-1] * len(candidates)
    for n in sorted(range(len(candidates)), key=lambda n: len(candidates[n])):
        senders[n] = min(candidates[n], key=lambda k: (loads[k], k))
        loads[senders[n]] += 1
    while path := _relief(candidates, senders, loads):
        for n, receiver in path:
            loads[senders[n]] -= 1
            loads[receiver] += 1
            senders[n] = receiver
    return tuple(senders)


def _relief(
    holders: tuple[tuple[int, ...], ...], senders: list[int], loads: list[int]
) -> list[tuple[int, int]]:
    """Moves (partition, new sender) that shift one partition to a worker with at least two fewer, or none."""
    sent: list[list[int]] = [[] for _ in loads]
    for n, sender in enumerate(senders):
        sent[sender].append(n)
    for start in sorted(range(len(loads)), key=lambda k: (-loads[k], k)):
        reached: dict[int, tuple[int, int]] = {}
        queue = deque([start])
        while queue:
            k = queue.popleft()
            if loads[k] <= loads[start] - 2:
                return _trace(reached, start, k)
            for n in sent[k]:
                for other in holders[n]:
                    if other != start and other not in reached:
                        reached[other] = (n, k)
                        queue.append(other)
    return []


def _trace(reached: dict[int, tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    moves = []
    while end != start:
        n, previous = reached[end]
        moves.append((n, end))
        end = previous
    return moves
