from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from support.oracle import (
    EDGES,
    ex,
    feasible,
    least_uplink_load,
    most_balanced_rates,
    placement_of,
    proper_subsets,
    shortest_time,
    small_placements,
)
from support.placements import random_placement

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import certificate_value, cost_bound, time_bound, violated_cut
from asyncdmtl.plan.rates.optimum import (
    MakespanOptimum,
    UplinkOptimum,
    WeightedOptimum,
    cheapest_rates,
    fastest_rates,
    integral_rates,
    smallest_subpackets,
    uplink_optimum,
)

LARGE = [
    Placement.cyclic(60, 250, 4),
    *(random_placement(random.Random(seed), most_workers=40, most_partitions=200) for seed in range(6)),
]


def check_optimum(placement: Placement) -> None:
    optimum = uplink_optimum(placement)
    load, attained = least_uplink_load(placement)
    assert optimum.load == load == sum(optimum.rates)
    assert min(optimum.rates) >= 0
    assert feasible(placement, optimum.rates)
    assert certificate_value(placement, optimum.certificate) == load
    if attained:
        finest = max(attained, key=len)
        assert optimum.certificate == tuple(sorted(tuple(sorted(block)) for block in finest))
        assert optimum.denominator == len(finest) - 1
        # Finest: every other partition that attains the bound has the blocks of this one merged.
        for blocks in attained:
            assert all(any(set(fine) <= set(block) for block in blocks) for fine in finest)


def check_integral(placement: Placement, subpackets: int) -> tuple[int, ...]:
    rates = integral_rates(placement, subpackets)
    assert all(type(rate) is int and rate >= 0 for rate in rates)
    assert sum(rates) == ceil(subpackets * least_uplink_load(placement)[0])
    assert feasible(placement, rates, subpackets)
    return rates


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges(placement: Placement) -> None:
    check_optimum(placement)
    for subpackets in (1, 2, 5):
        check_integral(placement, subpackets)
    weights = [Fraction(k + 1, 2) for k in range(len(placement.workers))]
    check_cheapest(placement, weights)
    check_fastest(placement, weights)


def test_one_worker_sends_nothing() -> None:
    alone = placement_of([[0], [0]], 1)
    assert uplink_optimum(alone) == UplinkOptimum(Fraction(0), ((0,),), (Fraction(0),))
    assert uplink_optimum(alone).denominator == 1
    assert integral_rates(alone, 3) == (0,)
    assert cheapest_rates(alone, [3]) == WeightedOptimum(Fraction(0), (Fraction(0),), ())
    assert fastest_rates(alone, [3]) == MakespanOptimum(Fraction(0), (Fraction(0),), ())


def test_cyclic_placement_of_six() -> None:
    placement = Placement.cyclic(6, 6, 3)
    optimum = uplink_optimum(placement)
    assert optimum.load == Fraction(18, 5)
    assert optimum.rates == (Fraction(3, 5),) * 6
    assert optimum.certificate == tuple((k,) for k in range(6))
    assert optimum.denominator == smallest_subpackets(optimum) == 5
    assert integral_rates(placement, 5) == (3,) * 6
    assert sorted(integral_rates(placement, 1)) == [0, 0, 1, 1, 1, 1]


def test_singletons_are_not_always_the_best_certificate() -> None:
    """Two groups with one partition in common: that each lacks two of the other's is what decides."""
    placement = placement_of([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [2, 3]], 6)
    assert certificate_value(placement, [[k] for k in range(6)]) == Fraction(16, 5)
    optimum = uplink_optimum(placement)
    assert optimum.load == 4
    assert optimum.certificate == ((0, 1, 2), (3, 4, 5))


@settings(max_examples=200, deadline=None)
@given(small_placements())
def test_optimum_agrees_with_brute_force(placement: Placement) -> None:
    check_optimum(placement)


def test_optimum_agrees_with_brute_force_for_seven_workers() -> None:
    rng = random.Random(7)
    for _ in range(40):
        holders = [rng.sample(range(7), rng.randint(1, rng.choice([3, 5, 7]))) for _ in range(12)]
        check_optimum(placement_of(holders, 7))


@settings(max_examples=100, deadline=None)
@given(small_placements(), st.integers(1, 7))
def test_integral_rates_reach_the_rounded_optimum(placement: Placement, subpackets: int) -> None:
    check_integral(placement, subpackets)


@settings(max_examples=100, deadline=None)
@given(small_placements(most_workers=4, most_partitions=6), st.integers(1, 2))
def test_integral_rates_are_the_most_balanced_ones(placement: Placement, subpackets: int) -> None:
    rates = check_integral(placement, subpackets)
    if len(rates) > 1:
        assert sorted(rates, reverse=True) == most_balanced_rates(placement, subpackets)


@pytest.mark.parametrize("placement", LARGE, ids=repr)
def test_large_placements_prove_themselves(placement: Placement) -> None:
    optimum = uplink_optimum(placement)
    assert certificate_value(placement, optimum.certificate) == optimum.load == sum(optimum.rates)
    assert violated_cut(placement, optimum.rates) is None
    for subpackets in (1, 3):
        rates = integral_rates(placement, subpackets, optimum)
        assert sum(rates) == ceil(subpackets * optimum.load)
        assert violated_cut(placement, rates, subpackets) is None
    rng = random.Random(1)
    weights = [Fraction(rng.randint(1, 30), rng.randint(1, 4)) for _ in placement.workers]
    cheapest = cheapest_rates(placement, weights)
    assert violated_cut(placement, cheapest.rates) is None
    assert cost_bound(placement, weights, cheapest.certificate) == cheapest.cost
    assert sum(c * rate for c, rate in zip(weights, cheapest.rates, strict=True)) == cheapest.cost
    fastest = fastest_rates(placement, weights)
    assert violated_cut(placement, fastest.rates) is None
    assert time_bound(placement, weights, fastest.certificate) == fastest.time
    assert max(rate / b for b, rate in zip(weights, fastest.rates, strict=True)) == fastest.time


@pytest.mark.parametrize(
    ("load", "overhead", "subpackets"),
    [
        (Fraction(0), 0, 1),
        (Fraction(4), 0, 1),
        (Fraction(18, 5), 0, 5),
        (Fraction(18, 5), Fraction(1, 9), 1),
        (Fraction(18, 5), Fraction(1, 10), 3),
        (Fraction(18, 5), Fraction(1, 100), 5),
        (Fraction(1, 3), Fraction(1, 2), 2),
        (Fraction(1, 3), 2, 1),
    ],
)
def test_smallest_subpackets(load: Fraction, overhead: Fraction | int, subpackets: int) -> None:
    assert smallest_subpackets(UplinkOptimum(load, ((0,),), (load,)), overhead) == subpackets


def check_cheapest(placement: Placement, costs: list[Fraction]) -> None:
    """Feasible rates and a dual solution of the same value: that proves that they are optimal."""
    found = cheapest_rates(placement, costs)
    assert feasible(placement, found.rates)
    assert min(found.rates) >= 0
    assert found.cost == sum(c * rate for c, rate in zip(costs, found.rates, strict=True))
    assert found.cost == cost_bound(placement, costs, found.certificate)


@settings(max_examples=200, deadline=None)
@given(small_placements(), st.data())
def test_cheapest_rates_prove_themselves(placement: Placement, data: st.DataObject) -> None:
    K = len(placement.workers)
    cost = st.one_of(st.integers(0, 3).map(Fraction), st.fractions(0, 40, max_denominator=7))
    check_cheapest(placement, data.draw(st.lists(cost, min_size=K, max_size=K)))


def test_equal_costs_ask_for_the_least_sum() -> None:
    rng = random.Random(5)
    for _ in range(50):
        placement = random_placement(rng)
        found = cheapest_rates(placement, [Fraction(2, 3)] * len(placement.workers))
        assert found.cost == uplink_optimum(placement).load * Fraction(2, 3)


def test_sending_more_in_all_can_be_cheaper() -> None:
    """Two workers are so dear that it pays to let the other four send more."""
    placement = Placement.cyclic(6, 6, 3)
    costs = [1, 1, 1, 1, 100, 100]
    found = cheapest_rates(placement, costs)
    assert sum(found.rates) > uplink_optimum(placement).load
    assert found.cost == cost_bound(placement, costs, found.certificate)


def check_fastest(placement: Placement, speeds: list[Fraction]) -> None:
    found = fastest_rates(placement, speeds)
    assert feasible(placement, found.rates)
    assert min(found.rates) >= 0
    assert found.time == max(rate / b for b, rate in zip(speeds, found.rates, strict=True))
    if len(speeds) == 1:
        return
    assert found.time == shortest_time(placement, speeds)
    assert found.time == time_bound(placement, speeds, found.certificate)


@settings(max_examples=200, deadline=None)
@given(small_placements(), st.data())
def test_fastest_rates_agree_with_brute_force(placement: Placement, data: st.DataObject) -> None:
    K = len(placement.workers)
    speed = st.one_of(st.integers(1, 3).map(Fraction), st.fractions(Fraction(1, 9), 40, max_denominator=9))
    check_fastest(placement, data.draw(st.lists(speed, min_size=K, max_size=K)))


def test_fastest_rates_waste_nothing() -> None:
    """A linear program knows the least sum of rates that take no longer."""
    rng = random.Random(6)
    for _ in range(60):
        placement = random_placement(rng)
        K = len(placement.workers)
        if K == 1:
            continue
        speeds = [Fraction(rng.randint(1, 9)) for _ in range(K)]
        found = fastest_rates(placement, speeds)
        cuts = list(proper_subsets(K))
        least = linprog(
            [1] * K,
            A_ub=[[-float(k in cut) for k in range(K)] for cut in cuts],
            b_ub=[-ex(placement, cut) for cut in cuts],
            bounds=[(0, float(found.time * b) + 1e-9) for b in speeds],
        )
        assert float(sum(found.rates)) == pytest.approx(least.fun, abs=1e-6)


CYCLIC = Placement.cyclic(3, 3, 2)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: integral_rates(CYCLIC, 0), "positive integer"),
        (lambda: smallest_subpackets(uplink_optimum(CYCLIC), Fraction(-1, 2)), "negative"),
        (lambda: cheapest_rates(CYCLIC, [1, 2]), "as many as workers"),
        (lambda: cheapest_rates(CYCLIC, [1, 2, -1]), "negative"),
        (lambda: fastest_rates(CYCLIC, [1, 2, 3, 4]), "as many as workers"),
        (lambda: fastest_rates(CYCLIC, [1, 2, 0]), "positive"),
    ],
)
def test_bad_input(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        call()
