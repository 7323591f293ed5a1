from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning import baseline
from asyncdmtl.learning.baseline import pooled, single_task
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.metrics import score
from asyncdmtl.learning.tasks import Partition, TaskModels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
W = np.array([2.0, -1.0, 0.0, 0.5])
NOISY = X @ W + 0.5 * RNG.standard_normal(60)
BOTH: list[Callable[..., TaskModels]] = [single_task, pooled]


def targets(loss: str) -> Floats:
    if loss == "poisson":
        return np.asarray(np.round(np.exp(0.3 * NOISY)), dtype=float)
    return np.asarray(NOISY > 0, dtype=float) if LOSSES[loss].classification else NOISY


def two_parts(task: str, X: Floats, y: Floats, first: int = 0) -> list[Partition]:
    half = len(y) // 2
    pieces = (slice(0, half), slice(half, None)) if half else (slice(None),)
    return [Partition(f"p{first + i}", task, X[piece], y[piece]) for i, piece in enumerate(pieces)]


@pytest.fixture
def middling(monkeypatch: pytest.MonkeyPatch) -> float:
    """Restrict the grid to one regularisation; return it, in units of the rows."""
    monkeypatch.setattr(baseline, "_ALPHAS", np.array([0.1]))
    return 0.1


def test_ridge_is_that_of_scikit_learn() -> None:
    centred = X - X.mean(axis=0)
    unit = (centred**2).sum() / 4
    expected = RidgeCV(baseline._ALPHAS * unit).fit(X, NOISY)
    # The choice is not the middle of the grid, so that leave-one-out has made a difference.
    assert expected.alpha_ != pytest.approx(baseline._ALPHAS[7] * unit)
    models = single_task(two_parts("t", X, NOISY), "squared")
    assert models.coef_[0] == pytest.approx(expected.coef_, rel=1e-6)
    assert models.intercept_[0] == pytest.approx(expected.intercept_, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("features", [4, 90])
def test_a_fit_is_the_least_of_its_objective(
    middling: float, loss: str, intercept: bool, features: int
) -> None:
    wide = np.column_stack([X, RNG.standard_normal((60, features - 4))]) if features > 4 else X
    y, weights = targets(loss), RNG.uniform(0.1, 3.0, 60)
    weights[:5] = 0.0
    models = single_task([Partition("p", "t", wide, y, weights)], loss, intercept=intercept)
    centred = wide - weights @ wide / weights.sum() if intercept else wide
    alpha = middling * (weights @ (centred**2).sum(axis=1)) / min(55, features)

    def objective(u: Floats) -> float:
        values, _ = LOSSES[loss].value_and_derivative(wide @ u[:-1] + u[-1] * intercept, y)
        return float(weights @ values + 0.5 * alpha * (u[:-1] @ u[:-1]))

    found = np.append(models.coef_[0], models.intercept_[0])
    assert objective(found) <= minimize(objective, np.zeros(features + 1)).fun * (1 + 1e-3)
    assert (found[-1] != 0.0) == intercept


def test_logistic_regression_is_that_of_scikit_learn(middling: float) -> None:
    y = targets("logistic")
    alpha = middling * ((X - X.mean(axis=0)) ** 2).sum() / 4
    expected = LogisticRegression(C=1 / alpha, tol=1e-10).fit(X, y)
    models = single_task(two_parts("t", X, y), "logistic")
    assert models.coef_[0] == pytest.approx(expected.coef_[0], rel=1e-2)
    assert models.intercept_[0] == pytest.approx(expected.intercept_[0], abs=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_left_out_is_hardly_misjudged(loss: str) -> None:
    y, ones = targets(loss), np.ones(60)
    problem = baseline._Regularised(X, y, ones, loss, intercept=False)
    estimate = problem._left_out(*problem._minimise(np.zeros(4), 5.0))
    truth = 0.0
    for i in range(60):
        rest = np.arange(60) != i
        others = baseline._Regularised(X[rest], y[rest], ones[rest], loss, intercept=False)
        u, _ = others._minimise(np.zeros(4), 5.0)
        truth += float(LOSSES[loss].value_and_derivative(X[i : i + 1] @ u, y[i : i + 1])[0][0])
    assert estimate == pytest.approx(truth, rel=1e-8 if loss == "squared" else 0.02)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_scale_of_features_does_not_matter(intercept: bool) -> None:
    y = X @ W + (3.0 if intercept else 0.0)
    partitions = two_parts("t10", X, y) + two_parts("t2", 1e6 * X, -y, 2)
    models = single_task(partitions, "squared", intercept=intercept)
    assert models.tasks == ("t2", "t10")
    assert models.coef_[1] == pytest.approx(W, abs=1e-2)
    assert 1e6 * models.coef_[0] == pytest.approx(-W, abs=1e-2)
    assert models.intercept_ == pytest.approx([-3.0, 3.0] if intercept else [0.0, 0.0], abs=1e-2)


def test_regularisation_is_chosen_by_the_rows() -> None:
    noise = RNG.standard_normal(60)
    models = single_task(two_parts("noise", X, noise), "squared")
    assert np.abs(models.coef_).max() < 0.7 * np.abs(np.linalg.lstsq(X, noise, rcond=None)[0]).max()


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("intercept", [True, False])
def test_classifiers_rank_the_rows(loss: str, intercept: bool) -> None:
    y = targets(loss)
    models = single_task(two_parts("t", X[:40], y[:40]), loss, intercept=intercept)
    assert score(models, {"t": (X[40:], y[40:])}, "ROC AUC").mean > 0.9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fit", BOTH)
def test_weights_are_repeated_rows(loss: str, fit: Callable[..., TaskModels]) -> None:
    y, counts = targets(loss)[:20], np.arange(20) % 3
    # If one of several equal rows is left out, the others remain, so that leave-one-out would choose
    # differently.
    weighted = Partition("p", "t", X[:20], y, counts.astype(float))
    repeated = Partition("p", "t", np.repeat(X[:20], counts, axis=0), np.repeat(y, counts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "_ALPHAS", np.array([0.1]))
        ours, theirs = fit([weighted], loss), fit([repeated], loss)
    assert ours.coef_ == pytest.approx(theirs.coef_, rel=1e-9)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-9)


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_wild_targets_pull_a_huber_fit_little(loss: str) -> None:
    wild = X @ W + 0.1 * RNG.standard_normal(60)
    wild[::10] += 100.0
    models = single_task(two_parts("t", X, wild), loss)
    off = float(np.abs(models.coef_[0] - W).max())
    assert off < 0.5 if loss == "huber" else off > 1.0


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("positives", [0, 1, 2, 4])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_tasks_of_one_class_or_hardly_a_row(loss: str, rows: int, positives: int) -> None:
    y = np.zeros(rows)
    y[:positives] = 1
    models = single_task(two_parts("t", X[:rows], y), loss)
    assert np.isfinite(models.coef_).all()
    if positives == 0 or positives >= rows:
        assert (models.coef_ == 0).all()
        assert np.sign(models.intercept_[0]) == (1 if positives else -1)
        assert single_task(two_parts("t", X[:rows], y), loss, intercept=False).intercept_ == [0.0]
    else:
        assert (models.coef_ != 0).any()


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_regressions_of_hardly_a_row(loss: str, rows: int) -> None:
    models = single_task(two_parts("t", X[:rows], np.arange(1.0, rows + 1.0)), loss)
    assert np.isfinite(models.coef_).all()
    assert models.predict(X[:rows], "t").mean() == pytest.approx((rows + 1) / 2, abs=0.5)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_that_say_nothing(loss: str) -> None:
    y = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    models = single_task(two_parts("t", np.ones((6, 2)), y), loss)
    expected = 0.5 if not LOSSES[loss].classification else 0.0
    expected = np.log(0.5) if loss == "poisson" else expected
    assert models.decision_function(np.ones((1, 2)), "t") == pytest.approx([expected], abs=1e-6)


def test_one_model_for_all_tasks() -> None:
    partitions = two_parts("b", X[:40], NOISY[:40]) + two_parts("a", X[40:], NOISY[40:], 2)
    models = pooled(partitions, "squared")
    assert models.tasks == ("a", "b")
    alone = single_task(two_parts("all", X, NOISY), "squared")
    for row in range(2):
        assert models.coef_[row] == pytest.approx(alone.coef_[0])
        assert models.intercept_[row] == pytest.approx(alone.intercept_[0])


@pytest.mark.parametrize("fit", BOTH)
def test_baseline_refuses_what_it_cannot_fit(fit: Callable[..., TaskModels]) -> None:
    with pytest.raises(UsageError, match="loss must be one of squared, logistic"):
        fit(two_parts("t", X, NOISY), "hinge")
    with pytest.raises(DataError, match="targets of task 't'"):
        fit(two_parts("t", X, NOISY), "logistic")
    with pytest.raises(UsageError, match="partitions must be at least one"):
        fit([], "squared")


def test_ridge_without_intercept_is_that_of_scikit_learn(middling: float) -> None:
    expected = Ridge(middling * (X**2).sum() / 4, fit_intercept=False).fit(X, NOISY)
    assert single_task(two_parts("t", X, NOISY), "squared", intercept=False).coef_[0] == pytest.approx(
        expected.coef_
    )


def test_a_task_without_counts_predicts_one_in_a_row_more() -> None:
    models = single_task([Partition("p", "t", X, np.zeros(len(X)))], "poisson")
    assert not models.coef_.any()
    assert models.predict(X[:1], "t") == pytest.approx(1.0 / (len(X) + 1))
