"""Who sends a partition's update when every update goes up once and uncoded."""

from __future__ import annotations

from collections import deque

from asyncdmtl.plan.placement import Placement


def balanced_senders(placement: Placement) -> tuple[int, ...]:
    """One holder for every partition, with the most loaded worker loaded as little as possible.

    An optimal semi-matching (Harvey, Ladner, Lovász, Tamir, *Semi-matchings for bipartite graphs and load
    balancing*, 2006): start greedily, then move partitions along paths of holders from a worker to one
    with at least two fewer, until there is no such path. Deterministic.

    Returns the sender's index for every partition.
    """
    holders = placement.holders
    loads = [0] * len(placement.workers)
    senders = [-1] * len(holders)
    for n in sorted(range(len(holders)), key=lambda n: len(holders[n])):
        senders[n] = min(holders[n], key=lambda k: (loads[k], k))
        loads[senders[n]] += 1
    while path := _relief(holders, senders, loads):
        for n, receiver in path:
            loads[senders[n]] -= 1
            loads[receiver] += 1
            senders[n] = receiver
    return tuple(senders)


def _relief(
    holders: tuple[tuple[int, ...], ...], senders: list[int], loads: list[int]
) -> list[tuple[int, int]]:
    """Moves (partition, new sender) that unload a worker onto one with at least two fewer, or none."""
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
