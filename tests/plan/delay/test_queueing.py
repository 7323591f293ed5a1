from __future__ import annotations

import math

import numpy as np
import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.delay.queueing import Moments, Stream, ideal_factor, mean_delay, one_time, round_time

TIMES = [1.0, 2.0, 4.0]


def test_a_queue_of_exponential_times_has_the_delay_of_the_textbook() -> None:
    # M/M/1: 1 / (μ − λ).
    assert mean_delay(0.5, one_time(1.0, 1.0)) == pytest.approx(2.0)
    # M/D/1: s (2 − ρ) / (2 (1 − ρ)).
    assert mean_delay(0.5, one_time(1.0, 0.0)) == pytest.approx(1.5)
    assert mean_delay(1.0, one_time(1.0, 0.0)) == math.inf


def test_the_maximum_of_exponential_times_is_that_of_inclusion_and_exclusion() -> None:
    rates = [1 / time for time in TIMES]
    a, b, c = rates
    signs = [(a, 1), (b, 1), (c, 1), (a + b, -1), (a + c, -1), (b + c, -1), (a + b + c, 1)]
    found = round_time(TIMES, 3, 1.0)
    assert found.mean == pytest.approx(sum(sign / rate for rate, sign in signs), rel=1e-9)
    assert found.square == pytest.approx(sum(2 * sign / rate**2 for rate, sign in signs), rel=1e-9)
    # The minimum is exponential.
    assert round_time(TIMES, 1, 1.0).mean == pytest.approx(1 / sum(rates), rel=1e-9)


@pytest.mark.parametrize(("needed", "variation"), [(1, 0.3), (2, 0.3), (3, 0.7)])
def test_rounds_are_as_long_as_drawn_ones(needed: int, variation: float) -> None:
    random = np.random.default_rng(1).exponential(size=(200_000, 3))
    drawn = np.sort(np.array(TIMES) * (1 - variation + variation * random))[:, needed - 1]
    found = round_time(TIMES, needed, variation)
    assert found.mean == pytest.approx(drawn.mean(), rel=0.01)
    assert found.square == pytest.approx((drawn**2).mean(), rel=0.02)


def test_times_that_do_not_vary_are_sorted() -> None:
    assert [round_time(TIMES, needed, 0.0) for needed in (1, 2, 3)] == [
        Moments(time, time**2) for time in TIMES
    ]


def test_rounds_add_up() -> None:
    # The variance of a sum is the sum of the variances.
    once = one_time(2.0, 0.5)
    many = once.repeated(9)
    assert many.mean == 18.0
    assert many.square - many.mean**2 == pytest.approx(9 * (once.square - once.mean**2))


@pytest.mark.parametrize("variation", [0.001, 0.3, 0.9])
def test_the_ideal_factor_is_a_mean_of_inverses(variation: float) -> None:
    drawn = 1 - variation + variation * np.random.default_rng(2).exponential(size=400_000)
    assert ideal_factor(variation) == pytest.approx(1 / (1 / drawn).mean(), rel=0.01)


def test_the_ideal_factor_at_the_ends() -> None:
    assert (ideal_factor(0.0), ideal_factor(1.0)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((0.0, 1, 0.5), "arrivals must be more than 0"),
        ((1.0, 0, 0.5), "rounds must be at least 1"),
        ((1.0, 1, 1.5), "variation must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named(values: tuple[float, int, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Stream(*values)


def test_a_round_needs_some_worker() -> None:
    with pytest.raises(UsageError, match="needed must lie between 1"):
        round_time(TIMES, 4, 0.5)
