from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linear_oracle import fractional_minimum, integer_minimum, met

from asyncdmtl.plan.rates import covering
from asyncdmtl.plan.rates.covering import (
    Constraints,
    fractional_cover,
    integer_cover,
    minimise,
    proven_cover,
    sampled_covers,
)


@st.composite
def demands_of_sets(draw: st.DrawFn) -> tuple[int, dict[frozenset[int], int]]:
    workers = draw(st.integers(1, 4))
    sets = st.frozensets(st.integers(0, workers - 1), min_size=1)
    return workers, draw(st.dictionaries(sets, st.integers(1, 4), min_size=1, max_size=5))


@settings(max_examples=60, deadline=None)
@given(demands_of_sets(), st.integers(1, 3))
def test_covers_agree_with_brute_force(problem: tuple[int, dict[frozenset[int], int]], packets: int) -> None:
    workers, demands = problem
    rates, proven = integer_cover(workers, demands, subpackets=packets)
    assert met(rates, demands, packets)
    assert sum(rates) == proven == integer_minimum(workers, demands, packets)
    assert fractional_cover(workers, demands)[1] == fractional_minimum(workers, demands)


@settings(max_examples=40, deadline=None)
@given(demands_of_sets(), st.integers(1, 2))
def test_silent_workers_are_made_up_for(problem: tuple[int, dict[frozenset[int], int]], silent: int) -> None:
    workers, demands = problem
    demands = {S: demand for S, demand in demands.items() if len(S) > silent}
    rates, proven = integer_cover(workers, demands, silent=silent)
    for S, demand in demands.items():
        assert sum(sorted(rates[k] for k in S)[: len(S) - silent]) >= demand
    bound = fractional_cover(workers, demands, silent=silent)[1]
    assert bound <= proven <= sum(rates)


def test_nothing_is_demanded() -> None:
    assert integer_cover(3, {}) == ((0, 0, 0), 0)
    rates, bound = fractional_cover(3, {})
    assert rates.tolist() == [0, 0, 0]
    assert bound == 0


def test_rates_are_capped() -> None:
    rates, proven = integer_cover(3, {frozenset({0, 1, 2}): 2, frozenset({0, 1}): 2}, most=1)
    assert rates[:2] == (1, 1)
    assert proven == 2


def test_a_program_without_a_solution_has_none() -> None:
    constraints = Constraints()
    constraints.add([(0, 1.0), (0, 1.0)], 3.0)
    assert minimise(np.ones(1), constraints, np.ones(1)) is None
    solution = minimise(np.ones(1), constraints, np.full(1, 2.0))
    assert solution is not None
    assert solution.values.tolist() == [2]
    assert solution.optimal


def test_a_search_that_ends_early_still_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "minimise", lambda *arguments: None)
    rates, proven = integer_cover(3, {frozenset({0, 1}): 2, frozenset({2}): 1})
    assert rates == (2, 2, 1)
    assert proven == 2


def test_bounds_with_huge_denominators_are_rounded_down(monkeypatch: pytest.MonkeyPatch) -> None:
    demands = {frozenset({k, (k + 1) % 3}): 1 for k in range(3)}
    assert fractional_cover(3, demands)[1] == Fraction(3, 2)
    monkeypatch.setattr(covering, "_LARGEST_DENOMINATOR", 1)
    assert fractional_cover(3, demands)[1] == 1


def test_where_nothing_has_a_price_nothing_is_proven() -> None:
    assert proven_cover(2, {frozenset({0}): 3}, [Fraction(0)] * 2)[1] == {}


def test_costs_move_the_cover_and_are_proven() -> None:
    demands = {frozenset({0, 1}): 3, frozenset({1, 2}): 2}
    costs = [Fraction(1, 3), Fraction(2), Fraction(0)]
    rows, _ = integer_cover(3, demands, subpackets=2, costs=costs, most=[9, 9, 9])
    assert rows[:2] == (6, 0)
    _, proof = proven_cover(3, demands, costs)
    assert sum(y * demands[S] for S, y in proof.items()) == 1
    assert all(sum(y for S, y in proof.items() if k in S) <= cost for k, cost in enumerate(costs))


@pytest.mark.parametrize("silent", [0, 1])
def test_sampled_covers_meet_all_demands(silent: int) -> None:
    demands = {frozenset(S): 2 for S in combinations(range(4), 3)}
    found = sampled_covers(4, demands, 9, [3] * 4, subpackets=2, silent=silent, samples=6)
    assert len(set(found)) == len(found) > 1
    for rates in found:
        assert sum(rates) == 9
        assert max(rates) <= 3
        for S, demand in demands.items():
            assert sum(sorted(rates[k] for k in S)[: len(S) - silent]) >= 2 * demand
    assert sampled_covers(4, demands, 2, [3] * 4, subpackets=2, silent=silent, samples=6) == []
