"""Whole runs beside a solver that shares no code: cvxpy, from the definition of the objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from support.problems import make_quick_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

T, F = 5, 4


def ragged(loss: str) -> list[tuple[Floats, Floats]]:
    """Tasks of 1 (or, with two classes, 4) to 21 rows, with features of different scales and an offset."""
    rng = np.random.default_rng(11)
    rows = []
    for t, n in enumerate((21, 1 if loss in ("squared", "huber") else 4, 8, 13, 3)):
        X = rng.standard_normal((n, F)) * [1.0, 3.0, 0.3, 1.0] + [0.0, 1.0, 0.0, 2.0]
        y = X @ [1.0, -1.0, 2.0, 0.0] + t + rng.standard_normal(n)
        if loss in ("logistic", "squared_hinge"):
            # Every other label is arbitrary, so that no hyperplane separates the rows of all tasks.
            y = np.where(np.arange(n) % 2, y > np.median(y), np.arange(n) % 4 == 0).astype(float)
        rows.append((X, y))
    return rows


def data_loss(loss: str, s: Any, y: Floats) -> Any:
    m = cp.multiply(2 * y - 1, s)
    total = {
        "squared": lambda: cp.sum_squares(s - y) / 2,
        "huber": lambda: cp.sum(cp.huber(s - y, 1)) / 2,
        "logistic": lambda: cp.sum(cp.logistic(-m)),
        "squared_hinge": lambda: cp.sum_squares(cp.pos(1 - m)) / 2,
    }[loss]()
    return total / len(y)


def penalty(coupling: str, W: Any) -> Any:
    centred = W - np.full((T, T), 1 / T) @ W
    return {
        "nuclear": lambda: cp.norm(W, "nuc"),
        "l21": lambda: cp.sum(cp.norm(W, 2, axis=0)),
        "mean-regularised": lambda: cp.sum_squares(centred) / 2,
        "covariance": lambda: cp.square(cp.norm(W, "nuc")) / 2,
        "chain": lambda: cp.sum_squares(W[1:] - W[:-1]) / 2,
        "clustered": lambda: sum(cp.norm(W[s] - W[t]) for t in range(T) for s in range(t)) / T,
    }[coupling]()


@pytest.mark.parametrize(
    ("loss", "coupling", "strength"),
    [
        ("squared", "nuclear", 0.3),
        ("squared", "l21", 0.3),
        ("squared", "mean-regularised", 0.5),
        ("squared", "covariance", 0.05),
        ("squared", "chain", 0.5),
        ("squared", "clustered", 0.3),
        ("logistic", "nuclear", 0.05),
        ("logistic", "l21", 0.05),
        ("logistic", "mean-regularised", 0.5),
        ("logistic", "covariance", 0.05),
        ("squared_hinge", "nuclear", 0.1),
        ("huber", "covariance", 0.05),
    ],
)
@pytest.mark.parametrize("intercept", ["free", "penalised"])
def test_a_run_reaches_the_centralised_optimum(
    loss: str, coupling: str, strength: float, intercept: str
) -> None:
    rows = ragged(loss)
    W, b = cp.Variable((T, F)), cp.Variable((T, 1))
    fit = sum(data_loss(loss, X @ W[t] + b[t, 0], y) for t, (X, y) in enumerate(rows))
    tied = W if intercept == "free" else cp.hstack([W, b])
    objective = fit + strength * penalty(coupling, tied)
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
    least = float(objective.value)

    partitions = [
        Partition(f"p{2 * t + i}", f"t{t}", X[own], y[own])
        for t, (X, y) in enumerate(rows)
        for i, own in enumerate((slice(0, (len(y) + 1) // 2), slice((len(y) + 1) // 2, None)))
        if len(y[own])
    ]
    settings = make_quick_settings(
        loss=loss, coupling=coupling, strength=strength, intercept=intercept,
        rounds=20_000, tolerance=1e-6, dtype="float64",
    )  # fmt: skip
    trained = train(partitions, settings)
    W.value, b.value = trained.models.coef_, trained.models.intercept_[:, None]
    assert trained.converged
    assert abs(float(objective.value) - least) <= 1e-6 * least
    assert least > 0.0


@pytest.mark.parametrize("coupling", ["nuclear", "l21", "mean-regularised", "covariance"])
def test_tasks_of_one_class_have_a_finite_limit(coupling: str) -> None:
    strength = 0.5 if coupling == "mean-regularised" else 0.05
    rows = ragged("logistic")
    for t, label in ((1, 1.0), (4, 0.0)):
        rows[t] = rows[t][0], np.full(len(rows[t][1]), label)
    # The infimum is that without the loss of these tasks, which vanishes at infinity.
    W, b = cp.Variable((T, F)), cp.Variable(T)
    fit = sum(data_loss("logistic", X @ W[t] + b[t], y) for t, (X, y) in enumerate(rows) if t not in (1, 4))
    objective = fit + strength * penalty(coupling, W)
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
    least = float(objective.value)

    # Each partition of a task has labels of one class only.
    partitions = [
        Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2])
        for t, (X, y) in enumerate(rows)
        for i in range(2)
        if len(y[i::2])
    ]
    settings = make_quick_settings(
        loss="logistic", coupling=coupling, strength=strength, dtype="float64", rounds=20_000, tolerance=1e-7
    )
    trained = train(partitions, settings)
    models = trained.models
    assert trained.converged
    reached = sum(
        data_loss("logistic", X @ models.coef_[t] + models.intercept_[t], y).value
        for t, (X, y) in enumerate(rows)
        if t not in (1, 4)
    )
    reached += strength * penalty(coupling, models.coef_).value
    assert abs(reached - least) <= 1e-6 * least
    assert abs(trained.objectives[-1] - least) <= 1e-6 * least
    several = replace(settings, update="model", epochs=2, rounds=5)
    for found in (models, train(partitions, several).models):
        assert found.intercept_[1] == np.log1p(len(rows[1][1]))
        assert found.intercept_[4] == -np.log1p(len(rows[4][1]))
