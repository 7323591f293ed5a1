from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from support.oracle import ex, least_uplink_load, proper_subsets
from support.placements import numbered, random_placement

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates import aggregates
from asyncdmtl.plan.rates.aggregates import (
    aggregable_tasks,
    best_aggregates,
    cheap_aggregates,
    least_uplink,
)
from asyncdmtl.plan.rates.covering import proven_cover
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


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["prices", "speeds"])
def test_plans_have_the_least_cost_or_time_of_all_choices(kind: str, seed: int) -> None:
    placement, tasks = drawn(seed)
    rng, K = random.Random(seed), len(placement.workers)
    if K == 1:
        return
    weights = [rng.choice([Fraction(1, 3), Fraction(1), Fraction(2), Fraction(40)]) for _ in range(K)]
    given: Any = {kind: weights}
    candidates = aggregable_tasks(placement, tasks)
    values = []
    for size in range(len(candidates) + 1):
        for chosen in combinations(candidates, size):
            units = Units.of(placement, tasks, chosen).blocks
            cuts = {frozenset(S): count for S in proper_subsets(K) if (count := ex(units, S))}
            if kind == "speeds":
                times = (count / sum(weights[k] for k in S) for S, count in cuts.items())
                values.append(max(times, default=Fraction(0)))
            elif cuts:
                _, proof = proven_cover(K, cuts, weights)
                values.append(sum((y * cuts[S] for S, y in proof.items()), Fraction(0)))
            else:
                values.append(Fraction(0))
    plan = make_plan(placement, tasks=tasks, max_overhead=Fraction(1, 2), **given)
    assert plan.objective is not None
    assert plan.objective.bound == min(values)
    assert least_uplink(plan.units.blocks, (), **given) == plan.objective.bound


def test_aggregates_of_dear_holders_are_not_sent() -> None:
    placement = Placement({"dear": ["x", "y"], "a": ["x"], "b": ["y"]})
    for strategy in ("central", "personal"):
        prices = [Fraction(40), Fraction(1), Fraction(1)]
        plan = make_plan(placement, strategy, tasks=[0, 0], prices=prices)
        assert (plan.aggregated, plan.uplink_rows) == ((), (0, 1, 1))
        assert cheap_aggregates(placement, [0, 0], prices) == ()
    # The whole task costs no more than its parts: one vector goes up instead of two.
    assert cheap_aggregates(placement, [0, 0], [Fraction(2), Fraction(1), Fraction(1)]) == (0,)


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
