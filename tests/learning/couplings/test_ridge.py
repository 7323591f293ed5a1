from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from asyncdmtl.learning.couplings.ridge import Ridge
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

W = np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 7.0]])


def test_the_penalty_is_half_the_squared_norm() -> None:
    assert Ridge(0.5).penalty(W) == pytest.approx(0.25 * (W**2).sum())


def test_models_are_drawn_to_zero_by_a_known_share() -> None:
    place = W.copy()
    assert Ridge(6.0).prox(W, 0.5) == pytest.approx(W / 4.0)
    assert Ridge(6.0).prox(place, 0.5, place) is place
    assert place == pytest.approx(W / 4.0)


def test_at_the_critical_strength_a_step_leaves_a_tenth() -> None:
    strength = Ridge(0.0).critical_strength(W, 4.0)
    assert Ridge(strength).prox(W, 0.25) == pytest.approx(W / 11.0)
    assert Ridge(1.0).critical_strength(0.0 * W, 4.0) == 0.0


@pytest.mark.parametrize("update", ["statistics", "gradient"])
def test_each_task_has_the_ridge_regression_of_its_rows(update: str) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(2, 20, 4)), rng.normal(size=(2, 20))
    settings = Settings(
        "squared", "ridge", 0.3, 2000, update=update, tolerance=1e-13, dtype="float64", accelerated=True
    )
    found = train([Partition(f"p{t}", f"t{t}", X[t], y[t]) for t in range(2)], settings).models
    for t in range(2):
        expected = SklearnRidge(alpha=0.3 * 20, tol=1e-12).fit(X[t], y[t])
        np.testing.assert_allclose(found.coef_[t], expected.coef_, atol=1e-7)
        assert found.intercept_[t] == pytest.approx(expected.intercept_, abs=1e-7)
