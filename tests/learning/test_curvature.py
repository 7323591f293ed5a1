from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.batches import make_batches
from asyncdmtl.learning.curvature import (
    SecondOrderWire,
    at_intercepts,
    describe,
    log_means,
)
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition

Y = np.array([0.0, 1.0])


def at(loss: str, scores: Any) -> Any:
    """Loss and derivative at scores."""
    return LOSSES[loss].value_and_derivative(np.asarray(scores), np.broadcast_to(Y, np.shape(scores)))


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("score", [-3.0, -0.4, 0.3, 2.5])
def test_sharp_second_derivatives_are_those_of_the_first(loss: str, score: float) -> None:
    scores = np.array([[score, score]])
    h = 1e-5
    difference = (at(loss, scores + h)[1] - at(loss, scores - h)[1]) / (2 * h)
    found = LOSSES[loss].second_derivative(scores, Y, at(loss, scores)[1], sharp=True)
    assert found == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("loss", ["huber", "squared", "squared_hinge"])
@given(start=st.floats(-20.0, 20.0), other=st.floats(-20.0, 20.0))
def test_the_parabola_of_the_others_lies_above_the_loss(loss: str, start: float, other: float) -> None:
    here, there = np.array([[start, start]]), np.array([[other, other]])
    value, slope = at(loss, here)
    curvature = LOSSES[loss].second_derivative(here, Y, slope, sharp=False)
    if loss == "squared_hinge":
        # If the loss is flat its curvature jumps, so that only other rows have a parabola.
        curvature = np.ones_like(curvature)
    parabola = value + slope * (there - here) + 0.5 * curvature * (there - here) ** 2
    assert (at(loss, there)[0] <= parabola + 1e-9).all()


@pytest.mark.parametrize("curvature", [True, False])
def test_vectors_hold_a_loss_a_gradient_and_half_a_matrix(curvature: bool) -> None:
    wire = SecondOrderWire(3, curvature=curvature)
    assert wire.length == (10 if curvature else 4)
    assert wire.dtype == np.float64
    vectors = np.arange(2.0 * wire.length).reshape(2, -1)
    losses, gradients, H = wire.split(vectors)
    assert losses.tolist() == [0.0, wire.length]
    assert gradients[0].tolist() == [1.0, 2.0, 3.0]
    expected = [[4.0, 5.0, 6.0], [5.0, 7.0, 8.0], [6.0, 8.0, 9.0]]
    assert H[0].tolist() == (expected if curvature else np.zeros((3, 3)).tolist())
    assert not np.shares_memory(losses, vectors)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("curvature", [True, False])
def test_partitions_are_described_by_weighted_means(intercept: bool, curvature: bool) -> None:
    rng = np.random.default_rng(0)
    weights = [1.0, 2.0, 0.5]
    partition = Partition("p0", "t", rng.standard_normal((3, 2)), rng.standard_normal(3), np.array(weights))
    (batch,) = make_batches([partition], [0])
    values, derivatives, curvatures = rng.uniform(0.1, 1.0, (3, 1, 3))
    wire = SecondOrderWire(2 + intercept, curvature=curvature)
    out = np.empty((1, wire.length))
    describe(batch, values, derivatives, curvatures if curvature else None, intercept, out)
    losses, gradients, H = wire.split(out)
    shares = np.array(weights) / 3.5
    A = np.column_stack([partition.X, np.ones(3)])[:, : wire.d]
    assert losses[0] == pytest.approx(shares @ values[0])
    assert gradients[0] == pytest.approx(A.T @ (shares * derivatives[0]))
    expected = A.T @ (A * (shares * curvatures[0])[:, None]) if curvature else np.zeros((wire.d, wire.d))
    assert H[0] == pytest.approx(expected)


def test_intercepts_and_what_is_told_there_follow_from_models_of_0() -> None:
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.normal(1.0, 1.0, (2, 12, 3)).reshape(24, 3), np.ones(24)]).reshape(2, 12, 4)
    y = (np.arange(24).reshape(2, 12) % 6 == 0).astype(np.float64)

    def told(b: Floats) -> tuple[Floats, Floats, Floats]:
        s = np.repeat(b[:, None], 12, axis=1)
        values, slopes = LOSSES["logistic"].value_and_derivative(s, y)
        p = 1.0 / (1.0 + np.exp(-s))
        weighted = X * (p * (1.0 - p))[:, :, None]
        gradients = np.einsum("tr,trd->td", slopes, X) / 12
        return values.mean(axis=1), gradients, np.einsum("tri,trj->tij", weighted, X) / 12

    _, gradients, H = told(np.zeros(2))
    intercepts, losses, moved, between = at_intercepts(gradients, H, np.full(2, np.nan))
    expected = told(intercepts)
    np.testing.assert_allclose(intercepts, np.log(y.mean(axis=1) / (1.0 - y.mean(axis=1))))
    np.testing.assert_allclose(losses, expected[0])
    np.testing.assert_allclose(moved, expected[1], atol=1e-15)
    np.testing.assert_allclose(between**2, H * expected[2])


def test_tasks_with_a_fixed_intercept_stay_as_they_are() -> None:
    nothing = np.zeros((1, 2)), np.zeros((1, 2, 2))
    intercepts, losses, gradients, H = at_intercepts(*nothing, np.array([3.0]))
    assert intercepts.tolist() == [3.0]
    assert [losses.any(), gradients.any(), H.any()] == [False, False, False]


def test_intercepts_of_counts_are_logarithms_of_their_means() -> None:
    found, nothing = log_means(1.0 - np.array([4.0, 0.25, 0.0]), np.array([9.0, 9.0, 9.0]))
    np.testing.assert_allclose(np.exp(found), [4.0, 0.25, 0.1])
    assert nothing.tolist() == [False, False, True]
