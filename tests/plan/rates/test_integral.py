from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import (
    EDGES,
    feasible,
    least_uplink_load,
    most_balanced_rates,
    placement_of,
    small_placements,
)
from support.placements import LARGE

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import violated_cut
from asyncdmtl.plan.rates.integral import integral_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum


def check_integral(placement: Placement, subpackets: int) -> tuple[int, ...]:
    rates = integral_rates(placement, subpackets)
    assert all(type(rate) is int and rate >= 0 for rate in rates)
    assert sum(rates) == ceil(subpackets * least_uplink_load(placement)[0])
    assert feasible(placement, rates, subpackets)
    return rates


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges(placement: Placement) -> None:
    for subpackets in (1, 2, 5):
        check_integral(placement, subpackets)


def test_one_worker_sends_nothing() -> None:
    assert integral_rates(placement_of([[0], [0]], 1), 3) == (0,)


def test_cyclic_placement_of_six() -> None:
    placement = Placement.cyclic(6, 6, 3)
    assert integral_rates(placement, 5) == (3,) * 6
    assert sorted(integral_rates(placement, 1)) == [0, 0, 1, 1, 1, 1]


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
def test_large_placements(placement: Placement) -> None:
    optimum = uplink_optimum(placement)
    for subpackets in (1, 3):
        rates = integral_rates(placement, subpackets, optimum)
        assert sum(rates) == ceil(subpackets * optimum.load)
        assert violated_cut(placement, rates, subpackets) is None


def test_a_vector_has_at_least_one_packet() -> None:
    with pytest.raises(UsageError, match="positive integer"):
        integral_rates(Placement.cyclic(3, 3, 2), 0)
