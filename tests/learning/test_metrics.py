from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    d2_tweedie_score,
    f1_score,
    log_loss,
    mean_poisson_deviance,
    r2_score,
    roc_auc_score,
)

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.metrics import METRICS, further_metrics, metrics_for, score
from asyncdmtl.learning.tasks import TaskModels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
W = np.array([2.0, -1.0, 0.0, 0.5])


def test_metrics_are_those_of_scikit_learn() -> None:
    labels, values = (RNG.random(60) > 0.5).astype(float), RNG.standard_normal(60)
    expected = {
        "ROC AUC": (labels, roc_auc_score(labels, values)),
        "accuracy": (labels, accuracy_score(labels, values > 0)),
        "average precision": (labels, average_precision_score(labels, values)),
        "F1": (labels, f1_score(labels, values > 0)),
        "log-loss": (labels, log_loss(labels, 1.0 / (1.0 + np.exp(-values)))),
        "Brier score": (labels, brier_score_loss(labels, 1.0 / (1.0 + np.exp(-values)))),
        "RMSE": (labels, math.sqrt(((labels - values) ** 2).mean())),
        "R²": (labels, r2_score(labels, values)),
    }
    assert set(expected) == set(METRICS) - {"Poisson deviance", "D²"}
    for name, (y, value) in expected.items():
        assert METRICS[name].of(y, values) == pytest.approx(value, rel=1e-12)
        assert METRICS[name].higher_is_better == (name not in ("RMSE", "log-loss", "Brier score"))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_no_rows_is_not_a_number(name: str) -> None:
    assert math.isnan(METRICS[name].of(np.empty(0), np.empty(0)))


def test_scores_are_per_task_and_of_all_rows() -> None:
    y = (RNG.random(60) > 0.5).astype(float)
    models = TaskModels(("t2", "t10"), np.array([W, -W]), np.zeros(2), "logistic")
    scores = score(models, {"t10": (X, y), "t2": (X, np.ones(60))}, "ROC AUC")
    assert list(scores.tasks) == ["t2", "t10"]
    assert math.isnan(scores.tasks["t2"])
    assert scores.mean == scores.tasks["t10"] == pytest.approx(roc_auc_score(y, X @ -W))
    everything = np.concatenate([np.ones(60), y]), np.concatenate([X @ W, X @ -W])
    assert scores.all_rows == pytest.approx(roc_auc_score(*everything))


def test_tasks_count_the_same_in_the_mean_and_rows_in_all_rows() -> None:
    models = TaskModels(("a", "b"), np.array([W, W]), np.array([1.0, 3.0]), "squared")
    rows = {"a": (X, X @ W), "b": (X[:20], X[:20] @ W)}
    scores = score(models, rows, "RMSE")
    assert scores.mean == pytest.approx(2.0)
    assert scores.all_rows == pytest.approx(math.sqrt((60 * 1.0 + 20 * 9.0) / 80))


def test_nothing_to_score() -> None:
    models = TaskModels(("t",), W[None], np.ones(1), "squared")
    for rows in ({}, {"t": (X[:0], X[:0, 0])}):
        scores = score(models, rows, "RMSE")
        assert math.isnan(scores.mean)
        assert math.isnan(scores.all_rows)
    with pytest.raises(UsageError, match="task"):
        score(models, {"u": (X, X @ W)}, "RMSE")


def test_every_loss_has_metrics() -> None:
    assert {loss: metrics_for(loss)[0] for loss in LOSSES} == {
        "squared": "RMSE", "huber": "RMSE", "logistic": "ROC AUC", "squared_hinge": "ROC AUC",
        "poisson": "Poisson deviance",
    }  # fmt: skip
    known = {name for loss in LOSSES for name in (*metrics_for(loss), *further_metrics(loss))}
    assert known == set(METRICS)
    assert "log-loss" not in further_metrics("squared_hinge")


def test_f1_where_nothing_is_found() -> None:
    assert METRICS["F1"].of(np.ones(3), -np.ones(3)) == 0.0
    assert math.isnan(METRICS["F1"].of(np.zeros(3), -np.ones(3)))
    assert math.isnan(METRICS["average precision"].of(np.zeros(3), np.arange(3.0)))


def test_deviances_are_those_of_scikit_learn() -> None:
    y, scores = np.array([0.0, 3.0, 1.0, 7.0]), np.array([-1.0, 1.0, 0.5, 1.5])
    assert METRICS["Poisson deviance"].of(y, scores) == pytest.approx(
        mean_poisson_deviance(y, np.exp(scores))
    )
    assert METRICS["D²"].of(y, scores) == pytest.approx(d2_tweedie_score(y, np.exp(scores), power=1))
    assert math.isnan(METRICS["D²"].of(np.ones(3), np.zeros(3)))
