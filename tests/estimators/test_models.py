from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, PoissonRegressor, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from support.clusters import Cluster
from support.multitask import make_rows
from support.problems import run_options

import asyncdmtl
from asyncdmtl import (
    CodedMultiTaskClassifier,
    CodedMultiTaskRegressor,
    CodedMultiTaskRegressorCV,
)
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.net.addresses import format_address

X, Y, TASKS = make_rows()
# Targets with noise, so that no hyperplane separates the classes.
NOISY = Y + np.random.default_rng(1).standard_normal(len(Y)) * Y.std()
LABELS = np.where(np.median(NOISY) < NOISY, "yes", "no")
KINDS = np.random.default_rng(2).permuted(np.digitize(NOISY, np.quantile(NOISY, [0.3, 0.6])))


def penalty(coupling: str, W: Any, T: int) -> Any:
    centred = (np.eye(T) - np.full((T, T), 1.0 / T)) @ W
    return {
        "nuclear": cp.normNuc,
        "l21": lambda W: cp.sum(cp.norm(W, 2, axis=0)),
        "mean-regularised": lambda W: cp.sum_squares(centred) / 2.0,
        "covariance": lambda W: cp.square(cp.normNuc(W)) / 2.0,
    }[coupling](W)


def objective(coupling: str, loss: str, strength: float, W: Any, b: Any) -> Any:
    """The objective from its definition, in cvxpy; a number if W and b are arrays."""
    total = strength * penalty(coupling, W, 3)
    for t, task in enumerate("abc"):
        own = np.array(TASKS) == task
        scores = X[own] @ W[t] + b[t]
        if loss == "squared":
            total += cp.sum_squares(scores - Y[own]) / (2 * own.sum())
        else:
            signs = np.where(LABELS[own] == "yes", 1.0, -1.0)
            total += cp.sum(cp.logistic(cp.multiply(-signs, scores))) / own.sum()
    return total


@pytest.mark.parametrize("coupling", ["nuclear", "l21", "mean-regularised", "covariance"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_optimum_of_an_independent_solver_is_reached(coupling: str, loss: str) -> None:
    strength = 0.05
    kind: Any = CodedMultiTaskRegressor if loss == "squared" else CodedMultiTaskClassifier
    fitted = kind(coupling=coupling, strength=strength).fit(X, Y if loss == "squared" else LABELS, TASKS)
    W, b = cp.Variable((3, X.shape[1])), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(objective(coupling, loss, strength, W, b)))
    best = problem.solve(solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10, tol_feas=1e-10)
    reached = objective(coupling, loss, strength, fitted.coef_, fitted.intercept_).value
    assert fitted.converged_
    assert -1e-8 <= (reached - best) / best <= 1e-6


def test_the_models_are_those_of_the_twin_bit_for_bit() -> None:
    model = CodedMultiTaskRegressor(strength=0.01, fit_intercept=False, parts=2, update="gradient")
    model.fit(X, Y, TASKS)
    rows = {task: np.flatnonzero(np.array(TASKS) == task) for task in "abc"}
    partitions = [
        Partition(f"{task}/{p}", task, X[rows[task][p::2]], Y[rows[task][p::2]])
        for task in "abc"
        for p in (0, 1)
    ]
    twin = train(
        partitions,
        Settings("squared", "nuclear", 0.01, 1000, tolerance=1e-6, dtype="float64", intercept="none"),
    )
    assert model.coef_.tobytes() == twin.models.coef_.tobytes()
    assert model.history_["objective"].tolist() == twin.objectives.tolist()


@pytest.mark.parametrize(
    ("cluster", "strategy"),
    [("threads", "relay"), ("threads", "personal"), ("threads", "auto"), ("processes", "personal")],
)
def test_everywhere_the_same_models(cluster: str, strategy: str) -> None:
    model = CodedMultiTaskRegressor(max_iter=10, tol=0.0).fit(X, Y, TASKS)
    other = clone(model).set_params(cluster=cluster, strategy=strategy, workers=2, copies=1).fit(X, Y, TASKS)
    assert other.coef_.tobytes() == model.coef_.tobytes()
    assert other.traffic_["workers"] == 2
    assert strategy in (other.traffic_["strategy"], "auto")


async def test_with_a_server_that_is_running() -> None:
    model = CodedMultiTaskRegressor(max_iter=10, tol=0.0, strength=0.01, update="gradient")
    settings = Settings("squared", "nuclear", 0.01, 10, dtype="float64")
    async with Cluster(run_options(settings=settings, strategy="central", workers=3)) as cluster:
        away = clone(model).set_params(cluster=format_address(*cluster.address))
        with pytest.raises(UsageError, match="max_iter must be that of the server, 10, got 11"):
            await asyncio.to_thread(clone(away).set_params(max_iter=11).fit, X, Y, TASKS)
        with pytest.raises(UsageError, match=r"strength must be that of the server, 0.01, got 0.02"):
            await asyncio.to_thread(clone(away).set_params(strength=0.02).fit, X, Y, TASKS)
        # The server decides settings that are left open.
        away.set_params(strength=None, update="auto")
        await asyncio.to_thread(away.fit, X, Y, TASKS)
    assert away.strength_ == 0.01
    # Rows are not centred, since other sites might have rows of the same tasks.
    tasks = np.array(TASKS)
    twin = train([Partition(f"{t}/0", t, X[tasks == t], Y[tasks == t]) for t in "abc"], settings)
    assert away.coef_.tobytes() == twin.models.coef_.tobytes()
    assert away.history_["objective"].tolist() == twin.objectives.tolist()
    assert away.traffic_["strategy"] == "central"


async def test_two_sites_share_a_server_and_choose_together() -> None:
    open_ = Settings(
        "squared", "nuclear", None, 5000, tolerance=1e-6, update="auto", dtype="float64", folds=3
    )
    here = np.arange(len(Y)) % 3 == 0
    async with Cluster(run_options(settings=open_, workers=4)) as cluster:
        address = format_address(*cluster.address)
        sites = [
            CodedMultiTaskRegressorCV(cluster=address, name=name, workers=2, cv=3)
            for name in ("north", "south")
        ]
        rows = [np.flatnonzero(here), np.flatnonzero(~here)]
        await asyncio.gather(
            *(
                asyncio.to_thread(site.fit, X[own], Y[own], [TASKS[i] for i in own])
                for site, own in zip(sites, rows, strict=True)
            )
        )
    tasks = np.array(TASKS)
    parts = [
        Partition(f"{name}/{t}/0", t, X[own][tasks[own] == t], Y[own][tasks[own] == t])
        for name, own in zip(("north", "south"), rows, strict=True)
        for t in "abc"
    ]
    twin = train(parts, open_)
    assert twin.outcome is not None
    for site in sites:
        assert site.strength_ == twin.outcome.strength
        np.testing.assert_array_equal(site.coef_, twin.models.coef_)
        np.testing.assert_array_equal(site.intercept_, twin.models.intercept_)
        np.testing.assert_array_equal(
            site.cv_results_["mean_test_loss"], twin.outcome.selections["nuclear"].means
        )
        assert site.plan_.placement.workers == ("north-w0", "north-w1", "south-w0", "south-w1")
        assert sites[0].score(X, Y, TASKS) > 0.5


def test_what_a_site_cannot_ask_for_is_refused() -> None:
    away = CodedMultiTaskRegressorCV(cluster="127.0.0.1:1", name="north")
    with pytest.raises(UsageError, match="standardise must be False with a name"):
        clone(away).set_params(standardise=True).fit(X, Y, TASKS)
    with pytest.raises(UsageError, match="strengths must be None with a server elsewhere"):
        clone(away).set_params(strengths=[0.1]).fit(X, Y, TASKS)
    with pytest.raises(UsageError, match="name is for a cluster that is HOST:PORT of a server, got 'north'"):
        clone(away).set_params(cluster="threads").fit(X, Y, TASKS)
    with pytest.raises(UsageError, match="name must be text, got 3"):
        clone(away).set_params(name=3).fit(X, Y, TASKS)


@pytest.mark.parametrize("weight", ["balanced", {"yes": 3.0}, {"yes": 0.5, "no": 2}])
def test_class_weights_are_those_of_scikit_learn(weight: Any) -> None:
    labels = np.where(np.quantile(NOISY, 0.8) < NOISY, "yes", "no")
    given = {"no": 1.0, **weight} if isinstance(weight, dict) else weight
    model = CodedMultiTaskClassifier(coupling="ridge", strength=0.1, class_weight=weight, tol=1e-12)
    model.fit(X, labels, TASKS)
    for t, task in enumerate("abc"):
        own = np.array(TASKS) == task
        # The loss of a task is a mean by weight.
        sums = compute_sample_weight(given, labels[own]).sum()
        expected = LogisticRegression(C=1.0 / (0.1 * sums), class_weight=given, tol=1e-10, max_iter=1000)
        expected.fit(X[own], labels[own])
        np.testing.assert_allclose(model.coef_[t], expected.coef_[0], atol=1e-6)
        assert model.intercept_[t] == pytest.approx(expected.intercept_[0], abs=1e-6)


def test_class_weights_that_are_none() -> None:
    for weight, rule in (
        ("even", "class_weight must be"), ({"maybe": 2.0}, "class_weight must name classes of y"),
        ({"yes": 0.0}, "class_weight of 'yes' must be a finite number above 0, got 0.0"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=rule):
            CodedMultiTaskClassifier(class_weight=weight).fit(X, LABELS, TASKS)


def test_linear_targets() -> None:
    model = CodedMultiTaskRegressor(coupling="mean", strategy="linear", fit_intercept=False).fit(X, Y, TASKS)
    pooled = np.linalg.lstsq(X, Y)[0]
    np.testing.assert_allclose(model.coef_, np.tile(pooled, (3, 1)), rtol=1e-3)
    assert model.plan_.uplink_load < 3


def test_scaling_is_undone_in_the_coefficients() -> None:
    units = np.array([1.0, 100.0, 0.01, 1.0])
    inside = CodedMultiTaskRegressor(standardise=True, strength=0.1).fit(X * units, Y, TASKS)
    outside = CodedMultiTaskRegressor(strength=0.1).fit(StandardScaler().fit_transform(X), Y, TASKS)
    np.testing.assert_allclose(inside.coef_ * units, outside.coef_ / X.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        inside.predict(X * units, TASKS), outside.predict(StandardScaler().fit_transform(X), TASKS), rtol=1e-9
    )


def test_a_constant_column_takes_no_harm_from_scaling() -> None:
    constant = np.column_stack([X, np.full(len(X), 0.1)])
    model = CodedMultiTaskRegressor(standardise=True, strength=0.1).fit(constant, Y, TASKS)
    without = CodedMultiTaskRegressor(standardise=True, strength=0.1).fit(X, Y, TASKS)
    np.testing.assert_allclose(model.predict(constant, TASKS), without.predict(X, TASKS), rtol=1e-6)


def test_a_wild_target_far_away_is_no_matter_for_huber() -> None:
    wild = np.r_[Y + 1e4, 1e6]
    model = CodedMultiTaskRegressor(loss="huber", strength=1e-3).fit(
        np.r_[X, X[:1]], wild, [*TASKS, TASKS[0]]
    )
    assert model.converged_
    assert np.abs(model.predict(X, TASKS) - Y - 1e4).max() < 3.0


def test_ragged_tasks_down_to_one_row() -> None:
    labels = ["a"] * 60 + ["b"] * 10 + ["c", "d"]
    model = CodedMultiTaskRegressor(parts=3).fit(X, Y, labels)
    assert model.traffic_["partitions"] == 3 + 3 + 1 + 1
    assert model.predict(X[-1:], ["d"]) == pytest.approx(Y[-1], abs=1e-3)


def test_two_classes() -> None:
    model = CodedMultiTaskClassifier().fit(X, LABELS, TASKS)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.coef_.shape == (3, 4)
    scores, chances = model.decision_function(X, TASKS), model.predict_proba(X, TASKS)
    np.testing.assert_allclose(chances[:, 1], 1.0 / (1.0 + np.exp(-scores)), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X, TASKS) == "yes", scores > 0)
    assert model.score(X, LABELS, TASKS) > 0.7


def test_more_classes_are_each_against_the_rest() -> None:
    model = CodedMultiTaskClassifier(coupling="none").fit(X, KINDS, TASKS)
    assert model.coef_.shape == (3, 3, 4)
    assert model.intercept_.shape == (3, 3)
    assert "a=2" in {name.partition("/")[0] for name in model.plan_.placement.partitions}
    own = np.array(TASKS) == "b"
    alone = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10000).fit(X[own], KINDS[own] == 1)
    ours = model.decision_function(X[own], ["b"] * own.sum())[:, 1]
    np.testing.assert_allclose(ours, alone.decision_function(X[own]), atol=0.02)
    np.testing.assert_allclose(model.predict_proba(X, TASKS).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(
        model.predict(X, TASKS), model.classes_[model.predict_proba(X, TASKS).argmax(axis=1)]
    )


def test_a_task_of_one_class_leans_on_the_others() -> None:
    labels = np.where(np.array(TASKS) == "c", "yes", LABELS)
    model = CodedMultiTaskClassifier(coupling="mean-regularised", strength=0.1).fit(X, labels, TASKS)
    assert model.converged_
    own = np.array(TASKS) == "c"
    assert model.predict_proba(X[own].mean(axis=0)[None], ["c"])[0, 1] == pytest.approx(25 / 26)
    np.testing.assert_allclose(model.coef_[2], model.coef_[:2].mean(axis=0), rtol=1e-2)
    with pytest.raises(DataError, match="at least two classes over all tasks"):
        CodedMultiTaskClassifier().fit(X, ["yes"] * len(X), TASKS)


def test_squared_hinge_has_no_probabilities() -> None:
    model = CodedMultiTaskClassifier(loss="squared_hinge").fit(X, LABELS, TASKS)
    assert model.score(X, LABELS, TASKS) > 0.7
    assert not hasattr(model, "predict_proba")


def test_a_learner_that_does_not_do_is_refused_before_the_run() -> None:
    for learner, complaint in (("SGDRegresor", "must be one of SGDRegressor"), ("Lasso(alpha=-1)", "alpha")):
        model = CodedMultiTaskRegressor(update="model", learner=learner, strength=0.1)
        with pytest.raises(UsageError, match=f"learner .*{complaint}"):
            model.fit(X, Y, TASKS)


def test_local_models_of_a_learner() -> None:
    learner = SGDRegressor(alpha=0.0, eta0=0.01, learning_rate="constant")
    model = CodedMultiTaskRegressor(
        update="model", epochs=2, learner=learner, max_iter=2, tol=0.0, strength=1e-3, random_state=3
    ).fit(X, Y, TASKS)
    again = clone(model).set_params(random_state=np.random.RandomState(4)).fit(X, Y, TASKS)
    assert again.coef_.tobytes() != model.coef_.tobytes()


@pytest.mark.filterwarnings("ignore:All coefficients are 0")  # at the largest λ that is tried
def test_grid_search_passes_tasks_on() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = CodedMultiTaskRegressor().set_fit_request(tasks=True).set_score_request(tasks=True)
        search = GridSearchCV(model, {"strength": np.array([100.0, 0.1])}, cv=2).fit(X, Y, tasks=TASKS)
    assert search.best_params_ == {"strength": 0.1}
    assert search.best_estimator_.tasks_ == ["a", "b", "c"]


def test_importing_the_package_does_not_import_scikit_learn() -> None:
    code = "import asyncdmtl, sys; assert 'sklearn' not in sys.modules; asyncdmtl.CodedMultiTaskRegressor"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "CodedMultiTaskRegressorCV" in dir(asyncdmtl)
    with pytest.raises(AttributeError, match="no attribute 'CodedMultiTaskNothing'"):
        asyncdmtl.CodedMultiTaskNothing  # noqa: B018


def test_counts_are_those_of_scikit_learn() -> None:
    counts, weights = np.round(np.exp(0.3 * Y)), np.random.default_rng(3).uniform(0.5, 2.0, len(Y))
    model = CodedMultiTaskRegressor(loss="poisson", coupling="ridge", strength=0.1, tol=1e-12)
    model.fit(X, counts, TASKS, sample_weight=weights)
    for t, task in enumerate("abc"):
        own = np.array(TASKS) == task
        expected = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=1000)
        expected.fit(X[own], counts[own], sample_weight=weights[own])
        np.testing.assert_allclose(model.coef_[t], expected.coef_, atol=1e-6)
        np.testing.assert_allclose(model.predict(X, TASKS)[own], expected.predict(X[own]), rtol=1e-5)
        np.testing.assert_allclose(model.to_sklearn(task).predict(X[own]), model.predict(X, TASKS)[own])
    chosen = CodedMultiTaskRegressorCV(loss="poisson", coupling="ridge", cv=3).fit(X, counts, TASKS)
    assert chosen.converged_
    tried = CodedMultiTaskRegressorCV(loss="poisson", cv=2, strengths=[0.01, 0.1]).fit(X, counts, TASKS)
    assert tried.strength_ in (0.01, 0.1)
    default = CodedMultiTaskRegressor(loss="poisson").fit(X, counts, TASKS)
    assert 0.0 < default.strength_ < np.inf
