from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor
from support.problems import make_quick_settings, make_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning import shared_solutions
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.local_learner import GradientDescent
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, merged
from asyncdmtl.learning.training import make_trainer, train

TASKS, FEATURES = 6, 3


def rare_labels(*, separable: bool = False, seed: int = 0) -> list[Partition]:
    """Tasks with few positive labels, two partitions each; one task has none."""
    rng = np.random.default_rng(seed)
    shared, found = rng.normal(size=FEATURES), []
    for t in range(TASKS):
        X = rng.normal(size=(60, FEATURES))
        scores = X @ (shared + 0.3 * rng.normal(size=FEATURES)) - 1.5
        noise = 0.0 if separable else rng.logistic(size=60)
        y = (scores + noise > 0.0).astype(np.float64) * (t > 0)
        found += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return found


def wild_targets() -> list[Partition]:
    rng = np.random.default_rng(1)
    found = []
    for t in range(TASKS):
        X = rng.normal(size=(40, FEATURES))
        y = X @ rng.normal(size=FEATURES) + t + rng.standard_t(1.5, size=40)
        found += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return found


def settings_for(loss: str, update: str, **changes: object) -> Settings:
    given = {"strength": 0.02, "dtype": "float64", "rounds": 300, "tolerance": 1e-9, **changes}
    return make_settings(loss=loss, update=update, **given)


def rows(loss: str) -> list[Partition]:
    return wild_targets() if loss == "huber" else rare_labels()


def least(partitions: list[Partition], settings: Settings) -> float:
    """The minimum of the objective, by many rounds of accelerated gradients."""
    slow = make_quick_settings(
        loss=settings.loss, coupling=settings.coupling, strength=settings.strength,
        intercept=settings.intercept, dtype="float64", rounds=40_000, tolerance=1e-11,
    )  # fmt: skip
    return float(train(partitions, slow).objectives.min())


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("loss", ["logistic", "squared_hinge", "huber"])
@pytest.mark.parametrize(("update", "most"), [("newton", 25), ("quasi-newton", 60)])
def test_few_rounds_reach_what_gradients_reach_in_thousands(
    loss: str, intercept: str, update: str, most: int
) -> None:
    settings = settings_for(loss, update, intercept=intercept)
    found = train(rows(loss), settings)
    assert found.converged
    assert len(found.objectives) <= most
    assert found.objectives[-1] <= least(rows(loss), settings) * (1.0 + 1e-7)


@pytest.mark.parametrize("coupling", ["nuclear", "l21", "mean-regularised"])
def test_metrics_of_low_rank_reach_the_optimum_of_whole_ones(
    coupling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("logistic", "quasi-newton", coupling=coupling)
    whole = train(rows("logistic"), settings)
    monkeypatch.setattr("asyncdmtl.learning.secants.METRIC_NUMBERS", 0)
    # Without whole matrices.
    monkeypatch.delattr("asyncdmtl.learning.secants.Secants._metric")
    low = train(rows("logistic"), settings)
    assert low.converged
    assert len(low.objectives) <= 60
    assert low.objectives[-1] <= whole.objectives[-1] * (1.0 + 1e-7)


def test_long_models_of_correlated_columns_take_far_fewer_rounds_than_with_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(60, 60)) / np.arange(1, 61)[:, None]
    partitions = []
    for t in range(3):
        X = rng.normal(size=(40, 60)) @ mixing
        y = (X.sum(axis=1) + rng.logistic(size=40) > 0.0).astype(np.float64)
        partitions.append(Partition(f"p{t}", f"t{t}", X, y))
    monkeypatch.setattr("asyncdmtl.learning.secants.METRIC_NUMBERS", 0)
    few, many = (
        train(partitions, settings_for("logistic", update, coupling="l21", tolerance=1e-6, rounds=rounds))
        for update, rounds in (("quasi-newton", 50), ("gradient", 300))
    )
    assert few.converged
    assert not many.converged
    assert few.objectives[-1] <= many.objectives[-1] * (1.0 + 1e-6)


@pytest.mark.parametrize(("epochs", "learner"), [(5, ""), (200, ""), (5, "SGDClassifier")])
@pytest.mark.parametrize("coupling", ["nuclear", "mean-regularised"])
def test_whatever_the_local_epochs_training_ends_at_the_optimum(
    coupling: str, epochs: int, learner: str
) -> None:
    partitions = rare_labels()
    settings = settings_for("logistic", "newton", coupling=coupling, tolerance=1e-12)
    optimum = train(partitions, settings).objectives.min()
    settings = replace(settings, update="model", epochs=epochs, learner=learner, tolerance=1e-6, rounds=50)
    found = train(partitions, settings)
    assert found.converged
    assert found.objectives[-1] <= optimum * (1.0 + 1e-6)


def correlated(features: int, loss: str) -> list[Partition]:
    """Tasks whose features are nearly combinations of a few, as pixels of images are."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(features, features)) * np.logspace(0.0, -2.0, features)[:, None]
    shared, found = rng.normal(size=features), []
    for t in range(3):
        X = rng.normal(size=(3 * features, features)) @ mixed
        scores = X @ (shared + 0.3 * rng.normal(size=features)) / np.sqrt(features)
        noisy = scores + rng.logistic(size=len(X))
        y = (noisy > 0.0).astype(np.float64) if loss == "logistic" else noisy
        found += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return found


@pytest.mark.parametrize(("loss", "epochs"), [("squared", 5), ("squared", 200), ("logistic", 20)])
def test_local_models_of_many_correlated_features_take_few_rounds(loss: str, epochs: int) -> None:
    partitions = correlated(24, loss)
    settings = settings_for(loss, "newton", coupling="mean-regularised", strength=1e-3, tolerance=1e-12)
    optimum = train(partitions, settings).objectives.min()
    settings = replace(settings, update="model", epochs=epochs, tolerance=1e-7, rounds=50)
    found = train(partitions, settings)
    assert len(found.objectives) <= 20
    assert found.objectives.min() <= optimum * (1.0 + 1e-6)


def test_the_first_round_moves_the_models_to_the_mean_of_the_local_ones() -> None:
    partitions = rare_labels()
    settings = settings_for("logistic", "model", epochs=7, rounds=1, standardise=True)
    local = [
        train([partition], replace(settings, intercept="penalised")).models for partition in partitions[2:4]
    ]
    both = train(partitions[2:4], replace(settings, intercept="penalised"))
    mean = (local[0].coef_ + local[1].coef_) / 2.0
    np.testing.assert_allclose(both.models.coef_, mean, rtol=1e-14)
    assert not both.converged


def test_local_models_that_are_worse_than_none_are_left() -> None:
    settings = settings_for("logistic", "model", epochs=5, learner="SGDClassifier", rounds=4)
    first, worse, again, next_ = train(rare_labels(), settings).objectives
    assert worse > first == again > next_


def test_a_local_learner_that_overflows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientDescent, "fit", lambda *_: (np.full(FEATURES, np.inf), 0.0))
    with pytest.raises(DataError, match="models must stay finite in float64"):
        train(rare_labels(), settings_for("logistic", "model"))


@pytest.mark.parametrize("update", ["newton", "quasi-newton", "model", "statistics"])
@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_columns_of_very_different_sizes_are_trained_on_to_the_end(update: str, strength: float) -> None:
    rng, sizes = np.random.default_rng(0), 10.0 ** np.linspace(-4.0, 4.0, 5)
    shared, T = rng.normal(size=5), 3
    X = rng.normal(size=(T, 40, 5)) @ (np.eye(5) + 0.3 * rng.normal(size=(5, 5)))
    y = X @ shared + rng.normal(size=(T, 40))
    partitions = [Partition(f"p{t}", f"t{t}", X[t] * sizes, y[t]) for t in range(T)]
    settings = settings_for(
        "squared", update, coupling="mean-regularised", strength=strength, intercept="none",
        accelerated=False, tolerance=1e-6,
    )  # fmt: skip
    found = train(partitions, settings)
    # Least squares of all tasks in columns of one size; a row for each model's distance from the mean.
    root = np.sqrt(strength)
    apart = np.kron(np.eye(T) - 1.0 / T, np.diag(root / sizes))
    data = np.zeros((T * 40, T * 5))
    for t in range(T):
        data[40 * t : 40 * (t + 1), 5 * t : 5 * (t + 1)] = X[t] / np.sqrt(40.0)
    A, b = np.concatenate([data, apart]), np.concatenate([y.reshape(-1) / np.sqrt(40.0), np.zeros(T * 5)])
    scales = np.sqrt(np.square(A).sum(axis=0))
    optimum = 0.5 * np.square(A / scales @ np.linalg.lstsq(A / scales, b, rcond=None)[0] - b).sum()
    W = (found.models.coef_ * sizes).reshape(-1)
    assert 0.5 * np.square(A @ W - b).sum() <= optimum * (1.0 + 1e-4)
    assert len(found.objectives) <= 30


@pytest.mark.parametrize(
    "coupling", ["nuclear", "l21", "covariance", "mean-regularised", "clustered", "mean"]
)
def test_newton_on_logistic_tasks_takes_ten_rounds(coupling: str) -> None:
    found = train(rare_labels(), settings_for("logistic", "newton", coupling=coupling, tolerance=1e-8))
    assert found.converged
    assert len(found.objectives) <= 11


@pytest.mark.parametrize("update", ["newton", "quasi-newton"])
def test_separable_rows_converge_too(update: str) -> None:
    settings = settings_for("logistic", update, strength=1e-3, tolerance=1e-5, arithmetic="fast")
    found = train(rare_labels(separable=True)[:8], settings)
    assert found.converged
    assert np.isfinite(found.models.coef_).all()


def test_from_a_bad_start_the_best_objective_only_falls() -> None:
    partitions = rare_labels()[:8]
    settings = settings_for("logistic", "newton", arithmetic="fast")
    usual = train(partitions, settings)
    models = usual.models
    far = type(models)(models.tasks, 30.0 * models.coef_ + 5.0, models.intercept_ + 20.0, "logistic")
    found = train(partitions, settings, start=far)
    assert found.converged
    np.testing.assert_allclose(found.objectives[-1], usual.objectives[-1], rtol=1e-7)


@pytest.mark.parametrize("update", ["newton", "quasi-newton"])
def test_a_state_goes_on_to_the_same_bits(update: str) -> None:
    partitions = rare_labels()
    settings = settings_for("logistic", update)
    problem = Problem(settings, [p.info(settings) for p in partitions])
    first = make_trainer(problem, dict(enumerate(partitions)))
    packed = np.empty((len(partitions), problem.wire.length), problem.wire.dtype)

    def aggregates(packed: Floats) -> list[Floats]:
        return [problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)]

    for _ in range(3):
        first.packed_updates(packed)
        first.step(aggregates(packed))
    state = first.state()
    assert state.shape == (problem.state_bytes,)
    other = make_trainer(problem, dict(enumerate(partitions)))
    other.restore(state)
    for trainer in (first, other):
        shared_solutions._SOLVED.clear()
        trainer.packed_updates(packed)
        trainer.step(aggregates(packed))
    np.testing.assert_array_equal(first.state(), other.state())


def test_of_several_members_in_one_process_one_computes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions, settings = rare_labels(), settings_for("logistic", "newton", seed=11)
    problem = Problem(settings, [p.info(settings) for p in partitions])
    members = [make_trainer(problem, dict(enumerate(partitions))) for _ in range(2)]
    step, computed = Descent.step, []

    def counted(descent: Descent, *args: Any) -> object:
        computed.append(descent)
        return step(descent, *args)

    monkeypatch.setattr(Descent, "step", counted)
    packed = np.empty((len(partitions), problem.wire.length))
    for rounds in range(1, 4):
        for member in members:
            member.packed_updates(packed)
        for member in members:
            member.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
        np.testing.assert_array_equal(members[0].state(), members[1].state())
        assert computed == [members[0]._descent] * rounds  # type: ignore[attr-defined]


def test_a_state_must_be_one() -> None:
    settings = settings_for("logistic", "newton")
    problem = Problem(settings, [p.info(settings) for p in rare_labels()])
    trainer = make_trainer(problem, {})
    with pytest.raises(UsageError, match="bytes"):
        trainer.restore(np.zeros(3, np.uint8))
    broken = trainer.state().copy()
    broken[-40:-16].view(np.float64)[:] = np.nan
    with pytest.raises(UsageError, match="finite"):
        trainer.restore(broken)


@pytest.mark.parametrize("change", [{"aggregate": "median"}, {"compression": "float16"}], ids=str)
def test_second_order_needs_sums(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="newton"):
        make_settings(loss="logistic", update="newton", **change)


def test_rare_labels_take_few_steps_as_intercepts_come_first() -> None:
    settings = settings_for("logistic", "newton", strength=0.1, tolerance=1e-8)
    assert len(train(rare_labels(), settings).objectives) <= 7
    # Without an intercept that could come first, or from other models, steps are as they were.
    first = train(rare_labels(), settings)
    again = train(rare_labels(), settings, start=first.models)
    assert len(again.objectives) <= 2
    assert again.objectives.min() == pytest.approx(first.objectives.min(), rel=1e-8)


def counts(scale: float = 2.0) -> list[Partition]:
    """Tasks of counts, two partitions each; all of one task are 0."""
    rng = np.random.default_rng(4)
    shared, found = rng.normal(size=FEATURES), []
    for t in range(TASKS):
        X = rng.normal(size=(60, FEATURES)) * 0.5
        means = scale * np.exp(X @ (shared + 0.3 * rng.normal(size=FEATURES))) * (t > 0)
        y = rng.poisson(means).astype(np.float64)
        found += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return found


@pytest.mark.parametrize("scale", [0.5, 3000.0])
@pytest.mark.parametrize("intercept", ["free", "none"])
def test_counts_are_fitted_as_scikit_learn_fits_them(intercept: str, scale: float) -> None:
    partitions = counts(scale)
    settings = settings_for(
        "poisson", "auto", coupling="ridge", strength=0.1, intercept=intercept, tolerance=1e-13
    )
    found = train(partitions, settings)
    assert found.converged
    assert len(found.objectives) <= (12 if intercept == "free" else 40)
    for t in range(1, TASKS):
        whole = merged("t", [p for p in partitions if p.task == f"t{t}"])
        # From the solution, as Newton's method of scikit-learn overflows if it begins far away.
        expected = PoissonRegressor(alpha=0.1, fit_intercept=intercept == "free", tol=1e-9, warm_start=True)
        expected.coef_, expected.intercept_ = found.models.coef_[t].copy(), float(found.models.intercept_[t])
        expected.fit(whole.X, whole.y)
        np.testing.assert_allclose(found.models.coef_[t], expected.coef_, atol=1e-6)
        assert found.models.intercept_[t] == pytest.approx(expected.intercept_, abs=1e-6)
        if scale < 1.0:
            cold = PoissonRegressor(alpha=0.1, fit_intercept=intercept == "free", tol=1e-9, max_iter=1000)
            np.testing.assert_allclose(found.models.coef_[t], cold.fit(whole.X, whole.y).coef_, atol=1e-6)


def test_a_task_without_counts_has_the_intercept_of_one_in_a_row_more() -> None:
    models = train(
        counts(), settings_for("poisson", "newton", coupling="mean-regularised", strength=0.1)
    ).models
    assert models.intercept_[0] == pytest.approx(-np.log(61.0))
    np.testing.assert_allclose(models.coef_[0], models.coef_.mean(axis=0), atol=1e-6)


def test_a_step_that_goes_too_far_ends_no_run() -> None:
    # The objective is then so huge that what the step promised is a small share of it.
    found = train(
        counts(3000.0), settings_for("poisson", "newton", coupling="ridge", intercept="none", tolerance=1e-6)
    )
    assert found.objectives.max() > 1e20
    assert found.objectives[-1] < found.objectives[0]


def test_only_newtons_steps_train_on_counts() -> None:
    for update in ("gradient", "quasi-newton", "model"):
        with pytest.raises(UsageError, match="update must be auto or newton for poisson loss"):
            settings_for("poisson", update)
    with pytest.raises(UsageError, match="aggregate must be mean for poisson loss, got 'median'"):
        settings_for("poisson", "auto", aggregate="median")
