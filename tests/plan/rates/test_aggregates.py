from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import pytest
from support.oracle import least_uplink_load
from support.placements import numbered, random_placement

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import aggregates
from asyncdmtl.plan.rates.aggregates import aggregable_tasks, best_aggregates
from asyncdmtl.plan.rates.job import job_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.units import Units


def drawn(seed: int) -> tuple[Placement, tuple[int, ...]]:
    rng = random.Random(seed)
    placement = random_placement(rng, most_workers=5, most_partitions=8)
    return placement, numbered(rng.randrange(4) for _ in placement.partitions)


@pytest.mark.parametrize("seed", range(40))
def test_the_choice_has_the_least_uplink_of_all_choices(seed: int) -> None:
    placement, tasks = drawn(seed)
    candidates = [
        t
        for t in set(tasks)
        if any({n for n, owner in enumerate(tasks) if owner == t} <= set(own) for own in placement.stored)
    ]
    loads = [
        least_uplink_load(Units.of(placement, tasks, chosen).blocks)[0]
        for size in range(len(candidates) + 1)
        for chosen in combinations(candidates, size)
    ]
    chosen = best_aggregates(placement, tasks)
    load = uplink_optimum(Units.of(placement, tasks, chosen).blocks).load
    assert load == min(loads)
    assert load >= job_bound(placement, tasks).load
    assert set(aggregable_tasks(placement, tasks)) <= set(candidates)


@pytest.mark.parametrize("seed", range(20))
def test_a_search_is_never_worse_than_all_or_none(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    placement, tasks = drawn(seed)
    monkeypatch.setattr(aggregates, "ALL_COMBINATIONS_TASKS", 0)

    def load(chosen: tuple[int, ...]) -> Fraction:
        return uplink_optimum(Units.of(placement, tasks, chosen).blocks).load

    found = best_aggregates(placement, tasks)
    assert load(found) == min([load(found), load(()), load(aggregable_tasks(placement, tasks))])


def test_aggregates_need_enough_holders() -> None:
    placement = Placement({"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["z", "u"]})
    tasks = [1, 0, 0, 1]  # of u, x, y, z
    assert aggregable_tasks(placement, tasks) == (0, 1)
    assert aggregable_tasks(placement, tasks, least_holders=2) == (0,)
    assert aggregable_tasks(placement, tasks, least_holders=3) == ()
    assert aggregable_tasks(placement, [0, 1, 2, 3]) == ()
    assert best_aggregates(placement, [0, 1, 2, 3]) == ()
