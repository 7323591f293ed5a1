from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support.placements import HOMOGENEOUS, numbered, random_placement

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import Sum, Units, partitions_of_tasks, sum_name, summed_partitions, whole_holders


def test_units_without_aggregates_are_the_partitions() -> None:
    units = Units.of(HOMOGENEOUS, range(6))
    assert units.updates == tuple(range(6))
    assert units.held == HOMOGENEOUS.stored
    assert units.blocks.stored == HOMOGENEOUS.stored
    assert units.layout == tuple(range(6))
    assert units.columns([1, 4], 2).tolist() == [2, 3, 8, 9]


def test_aggregates_have_the_workers_that_store_their_task_whole() -> None:
    placement = Placement({"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["z", "u"]})
    tasks = [0, 1, 1, 0]  # u, x, y, z in natural order
    assert placement.partitions == ("u", "x", "y", "z")
    assert whole_holders(placement, tasks) == ((2,), (0, 1))
    units = Units.of(placement, tasks, [1])
    assert units.updates == (0, 3)
    assert units.holders == ((2,), (0, 2), (0, 1))
    assert units.held == ((1, 2), (2,), (0, 1))
    assert units.names(placement, ["s", "t"], tasks) == ["u", "z", "t"]
    partitions_of = partitions_of_tasks(tasks)
    assert partitions_of == [[0, 3], [1, 2]]
    assert units.coded_spans(partitions_of) == [{(0, 1): 0, (1, 2): 1}, {(0, 2): 2}]
    assert [units.parts(unit, partitions_of) for unit in range(3)] == [(0,), (3,), (1, 2)]


def test_sums_have_the_workers_that_store_all_they_sum() -> None:
    placement = Placement({"a": ["p0", "p1", "p2"], "b": ["p1", "p2", "p3"], "c": ["p3", "p4"]})
    tasks = [0, 0, 0, 0, 1]
    units = Units.of(placement, tasks, sums=[Sum(0, 2, 4), Sum(0, 0, 2)])
    assert units.updates == (4,)
    assert units.holders == ((2,), (0,), (1,))
    assert units.sums == (Sum(0, 0, 2), Sum(0, 2, 4))
    assert units.names(placement, ["s", "t"], tasks) == ["p4", "p0 + p1", "p2 + p3"]
    partitions_of = partitions_of_tasks(tasks)
    spans = units.coded_spans(partitions_of)
    assert [list(coded.items()) for coded in spans] == [[((0, 2), 1), ((2, 4), 2)], [((0, 1), 0)]]
    assert units.parts(2, partitions_of) == (2, 3)
    assert summed_partitions(placement, tasks, units.sums) == [["p0", "p1"], ["p2", "p3"]]
    assert sum_name(["p0", "p1", "p2"]) == "p0 + … + p2"


def test_units_with_equal_holders_stand_side_by_side() -> None:
    units = Units.of(Placement.cyclic(3, 12, 2), range(12))
    assert units.largest_merge() == 4
    merged = replace(units, merged=2)
    assert merged.layout == (0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11)
    assert len(merged.blocks.partitions) == 6
    assert merged.in_layout([1, 3, 0, 4]) == (0, 3, 1, 4)
    assert merged.columns([0, 1, 3, 4], 3).tolist() == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize("seed", range(20))
def test_blocks_keep_what_workers_hold(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng)
    tasks = numbered(rng.randrange(3) for _ in placement.partitions)
    aggregated = [t for t, H in enumerate(whole_holders(placement, tasks)) if H and rng.random() < 0.6]
    units = Units.of(placement, tasks, aggregated)
    for merged in (1, units.largest_merge()):
        blocks = replace(units, merged=merged).blocks
        for held, stored in zip(units.held, blocks.stored, strict=True):
            assert len(held) == len(stored) * merged
