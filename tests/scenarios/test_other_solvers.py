"""Whole runs end at the minima that scikit-learn and SciPy find, which share no code with the package."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from support.problems import make_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.launch.threads import run_in_threads
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.server.records import RunOptions

FEATURES, ROWS = 3, 40

UPDATES = ["newton", "quasi-newton"]


def tasks(loss: str, count: int = 4, *, separable: bool = False, one_class: bool = False) -> list[Partition]:
    """Tasks of two partitions each; of `one_class`, the first task has positive labels only."""
    rng = np.random.default_rng(0)
    shared, made = rng.normal(size=FEATURES), []
    for t in range(count):
        X = rng.normal(size=(ROWS, FEATURES))
        scores = X @ (shared if separable else shared + 0.4 * rng.normal(size=FEATURES))
        if loss == "huber":
            y = scores + t + rng.standard_t(1.5, size=ROWS)
        else:
            y = (scores + (0.0 if separable else 1.0) * rng.logistic(size=ROWS) > 0.0).astype(np.float64)
        if one_class and t == 0:
            y[:] = 1.0
        made += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return made


def trained(partitions: list[Partition], **given: object) -> TaskModels:
    """The models of a run of three workers on sockets."""
    settings = make_settings(dtype="float64", rounds=200, tolerance=1e-10, **given)
    stored = {f"w{k}": [p for n, p in enumerate(partitions) if n % 3 != k] for k in range(3)}
    record, models = run_in_threads(RunOptions(settings, "relay", 3), stored)
    assert record.converged
    return models


def rows_of(partitions: list[Partition], task: str) -> tuple[Floats, Floats]:
    own = [p for p in partitions if p.task == task]
    return np.concatenate([p.X for p in own]), np.concatenate([p.y for p in own])


def losses(loss: str, scores: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Values and derivatives, written down anew."""
    if loss == "logistic":
        return np.logaddexp(0.0, scores) - y * scores, expit(scores) - y
    if loss == "squared_hinge":
        signs = 2.0 * y - 1.0
        short = np.maximum(1.0 - signs * scores, 0.0)
        return 0.5 * short**2, -signs * short
    r = scores - y
    return np.where(np.abs(r) <= 1.0, 0.5 * r**2, np.abs(r) - 0.5), np.clip(r, -1.0, 1.0)


def near_their_mean(
    flat: Floats, partitions: list[Partition], loss: str, strength: float, skip: str = ""
) -> tuple[float, Floats]:
    """The objective of "mean-regularised" with free intercepts, and its gradient; a task may have no loss."""
    names = sorted({p.task for p in partitions})
    W = flat.reshape(len(names), FEATURES + 1)
    offsets = W[:, :FEATURES] - W[:, :FEATURES].mean(axis=0)
    value, slopes = 0.5 * strength * float((offsets**2).sum()), np.zeros_like(W)
    slopes[:, :FEATURES] = strength * offsets
    for t, name in enumerate(names):
        if name == skip:
            continue
        X, y = rows_of(partitions, name)
        values, derivatives = losses(loss, X @ W[t, :FEATURES] + W[t, FEATURES], y)
        value += float(values.mean())
        slopes[t] += np.append(derivatives @ X, derivatives.sum()) / len(y)
    return value, slopes.reshape(-1)


def flat(models: TaskModels) -> Floats:
    order = np.argsort(models.tasks)
    return np.column_stack([models.coef_, models.intercept_])[order].reshape(-1)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("loss", ["logistic", "squared_hinge", "huber"])
def test_scipy_finds_no_lower_objective(loss: str, update: str) -> None:
    partitions = tasks(loss)
    models = trained(partitions, loss=loss, update=update, coupling="mean-regularised", strength=0.1)
    found = flat(models)
    value, slopes = near_their_mean(found, partitions, loss, 0.1)
    options = {"gtol": 1e-10, "ftol": 1e-16, "maxiter": 10_000}
    other = minimize(
        near_their_mean, np.zeros_like(found), (partitions, loss, 0.1), "L-BFGS-B", jac=True, options=options
    )
    assert abs(value - other.fun) <= 1e-8 * other.fun
    assert np.abs(slopes).max() < 1e-4


@pytest.mark.parametrize("update", UPDATES)
def test_a_task_of_one_class_has_the_coefficients_that_the_others_give_it(update: str) -> None:
    partitions = tasks("logistic", one_class=True)
    models = trained(partitions, loss="logistic", update=update, coupling="mean-regularised", strength=0.1)
    other = minimize(
        near_their_mean, np.zeros(4 * (FEATURES + 1)), (partitions, "logistic", 0.1, "t0"), "L-BFGS-B",
        jac=True, options={"gtol": 1e-12, "ftol": 1e-17, "maxiter": 10_000},
    )  # fmt: skip
    found, expected = (w.reshape(4, FEATURES + 1) for w in (flat(models), other.x))
    value, _ = near_their_mean(flat(models), partitions, "logistic", 0.1, "t0")
    assert abs(value - other.fun) <= 1e-8 * other.fun
    np.testing.assert_allclose(found[:, :FEATURES], expected[:, :FEATURES], atol=1e-4)
    np.testing.assert_allclose(found[1:, FEATURES], expected[1:, FEATURES], atol=1e-4)
    assert found[0, FEATURES] == pytest.approx(np.log(ROWS + 1.0))


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("separable", [False, True])
def test_a_single_task_is_scikit_learns_logistic_regression(update: str, separable: bool) -> None:
    # Of one task, ½ λ ‖W‖_*² is ½ λ ‖w‖².
    partitions = tasks("logistic", 1, separable=separable)
    X, y = rows_of(partitions, "t0")
    models = trained(partitions, loss="logistic", update=update, coupling="covariance", strength=1e-3)
    other = LogisticRegression(C=1.0 / (1e-3 * ROWS), tol=1e-12, solver="newton-cholesky").fit(X, y)

    def value(w: Floats, b: float) -> float:
        return float(losses("logistic", X @ w + b, y)[0].mean() + 0.5e-3 * w @ w)

    least = value(other.coef_[0], float(other.intercept_[0]))
    assert abs(value(models.coef_[0], float(models.intercept_[0])) - least) <= 1e-8 * least
    np.testing.assert_allclose(models.coef_[0], other.coef_[0], rtol=1e-4)


@pytest.mark.parametrize("update", UPDATES)
def test_a_single_task_is_scikit_learns_support_vector_machine(update: str) -> None:
    partitions = tasks("squared_hinge", 1)
    X, y = rows_of(partitions, "t0")
    given = {"loss": "squared_hinge", "update": update, "coupling": "covariance", "strength": 0.01}
    models = trained(partitions, intercept="none", **given)
    C = 1.0 / (2.0 * 0.01 * ROWS)
    other = LinearSVC(C=C, dual=False, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y)

    def value(w: Floats) -> float:
        return float(losses("squared_hinge", X @ w, y)[0].mean() + 0.005 * w @ w)

    assert abs(value(models.coef_[0]) - value(other.coef_[0])) <= 1e-8 * value(other.coef_[0])
