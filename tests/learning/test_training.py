from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, MultiTaskLasso
from support.problems import make_partitions, make_quick_settings

from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train


def make_trainer(partitions: Sequence[Partition], settings: Settings) -> Trainer:
    infos = [p.info(settings) for p in partitions]
    return Trainer(Problem(settings, infos), dict(enumerate(partitions)))


def updates_of(trainer: Trainer) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    out = np.empty((len(trainer.own), trainer.problem.d), trainer.problem.dtype)
    trainer.local_updates(out)
    return out


@pytest.mark.parametrize("intercept", [True, False])
def test_l21_reaches_the_optimum_of_scikit_learn(intercept: bool) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 6))
    Y = (
        X @ (rng.standard_normal((6, 3)) * [[1], [1], [0], [0], [0], [1]])
        + 0.3 * rng.standard_normal((30, 3))
        + 2
    )
    strength = 0.4
    # scikit-learn has (1/2n)·‖Y − XW‖² + α Σ_f ‖W_f‖₂: with one X for all tasks that is our objective.
    other = MultiTaskLasso(strength, fit_intercept=intercept, tol=1e-12, max_iter=100_000).fit(X, Y)
    cuts = [slice(0, 7), slice(7, 19), slice(19, 30)]
    partitions = [
        Partition(f"p{3 * t + i}", f"t{t}", X[c], Y[c, t]) for t in range(3) for i, c in enumerate(cuts)
    ]
    settings = make_quick_settings(
        coupling="l21",
        strength=strength,
        rounds=500,
        dtype="float64",
        intercept="free" if intercept else "none",
    )
    models, objectives, *_ = train(partitions, settings)
    assert models.coef_ == pytest.approx(other.coef_, abs=1e-9)
    assert models.intercept_ == pytest.approx(other.intercept_ + np.zeros(3), abs=1e-9)
    residual = Y - other.predict(X)
    optimum = (residual**2).sum() / 60 + strength * np.linalg.norm(other.coef_, axis=0).sum()
    assert objectives[-1] == pytest.approx(optimum, rel=1e-12)
    assert 0 < (models.coef_ == 0).all(axis=0).sum() < 6


@pytest.mark.parametrize(("loss", "strength"), [("squared", 0.6), ("logistic", 0.15)])
def test_nuclear_norm_reaches_a_point_that_is_optimal(loss: str, strength: float) -> None:
    partitions = make_partitions(8, loss, features=5)
    settings = make_quick_settings(loss=loss, strength=strength, rounds=2500, dtype="float64")
    trained = train(partitions, settings)
    trainer = make_trainer(partitions, settings)
    trainer.place(range(len(trainer.W)), np.column_stack([trained.models.coef_, trained.models.intercept_]))
    V = updates_of(trainer)
    G = np.array(
        [trainer.problem.aggregate(t, V[list(S)]) for t, S in enumerate(trainer.problem.partitions_of)]
    )
    # −G is a subgradient of λ‖W‖_*: its spectral norm is at most λ, and ⟨−G, W⟩ = λ‖W‖_*.
    W = trained.models.coef_
    assert np.linalg.norm(G[:, :-1], 2) <= strength * (1 + 1e-6)
    assert -(G[:, :-1] * W).sum() == pytest.approx(strength * np.linalg.norm(W, "nuc"), rel=1e-6)
    assert np.abs(G[:, -1]).max() < 1e-7
    assert 0 < np.linalg.matrix_rank(W, tol=1e-6) < 4


def test_without_coupling_every_task_is_fitted_for_itself() -> None:
    rng = np.random.default_rng(5)
    X, flips = rng.standard_normal((80, 3)), rng.random(80) < 0.2
    y = ((X[:, 0] > 0) ^ flips).astype(float)
    partitions = [Partition("p0", "a", X[:50], y[:50]), Partition("p1", "a", X[50:], y[50:])]
    partitions.append(Partition("p2", "b", -X, y))
    models = train(
        partitions, make_quick_settings(loss="logistic", coupling="none", rounds=2000, dtype="float64")
    ).models
    alone = LogisticRegression(C=1e8, tol=1e-10, max_iter=1000).fit(X, y)
    assert models.coef_[0] == pytest.approx(alone.coef_[0], abs=1e-4)
    assert models.coef_[1] == pytest.approx(-alone.coef_[0], abs=1e-4)
    assert models.intercept_ == pytest.approx(np.repeat(alone.intercept_, 2), abs=1e-4)


@pytest.mark.parametrize(("loss", "strength"), [("squared_hinge", 0.02), ("huber", 0.1)])
def test_task_covariance_reaches_the_optimum_of_a_factorised_solver(loss: str, strength: float) -> None:
    rng = np.random.default_rng(8)
    T, F, rows = 3, 4, 25
    X = rng.standard_normal((T, rows, F))
    scores = np.einsum("trf,tf->tr", X, np.outer([1.0, -1.0, 2.0], [1.0, 0.0, 1.0, -1.0]))
    y = scores + 0.5 * rng.standard_normal((T, rows)) ** 3
    if loss == "squared_hinge":
        y = (y > 0).astype(float)

    def objective(flat: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        # ‖W‖_* is the minimum of ½(‖A‖² + ‖B‖²) over W = AB, which makes the penalty smooth.
        A, B = flat[: T * T].reshape(T, T), flat[T * T :].reshape(T, F)
        s = np.einsum("trf,tf->tr", X, A @ B)
        if loss == "huber":
            each = np.where(np.abs(s - y) <= 1, (s - y) ** 2 / 2, np.abs(s - y) - 0.5)
        else:
            each = np.maximum(0.0, 1.0 - np.where(y == 1.0, s, -s)) ** 2 / 2
        return float(each.mean(axis=1).sum() + 0.5 * strength * (0.5 * (flat**2).sum()) ** 2)

    other = minimize(
        objective,
        rng.standard_normal(T * T + T * F),
        method="BFGS",
        options={"gtol": 1e-7, "maxiter": 5000},
    )
    partitions = [
        Partition(f"p{2 * t + i}", f"t{t}", X[t, c], y[t, c])
        for t in range(T)
        for i, c in enumerate([slice(0, 9), slice(9, rows)])
    ]
    settings = make_quick_settings(
        loss=loss,
        coupling="covariance",
        strength=strength,
        rounds=1500,
        dtype="float64",
        intercept="none",
    )
    models, objectives, *_ = train(partitions, settings)
    assert objectives[-1] == pytest.approx(other.fun, rel=1e-8)
    A, B = other.x[: T * T].reshape(T, T), other.x[T * T :].reshape(T, F)
    assert models.coef_ == pytest.approx(A @ B, abs=1e-4)
    assert np.linalg.norm(models.coef_) > 0.5


@pytest.mark.parametrize("coupling", ["sparse-low-rank", "clustered"])
def test_a_point_that_a_step_leaves_in_place_has_the_least_objective(coupling: str) -> None:
    partitions = make_partitions(6, "squared", features=3)
    settings = make_quick_settings(
        coupling=coupling, strength=0.3, rounds=60, dtype="float64", intercept="none", loss="huber"
    )
    trained = train(partitions, settings)
    trainer = make_trainer(partitions, settings)
    trainer.place(range(len(trainer.W)), trained.models.coef_)
    least = trainer.objective(trainer.losses())
    rng = np.random.default_rng(9)
    for size in (3e-2, 1e-1, 1.0):
        for _ in range(6):
            trainer.place(
                range(len(trainer.W)), trained.models.coef_ + size * rng.standard_normal(trainer.W.shape)
            )
            assert trainer.objective(trainer.losses()) > least
    assert least < 0.9 * trained.objectives[0]


@pytest.mark.parametrize("coupling", ["none", "nuclear", "l21", "covariance", "clustered"])
def test_the_objective_never_rises(coupling: str) -> None:
    settings = make_quick_settings(coupling=coupling, rounds=60, dtype="float64", accelerated=False)
    objectives = train(make_partitions(6, "squared"), settings).objectives
    assert objectives.shape == (60,)
    assert (np.diff(objectives) <= 1e-12).all()
    assert objectives[-1] < 0.5 * objectives[0]


def test_results_have_the_dtype_of_the_run_and_repeat() -> None:
    partitions = make_partitions(6, "squared")
    for dtype in ("float32", "float64"):
        one, other = (train(partitions, make_quick_settings(dtype=dtype)).models for _ in range(2))
        assert one.coef_.dtype == one.intercept_.dtype == dtype
        assert one.coef_.tobytes() == other.coef_.tobytes()
        assert one.features == 9


def test_features_that_are_all_zero_do_no_harm() -> None:
    zeros = [Partition("p0", "t", np.zeros((2, 3)), np.ones(2))]
    models = train(zeros, make_quick_settings(intercept="none")).models
    assert (models.coef_ == 0).all()


def test_acceleration_takes_far_fewer_rounds() -> None:
    partitions = make_partitions(8, "squared", features=6)
    rounds = {
        accelerated: train(
            partitions,
            make_quick_settings(
                strength=0.3, rounds=5000, tolerance=1e-6, dtype="float64", accelerated=accelerated
            ),
        )
        for accelerated in (True, False)
    }
    assert all(trained.converged for trained in rounds.values())
    assert 3 * len(rounds[True].objectives) < len(rounds[False].objectives)


@pytest.mark.parametrize("coupling", ["none", "nuclear", "l21", "mean-regularised", "covariance"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_run_that_converged_is_as_near_to_the_least_objective_as_it_says(coupling: str, loss: str) -> None:
    partitions = make_partitions(8, loss, features=2)
    settings = make_quick_settings(coupling=coupling, loss=loss, strength=0.2, rounds=500, dtype="float64")
    trained = train(partitions, replace(settings, tolerance=1e-5))
    if (coupling, loss) == ("none", "logistic"):
        # Rows whose classes can be separated have no least objective, so no distance from it can be known.
        assert not trained.converged
        return
    least = train(partitions, settings).objectives[-1]
    assert trained.converged
    trainer = make_trainer(partitions, settings)
    trainer.place(range(4), np.column_stack([trained.models.coef_, trained.models.intercept_]))
    assert trainer.objective(trainer.losses()) <= least * (1 + 1e-5)


@pytest.mark.parametrize("update", ["gradient", "model"])
def test_weights_count_as_repeated_rows(update: str) -> None:
    rng = np.random.default_rng(4)
    weighted, repeated = [], []
    for n in range(4):
        X, y, weights = rng.standard_normal((5, 3)), rng.standard_normal(5), rng.integers(1, 4, 5)
        weighted.append(Partition(f"p{n}", f"t{n // 2}", X, y, weights.astype(float)))
        repeated.append(
            Partition(f"p{n}", f"t{n // 2}", np.repeat(X, weights, axis=0), np.repeat(y, weights))
        )
    settings = make_quick_settings(rounds=500, dtype="float64", update=update, tolerance=1e-14)
    one, other = (train(partitions, settings) for partitions in (weighted, repeated))
    assert one.models.coef_ == pytest.approx(other.models.coef_, abs=1e-7)
    assert one.objectives[-1] == pytest.approx(other.objectives[-1], rel=1e-7)


def test_a_penalised_intercept_is_one_more_feature_that_is_one() -> None:
    partitions = make_partitions(6, "squared", features=3)
    with_ones = [
        Partition(p.id, p.task, np.column_stack([p.X, np.ones(p.rows)]), p.y, p.weights) for p in partitions
    ]
    settings = make_quick_settings(rounds=300, dtype="float64", intercept="penalised")
    one = train(partitions, settings)
    other = train(with_ones, replace(settings, intercept="none"))
    assert np.column_stack([one.models.coef_, one.models.intercept_]) == pytest.approx(other.models.coef_)
    assert one.objectives == pytest.approx(other.objectives)


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_local_epochs_do_not_diverge_far_from_the_origin(intercept: str) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((8, 2)) * 0.1
    far = [Partition(f"p{n}", "t", X, 100.0 + rng.standard_normal(8)) for n in range(2)]
    settings = make_quick_settings(
        update="model", epochs=30, rounds=2, intercept=intercept, dtype="float64", standardise=True
    )
    first, second = train(far, settings).objectives
    assert second < (0.01 if intercept != "none" else 1.0) * first


@pytest.mark.parametrize("update", ["gradient", "newton", "quasi-newton"])
@pytest.mark.parametrize("coupling", ["none", "mean-regularised"])
def test_training_ends_where_the_least_objective_is_0(update: str, coupling: str) -> None:
    rng, partitions = np.random.default_rng(0), []
    for t in range(2):
        X = rng.standard_normal((20, 2))
        partitions.append(Partition(f"p{t}", f"t{t}", X, X @ [200.0, 100.0]))
    settings = Settings(
        loss="squared", coupling=coupling, strength=0.0, update=update, rounds=1000, tolerance=1e-6,
        dtype="float64", intercept="free",
    )  # fmt: skip
    trained = train(partitions, settings)
    assert trained.converged
    assert trained.objectives[-1] < 1e-20
    np.testing.assert_allclose(trained.models.coef_, [[200.0, 100.0]] * 2, rtol=1e-12)


@pytest.mark.parametrize("aggregate", ["median", "trimmed-mean", "geometric-median"])
def test_other_tasks_do_not_suffer_from_a_partition_with_large_numbers(aggregate: str) -> None:
    rng, partitions, tests = np.random.default_rng(0), [], []
    base = rng.normal(size=(2, 6))
    for t in range(5):
        w = rng.normal(size=2) @ base
        for p in range(5):
            X = rng.normal(size=(30, 6))
            y = X @ w + 0.1 * rng.normal(size=30)
            partitions.append(Partition(f"{t}/{p}", f"t{t}", X * (1e3 if t + p == 0 else 1.0), y))
        X = rng.normal(size=(200, 6))
        tests.append((f"t{t}", X, X @ w + 0.1 * rng.normal(size=200)))
    settings = Settings("squared", "nuclear", 0.05, 400, aggregate=aggregate, tolerance=1e-6, dtype="float64")
    models = train(partitions, settings).models
    errors = [float(np.sqrt(np.mean((models.predict(X, t) - y) ** 2))) for t, X, y in tests]
    # The noise alone makes 0.1.
    assert max(errors) < 0.2
