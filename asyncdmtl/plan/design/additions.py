"""The next copies of partitions to add: those that lower the loads of relay most."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.plan.placement import Placement, counted
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum


@dataclass(frozen=True)
class Addition:
    """One more copy, and the loads of relay, in vectors per round, with it and all earlier additions."""

    worker: str
    partition: str
    uplink_load: Fraction
    downlink_load: int


def best_additions(placement: Placement, count: int) -> tuple[Placement, tuple[Addition, ...]]:
    """Add copies one by one, each so that the sum of uplink and downlink load becomes smallest.

    This is greedy: each copy is the best next one, but `count` copies together need not be the best set.
    Loads are those of `docs/theory.md`, section 3: the uplink optimum of the placement, and the most
    partitions that a worker lacks.

    Parameters
    ----------
    placement : Placement
    count : int
        Copies to add; fewer are added if every worker then stores everything.

    Returns
    -------
    placement : Placement
        The placement with the new copies.
    additions : tuple of Addition
        The new copies, the most useful first.

    Raises
    ------
    UsageError
        `count` is no whole number, or below 1.
    """
    counted("count", count)
    added: list[Addition] = []
    while len(added) < count and (tried := _candidates(placement)):
        best = min(tried, key=lambda pair: pair[1].uplink_load + pair[1].downlink_load)
        placement = best[0]
        added.append(best[1])
    return placement, tuple(added)


def _candidates(placement: Placement) -> list[tuple[Placement, Addition]]:
    """All placements with one more copy. Of partitions with the same holders, only the first is tried."""
    tried = []
    for k, worker in enumerate(placement.workers):
        seen = set()
        for n in placement.missing(k):
            if placement.holders[n] in seen:
                continue
            seen.add(placement.holders[n])
            partition = placement.partitions[n]
            stored = placement.as_dict()
            stored[worker] = [*stored[worker], partition]
            more = Placement(stored, placement.partitions)
            load = uplink_optimum(more).load
            tried.append((more, Addition(worker, partition, load, downlink_bound(more))))
    return tried
