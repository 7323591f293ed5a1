from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.local_learner import GradientDescent, LocalStart
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 5))
Y = X @ rng.standard_normal(5) + 0.5
WEIGHTS: Floats = np.linspace(0.5, 2.5, 60)
START = LocalStart(np.ones(5), 0.5, 2.0, 3, 0)


def test_steps_go_down_the_gradient_of_the_weighted_mean_loss() -> None:
    A = np.column_stack([X, np.ones(60)])
    expected = np.append(START.w, START.b)
    for _ in range(3):
        # The smoothness of the columns is 2, and that of the intercept 1.
        expected = expected - A.T @ (WEIGHTS * (A @ expected - Y)) / WEIGHTS.sum() / 3.0
    w, b = GradientDescent(LOSSES["squared"], intercept=True).fit(Partition("p", "t", X, Y, WEIGHTS), START)
    assert np.append(w, b) == pytest.approx(expected, rel=1e-12)


def test_equal_weights_are_as_none() -> None:
    learner = GradientDescent(LOSSES["huber"], intercept=True)
    plain = learner.fit(Partition("p", "t", X, Y), START)
    weighted = learner.fit(Partition("p", "t", X, Y, np.full(60, 7.0)), START)
    assert weighted[0] == pytest.approx(plain[0])
    assert weighted[1] == pytest.approx(plain[1])


def test_without_an_intercept_it_stays_zero() -> None:
    w, b = GradientDescent(LOSSES["squared"], intercept=False).fit(
        Partition("p", "t", X, Y), replace(START, b=0.0)
    )
    assert b == 0.0
    assert (w != START.w).all()


def test_the_start_is_left_alone_and_results_repeat() -> None:
    learner, partition = GradientDescent(LOSSES["squared"], intercept=True), Partition("p", "t", X, Y)
    one, other = (learner.fit(partition, START) for _ in range(2))
    assert (START.w == 1.0).all()
    assert one[0].tobytes() == other[0].tobytes()


def test_rows_of_zeros_have_no_smoothness_and_move_the_intercept_alone() -> None:
    zeros = Partition("p", "t", np.zeros((4, 5)), np.full(4, 3.0))
    w, b = GradientDescent(LOSSES["squared"], intercept=True).fit(
        zeros, LocalStart(np.ones(5), 0.0, 0.0, 1, 0)
    )
    assert (w == 1.0).all()
    assert b == 3.0


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "poisson"])
def test_the_loss_falls(loss: str) -> None:
    y = (Y > 0.5).astype(float) if LOSSES[loss].classification else Y
    partition = Partition("p", "t", X, y)
    start = LocalStart(np.zeros(5), 0.0, partition.smoothness(loss, intercept=True), 20, 0)
    learner = GradientDescent(LOSSES[loss], intercept=True)
    learner.check(partition)
    w, b = learner.fit(partition, start)
    before, after = (
        float(LOSSES[loss].value_and_derivative(X @ v + c, y)[0].mean()) for v, c in ((start.w, 0.0), (w, b))
    )
    assert after < 0.9 * before
