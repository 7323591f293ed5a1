from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import pytest
from support.oracle import ex, least_uplink_load, proper_subsets
from support.placements import numbered, random_placement

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates import aggregates
from asyncdmtl.plan.rates.aggregates import (
    Choice,
    best_units,
    cheapest_units,
    fewest_units,
    least_uplink,
)
from asyncdmtl.plan.rates.covering import proven_cover
from asyncdmtl.plan.rates.job import job_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.spans import Span
from asyncdmtl.plan.units import Sum, UnitKind, Units, partitions_of_tasks


def drawn(seed: int) -> tuple[Placement, tuple[int, ...]]:
    rng = random.Random(seed)
    placement = random_placement(rng, most_workers=5, most_partitions=8)
    return placement, numbered(rng.randrange(4) for _ in placement.partitions)


def coded(placement: Placement, tasks: Any, choice: Choice) -> Placement:
    return Units.of(placement, tasks, choice.aggregated, sums=choice.sums).blocks


def splits(span: Span) -> Iterator[tuple[Span, ...]]:
    """All sets of nodes that together are the node `span`."""
    yield (span,)
    if not span.single:
        for parts in product(*map(splits, span.halves)):
            yield tuple(part for some in parts for part in some)


def all_choices(placement: Placement, tasks: Any) -> list[Placement]:
    """The coded units of every choice of sums and whole tasks that workers can send."""
    own = partitions_of_tasks(tasks)
    found = []
    for each in product(*(splits(Span(0, len(parts))) for parts in own)):
        held = [
            set.intersection(*(set(placement.holders[n]) for n in own[t][span.start : span.stop]))
            for t, spans in enumerate(each) for span in spans
        ]  # fmt: skip
        if all(held):
            found.append(
                Placement(
                    {
                        w: [str(u) for u, H in enumerate(held) if k in H]
                        for k, w in enumerate(placement.workers)
                    }
                )
            )
    return found


@pytest.mark.parametrize("seed", range(30))
def test_sums_have_the_least_uplink_of_all_choices(seed: int) -> None:
    placement, tasks = drawn(seed)
    every = all_choices(placement, tasks)
    least = min(least_uplink_load(units)[0] for units in every)
    load = uplink_optimum(coded(placement, tasks, best_units(placement, tasks, kind="sums"))).load
    assert job_bound(placement, tasks).load <= load == least
    fewest = coded(placement, tasks, fewest_units(placement, tasks, "sums"))
    assert len(fewest.partitions) == min(len(units.partitions) for units in every)
    prices = [Fraction(random.Random(seed).randint(1, 9)) for _ in placement.workers]

    def cost(units: Placement) -> Fraction:
        return sum((min(prices[k] for k in H) for H in units.holders), Fraction(0))

    cheapest = coded(placement, tasks, cheapest_units(placement, tasks, prices, "sums"))
    assert cost(cheapest) == min(map(cost, every))


@pytest.mark.parametrize("kind", ["tasks", "sums"])
@pytest.mark.parametrize("seed", range(10))
def test_a_search_is_as_good_as_all_choices(
    seed: int, kind: UnitKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement, tasks = Placement.cyclic(5, 8, 2 + seed % 3), numbered(n // 4 for n in range(8))
    if seed >= 3:
        placement, tasks = drawn(seed)
    best = best_units(placement, tasks, kind=kind)
    monkeypatch.setattr(aggregates, "ALL_CHOICES", 0)
    monkeypatch.setattr(aggregates, "TRIAL_EFFORT", 0)
    monkeypatch.setattr(aggregates, "_count", lambda node: 1_000)
    found = best_units(placement, tasks, kind=kind)
    assert (
        uplink_optimum(coded(placement, tasks, found)).load
        == uplink_optimum(coded(placement, tasks, best)).load
    )


def test_sums_of_a_cyclic_placement() -> None:
    # Each worker stores two consecutive partitions of four workers' eight, four to a task.
    placement, tasks = Placement.cyclic(4, 8, 2), [n // 4 for n in range(8)]
    choice = best_units(placement, tasks, kind="sums")
    assert choice == Choice((), (Sum(0, 0, 2), Sum(0, 2, 4), Sum(1, 0, 2), Sum(1, 2, 4)))
    assert uplink_optimum(coded(placement, tasks, choice)).load == 4 == job_bound(placement, tasks).load
    assert uplink_optimum(placement).load == Fraction(16, 3)
    assert best_units(placement, tasks) == best_units(placement, tasks, kind="updates") == Choice()


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
    load = uplink_optimum(coded(placement, tasks, best_units(placement, tasks))).load
    assert load == min(loads)
    assert load >= job_bound(placement, tasks).load
    assert set(fewest_units(placement, tasks).aggregated) <= set(candidates)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["prices", "speeds"])
def test_plans_have_the_least_cost_or_time_of_all_choices(kind: str, seed: int) -> None:
    placement, tasks = drawn(seed)
    rng, K = random.Random(seed), len(placement.workers)
    if K == 1:
        return
    weights = [rng.choice([Fraction(1, 3), Fraction(1), Fraction(2), Fraction(40)]) for _ in range(K)]
    given: Any = {kind: weights}
    candidates = fewest_units(placement, tasks).aggregated
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
        assert cheapest_units(placement, [0, 0], prices) == Choice()
    # The whole task costs no more than its parts: one vector goes up instead of two.
    assert cheapest_units(placement, [0, 0], [Fraction(2), Fraction(1), Fraction(1)]) == Choice((0,))


def test_aggregates_need_enough_holders() -> None:
    placement = Placement({"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["z", "u"]})
    tasks = [1, 0, 0, 1]  # of u, x, y, z
    assert fewest_units(placement, tasks).aggregated == (0, 1)
    assert fewest_units(placement, tasks, least_holders=2) == Choice((0,))
    assert fewest_units(placement, tasks, least_holders=3) == Choice()
    assert fewest_units(placement, [0, 1, 2, 3]) == Choice()
    assert best_units(placement, [0, 1, 2, 3]) == Choice()
