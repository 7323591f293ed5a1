from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linear_oracle import fractional_minimum
from support.oracle import ex, proper_subsets, small_placements

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import demands
from asyncdmtl.plan.rates.demands import Demands, demanded_packets, least_demanded_load
from asyncdmtl.plan.rates.optimum import uplink_optimum


def stores(*stored: str) -> Placement:
    return Placement({f"w{k}": list(names) for k, names in enumerate(stored)})


@pytest.mark.parametrize(
    ("placement", "helpers", "load"),
    [
        (stores("12", "12", "34", "34"), (2, 3), 2),
        (stores("12", "12", "34", "34"), (), 4),
        (stores("123", "12", "34", "4"), (3,), 3),
        (stores("1234", "345", "56", "16"), (2, 3), 3),
        (stores("1234", "345", "56", "16"), (), Fraction(9, 2)),
        (stores("12", "1"), (1,), 0),
    ],
)
def test_examples_of_the_theory(placement: Placement, helpers: tuple[int, ...], load: Fraction) -> None:
    assert least_demanded_load(placement, helpers) == load


@settings(max_examples=25, deadline=None)
@given(small_placements(4, 7), st.data())
def test_rates_meet_the_linear_program_of_the_cuts_that_remain(
    placement: Placement, data: st.DataObject
) -> None:
    K = len(placement.workers)
    helpers = data.draw(st.sets(st.integers(0, K - 1), max_size=K - 1))
    demanders = set(range(K)) - helpers
    cuts = {
        frozenset(S): ex(placement, S)
        for S in proper_subsets(K)
        if ex(placement, S) and not demanders <= set(S)
    }
    least = fractional_minimum(K, cuts) if cuts else Fraction(0)
    assert least_demanded_load(placement, helpers) == least
    if not helpers:
        assert least == uplink_optimum(placement).load
    packets, rows = demanded_packets(placement, helpers, Fraction(0))
    assert Fraction(sum(rows), packets) == least
    assert all(sum(rows[k] for k in S) >= packets * count for S, count in cuts.items())


def test_an_overhead_buys_fewer_packets() -> None:
    placement = Placement.cyclic(4, 4, 2)
    tight, _ = demanded_packets(placement, (), Fraction(0))
    loose, rows = demanded_packets(placement, (), Fraction(1, 2))
    assert (tight, loose, sum(rows)) == (3, 1, 3)


def test_packets_that_do_not_suffice_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demands, "packets", lambda self, subpackets: (9, 9, 9, 9))
    monkeypatch.setattr(demands, "_MOST_TRIED", 2)
    with pytest.raises(PlanError, match="max_overhead"):
        demanded_packets(Placement.cyclic(4, 4, 2), (), Fraction(0))
