from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linear_oracle import fractional_minimum
from support.oracle import ex, placement_of, proper_subsets, small_placements

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import demands
from asyncdmtl.plan.rates.bounds import cost_bound, time_bound
from asyncdmtl.plan.rates.demands import (
    Demands,
    demanded_packets,
    demanded_packets_in_time,
)
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
    assert Demands(placement, helpers).cheapest()[0] == load


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
    assert Demands(placement, helpers).cheapest()[0] == least
    if not helpers:
        assert least == uplink_optimum(placement).load
    found = demanded_packets(placement, helpers, Fraction(0))
    assert Fraction(sum(found.rows), found.subpackets) == least
    assert all(sum(found.rows[k] for k in S) >= found.subpackets * count for S, count in cuts.items())


@pytest.mark.parametrize("seed", range(12))
def test_costs_and_times_are_least_and_proven(seed: int) -> None:
    rng = random.Random(seed)
    K, N = rng.randint(2, 4), rng.randint(2, 6)
    placement = placement_of([rng.sample(range(K), rng.randint(1, K)) for _ in range(N)], K)
    helpers = set(rng.sample(range(K), rng.randint(0, K - 1)))
    weights = [Fraction(rng.choice([1, 2, 5, 10]), rng.choice([1, 3])) for _ in range(K)]
    costs = [Fraction(0) if rng.random() < 0.2 else weight for weight in weights]
    demanders = set(range(K)) - helpers
    cuts = {S: ex(placement, S) for S in proper_subsets(K) if not demanders <= set(S)}
    cost = demanded_packets(placement, helpers, Fraction(0), costs)
    assert all(sum(cost.rows[k] for k in S) >= cost.subpackets * count for S, count in cuts.items())
    assert cost_bound(placement, costs, cost.certificate) == cost.least
    assert all(not demanders <= set(cut) for cut, _ in cost.certificate)
    paid = sum((c * count for c, count in zip(costs, cost.rows, strict=True)), Fraction(0))
    assert paid == cost.subpackets * cost.least
    time = demanded_packets_in_time(placement, helpers, Fraction(0), weights)
    least = max(Fraction(count) / sum(weights[k] for k in S) for S, count in cuts.items())
    assert time.least == least
    assert all(sum(time.rows[k] for k in S) >= time.subpackets * count for S, count in cuts.items())
    limits = [least * time.subpackets * weight for weight in weights]
    assert all(count <= limit for count, limit in zip(time.rows, limits, strict=True))
    for cut, _ in time.certificate:
        assert time_bound(placement, weights, cut) == least
        assert not demanders <= set(cut)
    for fewer in range(1, time.subpackets):
        rows = [int(least * fewer * weight) for weight in weights]
        assert any(sum(rows[k] for k in S) < fewer * count for S, count in cuts.items())


def test_an_overhead_buys_fewer_packets() -> None:
    placement = Placement.cyclic(4, 4, 2)
    tight = demanded_packets(placement, (), Fraction(0))
    loose = demanded_packets(placement, (), Fraction(1, 2))
    assert (tight.subpackets, loose.subpackets, sum(loose.rows)) == (3, 1, 3)
    assert tight.least == loose.least == Fraction(8, 3)


def test_packets_that_do_not_suffice_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demands, "packets", lambda self, subpackets, costs: (9, 9, 9, 9))
    monkeypatch.setattr(Demands, "packets_near", lambda self, subpackets, allowed, costs: None)
    monkeypatch.setattr(demands, "_MOST_TRIED", 2)
    with pytest.raises(PlanError, match="max_overhead"):
        demanded_packets(Placement.cyclic(4, 4, 2), (), Fraction(0))
    monkeypatch.setattr(demands, "MOST_SUBPACKETS", 0)
    with pytest.raises(PlanError, match="max_overhead"):
        demanded_packets_in_time(Placement.cyclic(4, 4, 2), (), Fraction(0), [Fraction(1)] * 4)


def test_rates_of_thirty_workers_are_found_in_few_steps() -> None:
    rng = random.Random(0)
    placement = placement_of([rng.sample(range(30), 3) for _ in range(100)], 30)
    wanted = Demands(placement, (3, 7))
    assert wanted.cheapest()[0] == 96
    assert len(wanted.sizes) < 500
    found = demanded_packets(placement, (3, 7), Fraction(0))
    assert (found.subpackets, sum(found.rows)) == (1, 96)
    assert not wanted.violated(found.rows, 1)


@pytest.mark.parametrize("limits", [None, (4, 4, 4, 4)])
def test_rates_are_lowered_where_integer_programs_find_none(
    limits: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demands, "_MOST_STEPS", 0)
    wanted = Demands(stores("1234", "345", "56", "16"), (2, 3))
    rows = wanted.packets(2, limits=limits)
    assert not wanted.violated(rows, 2)
    assert sum(rows) >= 6
    for k, count in enumerate(rows):
        fewer = [*rows[:k], count - 1, *rows[k + 1 :]]
        assert not count or wanted.violated(fewer, 2)
