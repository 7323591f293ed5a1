from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import (
    EDGES,
    feasible,
    placement_of,
    small_placements,
)
from support.placements import LARGE, random_placement

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import cost_bound, violated_cut
from asyncdmtl.plan.rates.cost import WeightedOptimum, cheapest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum

CYCLIC = Placement.cyclic(3, 3, 2)


def check_cheapest(placement: Placement, costs: list[Fraction]) -> None:
    """Check that rates are feasible and a dual solution has the same value, which proves both optimal."""
    found = cheapest_rates(placement, costs)
    assert feasible(placement, found.rates)
    assert min(found.rates) >= 0
    assert found.cost == sum(c * rate for c, rate in zip(costs, found.rates, strict=True))
    assert found.cost == cost_bound(placement, costs, found.certificate)


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges(placement: Placement) -> None:
    check_cheapest(placement, [Fraction(k + 1, 2) for k in range(len(placement.workers))])


def test_one_worker_sends_nothing() -> None:
    alone = placement_of([[0], [0]], 1)
    assert cheapest_rates(alone, [3]) == WeightedOptimum(Fraction(0), (Fraction(0),), ())


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
    """Two workers are so expensive that it is cheaper if the other four send more."""
    placement = Placement.cyclic(6, 6, 3)
    costs = [1, 1, 1, 1, 100, 100]
    found = cheapest_rates(placement, costs)
    assert sum(found.rates) > uplink_optimum(placement).load
    assert found.cost == cost_bound(placement, costs, found.certificate)


@pytest.mark.parametrize("placement", LARGE, ids=repr)
def test_large_placements_prove_themselves(placement: Placement) -> None:
    rng = random.Random(1)
    weights = [Fraction(rng.randint(1, 30), rng.randint(1, 4)) for _ in placement.workers]
    found = cheapest_rates(placement, weights)
    assert violated_cut(placement, found.rates) is None
    assert cost_bound(placement, weights, found.certificate) == found.cost
    assert sum(c * rate for c, rate in zip(weights, found.rates, strict=True)) == found.cost


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: cheapest_rates(CYCLIC, [1, 2]), "as many as workers"),
        (lambda: cheapest_rates(CYCLIC, [1, 2, -1]), "negative"),
    ],
)
def test_bad_input(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        call()
