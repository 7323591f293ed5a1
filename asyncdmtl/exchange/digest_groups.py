"""The groups of vectors whose digests are confirmed together, and which worker tells what for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.units import partitions_of_tasks

Places = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class GroupTable:
    """The groups of a plan. The numbers of digests, and most fields, are those of `SummedGroups`.

    Attributes
    ----------
    of_units, digests_of, groups, held
        As `SummedGroups` has them.
    receivers : tuple of tuple of int
        For each group of units, which come first, the workers that decode it.
    received : tuple of tuple of int
        The groups that each worker decodes.
    told, losses_told : tuple of tuple of int
        The groups and the partitions of each worker whose digest and loss it tells for all holders.
    """

    of_units: tuple[int, ...]
    digests_of: Places
    groups: Places
    held: Places
    receivers: Places
    received: Places
    told: Places
    losses_told: Places


# The tables that were made: with a thousand workers, one takes a tenth of a second.
_MADE: WeakKeyDictionary[Plan, GroupTable] = WeakKeyDictionary()


def group_table(plan: Plan) -> GroupTable:
    """The groups of a plan, which all sides in a process share."""
    table = _MADE.get(plan)
    if table is None:
        table = _MADE[plan] = _make_table(plan)
    return table


def _make_table(plan: Plan) -> GroupTable:
    units, placement, N = plan.units, plan.placement, len(plan.placement.partitions)
    partitions_of = partitions_of_tasks(plan.tasks)
    sums = range(N + len(partitions_of), N + len(partitions_of) + len(units.sums))
    of_units = (*units.updates, *(N + t for t in units.aggregated), *sums)
    receivers: list[list[int]] = [[] for _ in of_units]
    if plan.broadcasts == "updates":
        for k, delivery in enumerate(plan.deliveries):
            for unit in delivery.wanted:
                receivers[unit].append(k)
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for number, H, receiving in zip(of_units, units.holders, receivers, strict=True):
        found.setdefault((H, tuple(receiving)), []).append(number)
    beside: dict[tuple[int, ...], list[int]] = {}
    for unit, covering in enumerate(units.holders):
        for n in units.parts(unit, partitions_of):
            if (H := placement.holders[n]) != covering:
                beside.setdefault(H, []).append(n)
    holders, K = (*(H for H, _ in found), *beside), len(placement.workers)
    return GroupTable(
        of_units,
        tuple(
            (*stored, *(of_units[unit] for unit in held if unit >= len(units.updates)))
            for stored, held in zip(placement.stored, units.held, strict=True)
        ),
        (*map(tuple, found.values()), *map(tuple, beside.values())),
        by_worker(K, holders),
        tuple(receiving for _, receiving in found),
        by_worker(K, [receiving for _, receiving in found]),
        # Each value is told by one of its holders, in turn, so that all workers tell about as many.
        by_worker(K, [(H[g % len(H)],) for g, H in enumerate(holders)]),
        by_worker(K, [(H[n % len(H)],) for n, H in enumerate(placement.holders)]),
    )


def by_worker(count: int, workers_of: Sequence[Sequence[int]]) -> Places:
    """For each of `count` workers, the places at which it is listed."""
    found: list[list[int]] = [[] for _ in range(count)]
    for place, workers in enumerate(workers_of):
        for k in workers:
            found[k].append(place)
    return tuple(map(tuple, found))
