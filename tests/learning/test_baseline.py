from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.baseline import higher_is_better, mean_score, score, single_task
from asyncdmtl.learning.tasks import Partition, TaskModels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
W = np.array([2.0, -1.0, 0.0, 0.5])


def two_parts(task: str, X: np.ndarray, y: np.ndarray, first: int) -> list[Partition]:
    half = len(y) // 2
    pieces = (slice(0, half), slice(half, None)) if half else (slice(None),)
    return [Partition(f"p{first + i}", task, X[piece], y[piece]) for i, piece in enumerate(pieces)]


@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_finds_a_linear_law(intercept: bool) -> None:
    offset = 3.0 if intercept else 0.0
    partitions = two_parts("t10", X, X @ W + offset, 0) + two_parts("t2", 1e6 * X, X @ -W + offset, 2)
    models = single_task(partitions, "squared", intercept=intercept)
    assert models.tasks == ("t2", "t10")
    assert models.coef_[1] == pytest.approx(W, abs=1e-2)
    assert 1e6 * models.coef_[0] == pytest.approx(-W, abs=1e-2)
    assert models.intercept_ == pytest.approx([offset, offset], abs=1e-2)
    errors = score(models, {"t2": (1e6 * X, X @ -W + offset + 1.0)}, "RMSE")
    assert errors == {"t2": pytest.approx(1.0, abs=1e-2)}


def test_regularisation_is_chosen_by_the_rows() -> None:
    noisy = RNG.standard_normal(60)
    models = single_task(two_parts("noise", X, noisy, 0), "squared")
    assert np.abs(models.coef_).max() < 0.7 * np.abs(np.linalg.lstsq(X, noisy, rcond=None)[0]).max()


@pytest.mark.parametrize("intercept", [True, False])
def test_logistic_ranks_the_rows(intercept: bool) -> None:
    y = (X @ W + 0.3 * RNG.standard_normal(60) > 0).astype(float)
    models = single_task(two_parts("t", X[:40], y[:40], 0), "logistic", intercept=intercept)
    assert score(models, {"t": (X[40:], y[40:])}, "ROC AUC")["t"] > 0.9
    assert (models.intercept_[0] != 0) == intercept


@pytest.mark.parametrize("positives", [0, 1, 2, 4])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_tasks_too_small_for_folds_are_fitted_all_the_same(rows: int, positives: int) -> None:
    y = np.zeros(rows)
    y[:positives] = 1
    models = single_task(two_parts("t", X[:rows], y, 0), "logistic")
    assert np.isfinite(models.coef_).all()
    if positives == 0 or positives >= rows:
        assert (models.coef_ == 0).all()
        assert np.sign(models.intercept_[0]) == (1 if positives else -1)
    else:
        assert (models.coef_ != 0).any()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_ridge_with_hardly_a_row(rows: int) -> None:
    models = single_task(two_parts("t", X[:rows], np.arange(rows) + 1.0, 0), "squared")
    assert np.isfinite(models.coef_).all()
    assert np.isfinite(models.intercept_).all()


def test_ridge_with_features_that_say_nothing() -> None:
    models = single_task(two_parts("t", np.ones((6, 2)), np.arange(6.0), 0), "squared")
    assert models.predict(np.ones((1, 2)), "t") == pytest.approx([2.5])


def test_baseline_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(UsageError, match="loss must be one of squared, logistic"):
        single_task(two_parts("t", X, X @ W, 0), "hinge")
    with pytest.raises(DataError, match="targets of task 't'"):
        single_task(two_parts("t", X, X @ W, 0), "logistic")


def test_scores_are_roc_auc_or_rmse() -> None:
    y = (RNG.random(60) > 0.5).astype(float)
    models = TaskModels(("t2", "t10"), np.array([W, -W]), np.zeros(2), "logistic")
    scores = score(models, {"t10": (X, y), "t2": (X, np.ones(60))}, "ROC AUC")
    assert list(scores) == ["t2", "t10"]
    assert math.isnan(scores["t2"])
    assert scores["t10"] == pytest.approx(roc_auc_score(y, X @ -W))
    assert mean_score(scores) == scores["t10"]
    regression = TaskModels(("t",), W[None], np.ones(1), "squared")
    assert score(regression, {"t": (X, X @ W)}, "RMSE")["t"] == pytest.approx(1.0)
    assert math.isnan(mean_score(score(regression, {"t": (X[:0], X[:0, 0])}, "RMSE")))
    with pytest.raises(UsageError, match="task"):
        score(regression, {"u": (X, X @ W)}, "RMSE")


def test_metrics_have_directions() -> None:
    assert higher_is_better("ROC AUC")
    assert not higher_is_better("RMSE")
