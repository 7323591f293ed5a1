"""Units: the vectors that workers code: updates of partitions, aggregates of whole tasks, or sums.

A worker that stores all partitions of a task can compute its aggregate `z_t` alone. If a plan declares the
task *aggregated*, `z_t` is one unit, held by the workers that store the whole task, and the updates of its
partitions do not travel. Where tasks are aggregated by the mean, the weighted *sum* of the updates of some
consecutive partitions of a task (a node of its tree, `asyncdmtl.plan.spans`) can be a unit in their place.
Every other partition is a unit with the partition's holders.

Units with equal holders may be coded as one longer vector, a *block* of `merged` units, so that matrices are
smaller by the square of that number while no load changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Literal, NamedTuple, get_args

import numpy as np

from asyncdmtl.arrays import Indices
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.spans import Span

UnitKind = Literal["updates", "tasks", "sums"]
UNIT_KINDS: tuple[UnitKind, ...] = get_args(UnitKind)
"""The units that a planner may choose: updates only, aggregates of whole tasks, too, or sums, too."""


class Sum(NamedTuple):
    """The weighted sum of the updates of some, but not all, partitions of a task."""

    task: int
    start: int
    stop: int

    @property
    def span(self) -> Span:
        """The positions of the partitions in their task."""
        return Span(self.start, self.stop)

    def partitions(self, partitions_of: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The partitions that are summed, given those of every task."""
        return tuple(partitions_of[self.task][self.start : self.stop])


def whole_holders(placement: Placement, tasks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For every task, the workers that store all of its partitions, ascending."""
    return tuple(common_holders(placement, own) for own in partitions_of_tasks(tasks))


def common_holders(placement: Placement, partitions: Iterable[int]) -> tuple[int, ...]:
    """The workers that store all of these partitions, ascending."""
    return tuple(sorted(set.intersection(*(set(placement.holders[n]) for n in partitions))))


def partitions_of_tasks(tasks: Sequence[int]) -> list[list[int]]:
    """The partitions of every task, ascending."""
    found: list[list[int]] = [[] for _ in range(max(tasks) + 1)]
    for n, task in enumerate(tasks):
        found[task].append(n)
    return found


@dataclass(frozen=True)
class Units:
    """The units of a plan, numbered: updates by partition first, then aggregates by task, then sums.

    Without aggregated tasks and sums the number of a unit is that of its partition.

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
    sums : tuple of Sum
        The sums that are units, ascending.
    """

    workers: int
    updates: tuple[int, ...]
    aggregated: tuple[int, ...]
    holders: tuple[tuple[int, ...], ...]
    merged: int = 1
    sums: tuple[Sum, ...] = ()

    @classmethod
    def of(
        cls,
        placement: Placement,
        tasks: Sequence[int],
        aggregated: Sequence[int] = (),
        merged: int = 1,
        sums: Sequence[Sum] = (),
    ) -> Units:
        """The units of a placement. A worker must store all of each aggregated task, and of each sum."""
        chosen, sums = set(aggregated), tuple(sorted(sums))
        own = partitions_of_tasks(tasks)
        summed = [part.partitions(own) for part in sums]
        inside = {n for parts in summed for n in parts}
        updates = tuple(n for n, task in enumerate(tasks) if task not in chosen and n not in inside)
        holders = (
            *(placement.holders[n] for n in updates),
            *(common_holders(placement, own[t]) for t in sorted(chosen)),
            *(common_holders(placement, parts) for parts in summed),
        )
        return cls(len(placement.workers), updates, tuple(sorted(chosen)), holders, merged, sums)

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

    def coded_spans(self, partitions_of: Sequence[Sequence[int]]) -> list[dict[Span, int]]:
        """For every task, the units from which it is computed, by the partitions that each stands for."""
        first = len(self.updates)
        position = {n: i for partitions in partitions_of for i, n in enumerate(partitions)}
        task_of = {n: t for t, partitions in enumerate(partitions_of) for n in partitions}
        found: list[dict[Span, int]] = [{} for _ in partitions_of]
        for unit, n in enumerate(self.updates):
            found[task_of[n]][Span(position[n], position[n] + 1)] = unit
        for unit, t in enumerate(self.aggregated, first):
            found[t][Span(0, len(partitions_of[t]))] = unit
        for unit, part in enumerate(self.sums, first + len(self.aggregated)):
            found[part.task][part.span] = unit
        return [dict(sorted(coded.items())) for coded in found]

    def parts(self, unit: int, partitions_of: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The partitions that a unit stands for: its own, those of its task, or those that it sums."""
        first, last = len(self.updates), len(self.updates) + len(self.aggregated)
        if unit < first:
            return (self.updates[unit],)
        if unit < last:
            return tuple(partitions_of[self.aggregated[unit - first]])
        return self.sums[unit - last].partitions(partitions_of)

    def names(self, placement: Placement, tasks: Sequence[str], task_of: Sequence[int]) -> list[str]:
        """The name of every unit: that of its partition or task, or those of the partitions that it sums."""
        return [
            *(placement.partitions[n] for n in self.updates),
            *(tasks[t] for t in self.aggregated),
            *map(sum_name, summed_partitions(placement, task_of, self.sums)),
        ]

    @cached_property
    def _position(self) -> dict[int, int]:
        return {unit: position for position, unit in enumerate(self.layout)}


def summed_partitions(placement: Placement, tasks: Sequence[int], sums: Sequence[Sum]) -> list[list[str]]:
    """The names of the partitions that each sum has."""
    own = partitions_of_tasks(tasks)
    return [[placement.partitions[n] for n in part.partitions(own)] for part in sums]


def sum_name(partitions: Sequence[str]) -> str:
    """The name of a sum: those of its first and last partition."""
    return f"{partitions[0]} + {'' if len(partitions) == 2 else '… + '}{partitions[-1]}"
