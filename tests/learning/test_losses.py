from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_poisson_deviance

from asyncdmtl.errors import DataError
from asyncdmtl.learning.losses import LOSSES, check_targets, predictions_of

finite = st.floats(-30, 30)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "poisson"])
@given(score=finite, label=st.sampled_from([0.0, 1.0]))
def test_derivative_is_that_of_the_value(name: str, score: float, label: float) -> None:
    h = 1e-6  # small enough for the kinks in the derivatives of Huber and squared hinge
    s, y = np.array([score - h, score, score + h]), np.full(3, label)
    values, derivatives = LOSSES[name].value_and_derivative(s, y)
    assert derivatives[1] == pytest.approx((values[2] - values[0]) / (2 * h), abs=1e-6)
    assert abs(derivatives[2] - derivatives[0]) <= LOSSES[name].curvature * 2 * h * (1 + 1e-6)


def test_logistic_survives_extreme_scores() -> None:
    values, derivatives = LOSSES["logistic"].value_and_derivative(
        np.array([1e300, -1e300, 1e300, -1e300, 0.0]), np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    )
    assert values.tolist() == [0.0, 1e300, 1e300, 0.0, math.log(2)]
    assert derivatives.tolist() == [0.0, -1.0, 1.0, 0.0, -0.5]


def test_logistic_keeps_the_digits_of_a_small_derivative() -> None:
    _, derivatives = LOSSES["logistic"].value_and_derivative(np.array([50.0]), np.array([1.0]))
    assert derivatives[0] == pytest.approx(-math.exp(-50), rel=1e-12)


def test_labels_are_zero_and_one() -> None:
    check_targets("logistic", np.array([0.0, 1.0]), "here")
    for loss in ("squared", "huber"):
        check_targets(loss, np.array([-3.5]), "here")
    with pytest.raises(DataError, match=r"targets of here must be 0 or 1 for logistic loss, got -1\.0"):
        check_targets("logistic", np.array([1.0, -1.0]), "here")
    with pytest.raises(DataError, match="for squared_hinge loss"):
        check_targets("squared_hinge", np.array([0.5]), "here")


def test_squared_hinge_is_free_beyond_the_margin() -> None:
    scores, labels = np.array([-1.0, 0.0, 0.5, 1.0, 1e300]), np.ones(5)
    for sign in (1.0, -1.0):
        values, derivatives = LOSSES["squared_hinge"].value_and_derivative(sign * scores, labels * (sign > 0))
        assert values.tolist() == [2.0, 0.5, 0.125, 0.0, 0.0]
        assert (sign * derivatives).tolist() == [-2.0, -1.0, -0.5, 0.0, 0.0]


def test_huber_is_square_near_and_straight_far() -> None:
    residuals = np.array([-1e300, -3.0, -1.0, 0.5, 1.0, 3.0])
    values, derivatives = LOSSES["huber"].value_and_derivative(residuals + 2.0, np.full(6, 2.0))
    assert values.tolist() == [1e300, 2.5, 0.5, 0.125, 0.5, 2.5]
    assert derivatives.tolist() == [-1.0, -1.0, -1.0, 0.5, 1.0, 1.0]


@given(score=finite, count=st.sampled_from([0.0, 0.5, 1.0, 7.0, 1e6]))
def test_poisson_is_half_the_deviance(score: float, count: float) -> None:
    values, derivatives = LOSSES["poisson"].value_and_derivative(np.array([score]), np.array([count]))
    deviance = mean_poisson_deviance([count], [math.exp(score)])
    assert values[0] == pytest.approx(deviance / 2, rel=1e-9, abs=1e-15 * max(1.0, 20 * count))
    assert derivatives[0] == pytest.approx(math.exp(score) - count, rel=1e-12, abs=1e-9 * count)
    assert values[0] >= 0.0


def test_poisson_keeps_its_digits_near_the_count() -> None:
    counts = np.array([1e9, 3.0])
    values, _ = LOSSES["poisson"].value_and_derivative(np.log(counts) + 1e-6, counts)
    np.testing.assert_allclose(values, counts * 5e-13, rtol=1e-3)


def test_poisson_goes_straight_on_where_it_would_overflow() -> None:
    values, derivatives = LOSSES["poisson"].value_and_derivative(
        np.array([200.0, 201.0, 1e6]), np.full(3, 2.0)
    )
    assert np.isfinite(values).all()
    assert values[1] - values[0] == pytest.approx(derivatives[0], rel=1e-12)
    assert derivatives[2] == derivatives[0] == pytest.approx(math.exp(200.0), rel=1e-12)


def test_counts_are_not_negative() -> None:
    check_targets("poisson", np.array([0.0, 2.5]), "here")
    with pytest.raises(DataError, match=r"targets of here must be at least 0 for poisson loss, got -1\.0"):
        check_targets("poisson", np.array([1.0, -1.0]), "here")


def test_only_poisson_predicts_powers() -> None:
    assert predictions_of("poisson", np.array([0.0, 1.0])).tolist() == [1.0, pytest.approx(math.e)]
    assert predictions_of("huber", np.array([0.5])).tolist() == [0.5]
