"""Units: the vectors that workers code, either updates of partitions or aggregates of whole tasks.

A worker that stores all partitions of a task can compute its aggregate `z_t` alone. If a plan declares the
task *aggregated*, `z_t` is one unit, held by the workers that store the whole task, and the updates of its
partitions do not travel. Every partition of any other task is a unit with the partition's holders.

Units with equal holders may be coded as one longer vector, a *block* of `merged` units, so that matrices are
smaller by the square of that number while no load changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

from asyncdmtl.arrays import Indices
from asyncdmtl.plan.placement import Placement


def whole_holders(placement: Placement, tasks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For every task, the workers that store all of its partitions, ascending."""
    holders: list[set[int]] = [set(range(len(placement.workers))) for _ in range(max(tasks) + 1)]
    for task, H in zip(tasks, placement.holders, strict=True):
        holders[task] &= set(H)
    return tuple(tuple(sorted(workers)) for workers in holders)


@dataclass(frozen=True)
class Units:
    """The units of a plan, numbered: updates by partition first, then aggregates by task.

    Without aggregated tasks the number of a unit is that of its partition.

    Attributes
    ----------
    workers : int
        `K`.
    updates : tuple of int
        The partitions whose updates are units, ascending.
    aggregated : tuple of int
        The tasks whose aggregates are units, ascending.
    holders : tuple of tuple of int
        The workers that hold each unit.
    merged : int
        Units in a block; 1 unless units with equal holders are merged.
    """

    workers: int
    updates: tuple[int, ...]
    aggregated: tuple[int, ...]
    holders: tuple[tuple[int, ...], ...]
    merged: int = 1

    @classmethod
    def of(
        cls, placement: Placement, tasks: Sequence[int], aggregated: Sequence[int] = (), merged: int = 1
    ) -> Units:
        """The units of a placement. Every aggregated task must have a worker that stores all of it."""
        chosen = set(aggregated)
        updates = tuple(n for n, task in enumerate(tasks) if task not in chosen)
        whole = whole_holders(placement, tasks) if chosen else ()
        holders = (*(placement.holders[n] for n in updates), *(whole[t] for t in sorted(chosen)))
        return cls(len(placement.workers), updates, tuple(sorted(chosen)), holders, merged)

    def largest_merge(self) -> int:
        """The largest possible number of units in a block: it must divide all counts of equal holders."""
        return gcd(*Counter(self.holders).values())

    @cached_property
    def layout(self) -> tuple[int, ...]:
        """The units in the order of their columns, in which the units of a block are adjacent."""
        if self.merged == 1:
            return tuple(range(len(self.holders)))
        groups: dict[tuple[int, ...], list[int]] = {}
        for unit, holders in enumerate(self.holders):
            groups.setdefault(holders, []).append(unit)
        return tuple(unit for group in groups.values() for unit in group)

    @cached_property
    def blocks(self) -> Placement:
        """A placement whose partitions are the blocks, numbered in the order of their columns."""
        held: list[list[str]] = [[] for _ in range(self.workers)]
        first_units = self.layout[:: self.merged]
        names = [str(block) for block in range(len(first_units))]
        for name, unit in zip(names, first_units, strict=True):
            for k in self.holders[unit]:
                held[k].append(name)
        return Placement({f"w{k}": names for k, names in enumerate(held)}, names)

    @cached_property
    def held(self) -> tuple[tuple[int, ...], ...]:
        """For every worker, the units that it holds, ascending."""
        found: list[list[int]] = [[] for _ in range(self.workers)]
        for unit, holders in enumerate(self.holders):
            for k in holders:
                found[k].append(unit)
        return tuple(map(tuple, found))

    def in_layout(self, units: Iterable[int]) -> tuple[int, ...]:
        """These units in the order of their columns, which is the order of packed vectors in memory."""
        if self.merged == 1:
            return tuple(units)
        return tuple(sorted(units, key=self._position.__getitem__))

    def columns(self, units: Sequence[int], subpackets: int) -> Indices:
        """The matrix columns of these units, which fill whole blocks; a block has `subpackets` columns."""
        if self.merged == 1:
            first = np.array(units, dtype=np.int64)
        else:
            chosen = self.in_layout(units)[:: self.merged]
            first = np.array([self._position[unit] // self.merged for unit in chosen], dtype=np.int64)
        return (first[:, None] * subpackets + np.arange(subpackets)).reshape(-1)

    def aggregates_in(self, units: Iterable[int]) -> tuple[int, ...]:
        """The tasks of the aggregates among these units."""
        first = len(self.updates)
        return tuple(self.aggregated[unit - first] for unit in units if unit >= first)

    def units_of_tasks(self, partitions_of: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """For every task, the units from which it is computed: its aggregate, or its partitions' updates."""
        unit_of = {n: unit for unit, n in enumerate(self.updates)}
        aggregate = {t: len(self.updates) + i for i, t in enumerate(self.aggregated)}
        return [
            (aggregate[t],) if t in aggregate else tuple(unit_of[n] for n in partitions)
            for t, partitions in enumerate(partitions_of)
        ]

    def names(self, partitions: Sequence[str], tasks: Sequence[str]) -> list[str]:
        """The name of every unit: the name of its partition or of its task."""
        return [*(partitions[n] for n in self.updates), *(tasks[t] for t in self.aggregated)]

    @cached_property
    def _position(self) -> dict[int, int]:
        return {unit: position for position, unit in enumerate(self.layout)}
