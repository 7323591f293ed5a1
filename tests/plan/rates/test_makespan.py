from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from support.oracle import (
    EDGES,
    ex,
    feasible,
    placement_of,
    proper_subsets,
    shortest_time,
    small_placements,
)
from support.placements import LARGE, random_placement

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import time_bound, violated_cut
from asyncdmtl.plan.rates.makespan import MakespanOptimum, fastest_rates, tolerant_time

CYCLIC = Placement.cyclic(3, 3, 2)


def check_fastest(placement: Placement, speeds: list[Fraction]) -> None:
    found = fastest_rates(placement, speeds)
    assert feasible(placement, found.rates)
    assert min(found.rates) >= 0
    assert found.time == max(rate / b for b, rate in zip(speeds, found.rates, strict=True))
    if len(speeds) == 1:
        return
    assert found.time == shortest_time(placement, speeds)
    assert found.time == time_bound(placement, speeds, found.certificate)


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges(placement: Placement) -> None:
    check_fastest(placement, [Fraction(k + 1, 2) for k in range(len(placement.workers))])


def test_one_worker_sends_nothing() -> None:
    alone = placement_of([[0], [0]], 1)
    assert fastest_rates(alone, [3]) == MakespanOptimum(Fraction(0), (Fraction(0),), ())


@settings(max_examples=200, deadline=None)
@given(small_placements(), st.data())
def test_fastest_rates_agree_with_brute_force(placement: Placement, data: st.DataObject) -> None:
    K = len(placement.workers)
    speed = st.one_of(st.integers(1, 3).map(Fraction), st.fractions(Fraction(1, 9), 40, max_denominator=9))
    check_fastest(placement, data.draw(st.lists(speed, min_size=K, max_size=K)))


def test_fastest_rates_waste_nothing() -> None:
    """A linear program gives the smallest sum of rates that take this time."""
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


@pytest.mark.parametrize("placement", LARGE, ids=repr)
def test_large_placements_prove_themselves(placement: Placement) -> None:
    rng = random.Random(1)
    speeds = [Fraction(rng.randint(1, 30), rng.randint(1, 4)) for _ in placement.workers]
    found = fastest_rates(placement, speeds)
    assert violated_cut(placement, found.rates) is None
    assert time_bound(placement, speeds, found.certificate) == found.time
    assert max(rate / b for b, rate in zip(speeds, found.rates, strict=True)) == found.time


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: fastest_rates(CYCLIC, [1, 2, 3, 4]), "as many as workers"),
        (lambda: fastest_rates(CYCLIC, [1, 2, 0]), "positive"),
    ],
)
def test_bad_input(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        call()


def test_the_tolerant_time_is_that_of_the_worst_cut_and_responders() -> None:
    placement, speeds = Placement.cyclic(5, 7, 3), list(map(Fraction, (10, 20, 50, 100, 100)))
    for silent in (0, 1, 2):
        worst = max(
            Fraction(ex(placement, cut)) / sum(speeds[k] for k in cut if k not in absent)
            for absent in combinations(range(5), silent)
            for cut in proper_subsets(5)
            if ex(placement, cut)
        )
        assert tolerant_time(placement, speeds, silent) == worst
    with pytest.raises(PlacementError, match="would be lost"):
        tolerant_time(placement, speeds, 3)
