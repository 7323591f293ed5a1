from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from support.multitask import make_rows

from asyncdmtl import CodedMultiTaskClassifier, CodedMultiTaskRegressor, CodedMultiTaskRegressorCV
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators import base

X, Y, TASKS = make_rows()
# Targets with noise, so that no hyperplane separates the classes.
NOISY = Y + np.random.default_rng(1).standard_normal(len(Y)) * Y.std()
LABELS = np.where(np.median(NOISY) < NOISY, "yes", "no")
KINDS = np.random.default_rng(2).permuted(np.digitize(NOISY, np.quantile(NOISY, [0.3, 0.6])))


def test_what_travelled_and_why() -> None:
    model = CodedMultiTaskRegressor(max_iter=7, tol=0.0, workers=4, update="gradient").fit(X, Y, TASKS)
    assert model.n_iter_ == 7
    assert {name: len(values) for name, values in model.history_.items()} == dict.fromkeys(
        ("round", "objective", "residual", "up_bytes", "down_bytes", "seconds"), 7
    )
    up, down = model.history_["up_bytes"].sum(), model.history_["down_bytes"].sum()
    traffic = model.traffic_
    assert up >= traffic["uplink"]["payload_bytes"] > 0
    assert down >= traffic["downlink_wire"]["payload_bytes"] > 0
    assert traffic["uplink"]["measured_load"] == str(model.plan_.uplink_load)
    assert model.plan_.uplink_load == model.plan_.uplink_bound
    assert np.all(np.diff(model.history_["objective"]) < 0)


@pytest.mark.parametrize("intercept", [False, "penalised"])
def test_other_intercepts(intercept: Any) -> None:
    model = CodedMultiTaskRegressor(fit_intercept=intercept, strength=0.1).fit(X, Y, TASKS)
    if intercept is False:
        assert model.intercept_.tolist() == [0.0, 0.0, 0.0]
    else:
        ones = np.column_stack([X, np.ones(len(X))])
        same = CodedMultiTaskRegressor(fit_intercept=False, strength=0.1).fit(ones, Y, TASKS)
        np.testing.assert_allclose(model.intercept_, same.coef_[:, -1], rtol=1e-4)
        np.testing.assert_allclose(model.coef_, same.coef_[:, :-1], rtol=1e-4)


def test_weights_are_as_repeated_rows() -> None:
    weights = np.arange(len(X)) % 3
    weighted = CodedMultiTaskRegressor().fit(X, Y, TASKS, sample_weight=weights)
    repeated = CodedMultiTaskRegressor().fit(
        X.repeat(weights, axis=0), Y.repeat(weights), np.repeat(TASKS, weights)
    )
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9)
    assert weighted.score(X, Y, TASKS) != weighted.score(X, Y, TASKS, sample_weight=weights)


def test_arrays_a_column_and_lists_are_the_same_rows() -> None:
    arrays = CodedMultiTaskRegressor().fit(X, Y, TASKS)
    frame = pd.DataFrame(X, columns=list("pqrs")).assign(site=pd.Categorical(TASKS))
    column = CodedMultiTaskRegressor().fit(frame, Y, "site")
    parts = [np.array(TASKS) == task for task in "abc"]
    lists = CodedMultiTaskRegressor().fit([X[own] for own in parts], [Y[own] for own in parts])
    named = CodedMultiTaskRegressor().fit([X[own] for own in parts], [Y[own] for own in parts], list("abc"))
    assert arrays.tasks_ == column.tasks_ == named.tasks_ == ["a", "b", "c"]
    assert lists.tasks_ == [0, 1, 2]
    for other in (column, lists, named):
        assert other.coef_.tobytes() == arrays.coef_.tobytes()
    assert column.feature_names_in_.tolist() == list("pqrs")
    predicted = arrays.predict(X, TASKS)
    np.testing.assert_array_equal(column.predict(frame), predicted)
    np.testing.assert_array_equal(column.predict(frame.drop(columns="site"), TASKS), predicted)
    for own, values in zip(parts, lists.predict([X[own] for own in parts]), strict=True):
        np.testing.assert_allclose(values, predicted[own], rtol=1e-12)
    assert column.score(frame, Y) == arrays.score(X, Y, TASKS)
    assert lists.score([X[own] for own in parts], [Y[own] for own in parts]) == pytest.approx(
        arrays.score(X, Y, TASKS), rel=1e-12
    )


def test_one_task_need_not_be_said() -> None:
    model = CodedMultiTaskRegressor().fit(X, Y)
    assert model.tasks_ == [0]
    assert model.coef_.shape == (1, 4)
    assert model.predict(X).shape == Y.shape


def test_set_output_gives_pandas_with_the_index_of_the_rows() -> None:
    frame = pd.DataFrame(X, index=np.arange(len(X)) + 100)
    model = CodedMultiTaskClassifier().set_output(transform="pandas").fit(frame, LABELS, TASKS)
    predicted = clone(model).fit(frame, LABELS, TASKS).predict(frame, TASKS)
    assert isinstance(predicted, pd.Series)
    assert predicted.index.equals(frame.index)
    chances = model.predict_proba([frame[:3], frame[3:]], ["a", "b"])
    assert [part.columns.tolist() for part in chances] == [["no", "yes"], ["no", "yes"]]
    assert chances[1].index[0] == 103
    assert isinstance(model.set_output(transform="default").predict(frame, TASKS), np.ndarray)
    with pytest.raises(UsageError, match="transform must be default or pandas"):
        model.set_output(transform="polars")


def test_edges_join_tasks_and_each_of_their_classes() -> None:
    edges = [("a", "b", np.float64(2.0))]
    model = CodedMultiTaskClassifier(coupling="graph", edges=edges, strength=100.0).fit(X, KINDS, TASKS)
    assert np.abs(model.coef_[0] - model.coef_[1]).max() < 0.01
    assert np.abs(model.coef_[0] - model.coef_[2]).max() > 0.1
    with pytest.raises(UsageError, match="edges must join tasks; unknown"):
        CodedMultiTaskRegressor(coupling="graph", edges=[("a", "z", 1.0)]).fit(X, Y, TASKS)
    short: Any = [("a", "b")]
    with pytest.raises(UsageError, match=r"edges must each be \(task, task, weight\)"):
        CodedMultiTaskRegressor(coupling="graph", edges=short).fit(X, Y, TASKS)


def test_a_column_serves_where_nothing_is_passed_to_predict() -> None:
    frame = pd.DataFrame(X, columns=list("pqrs")).assign(site=TASKS)
    scores = cross_val_score(
        CodedMultiTaskRegressor(), frame, Y, cv=2, params={"tasks": "site"}, scoring="neg_mean_squared_error"
    )
    assert (scores > -1.0).all()


def test_pickle_and_clone() -> None:
    model = CodedMultiTaskRegressor(strength=0.1).fit(X, Y, TASKS)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.predict(X, TASKS), model.predict(X, TASKS))
    assert copied.plan_.placement.as_dict() == model.traffic_["placement"]
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X, TASKS)


def test_who_does_not_arrive_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        model = CodedMultiTaskRegressor(max_iter=3, update="gradient").fit(X, Y, TASKS)
    assert not model.converged_


def test_coefficients_that_are_all_0_are_warned_of_with_the_critical_strength() -> None:
    with pytest.warns(ConvergenceWarning, match=r"All coefficients are 0.* critical strength.* λ = \d"):
        model = CodedMultiTaskRegressor(coupling="l21", strength=1e6).fit(X, Y, TASKS)
    assert not model.coef_.any()


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("coupling", "trace", "coupling must be one of"),
        ("strength", -1.0, "strength must be a finite number"),
        ("loss", "logistic", "loss must be one of squared, huber"),
        ("max_iter", 0, "max_iter must be a whole number"),
        ("tol", -1.0, "tol must be a finite number"),
        ("fit_intercept", "free", "fit_intercept must be True, False or 'penalised'"),
        ("strategy", "gossip", "strategy must be one of"),
        ("workers", 0, "workers must be a whole number"),
        ("copies", 4, "copies must lie between 1 and the number of workers"),
        ("parts", 0, "parts must be a whole number"),
        ("cluster", "cloud", "cluster must be threads, processes, a Dask client or HOST:PORT"),
        ("dtype", "float16", "dtype must be one of"),
        ("random_state", -1, "random_state must be a whole number"),
        ("learner", SGDRegressor(), "learner and epochs are for updates that are models only"),
        ("edges", [("a", "b", 1.0)], "edges are for the coupling graph only"),
    ],
)
def test_parameters_are_named_in_errors(parameter: str, value: Any, message: str) -> None:
    model = CodedMultiTaskRegressor(**{parameter: value})
    with pytest.raises(UsageError, match=message):
        model.fit(X, Y, TASKS)


def test_tasks_without_a_model_are_named() -> None:
    model = CodedMultiTaskRegressor().fit(X, Y, TASKS)
    with pytest.raises(ValueError, match="tasks must be among the 3 of fit; unknown, got 'z'"):
        model.predict(X[:2], ["a", "z"])
    with pytest.raises(ValueError, match="there are models of 3 tasks"):
        model.predict(X)
    with pytest.raises(ValueError, match="one label for each of 2 rows"):
        model.predict(X[:2], ["a"])


def test_rows_that_do_not_do() -> None:
    model = CodedMultiTaskRegressor()
    with pytest.raises(DataError, match=r"y must be numbers, got .*'high'"):
        model.fit(X, ["high"] * len(X), TASKS)
    with pytest.raises(DataError, match="y must be 1-D"):
        model.fit(X, np.column_stack([Y, Y]), TASKS)
    with pytest.raises(DataError, match="must not be 0 for all rows of a task, got"):
        model.fit(X, Y, TASKS, sample_weight=np.array(TASKS) != "b")
    with pytest.raises(DataError, match="must include a task of two rows"):
        CodedMultiTaskRegressorCV().fit(X[:2], Y[:2], ["a", "b"])
    labels = ["c", "b=c", "d"] * 24
    with pytest.raises(DataError, match="tasks and classes must differ in their text"):
        CodedMultiTaskClassifier().fit(X, labels, ["a", "a=b"] * 36)


@pytest.mark.parametrize("coupling", ["nuclear", "l21", "mean-regularised", "covariance", "none"])
def test_a_strength_that_is_not_given_suits_any_scale_of_the_target(coupling: str) -> None:
    small, large = (
        CodedMultiTaskRegressor(coupling=coupling).fit(X, scale * Y, TASKS) for scale in (1, 1000)
    )
    assert small.converged_
    assert large.converged_
    assert large.coef_ == pytest.approx(1000 * small.coef_, rel=0.02, abs=1)


def test_random_states_become_seeds() -> None:
    assert base._seed(7) == base._seed(np.int64(7)) == 7
    one, other = (base._seed(np.random.RandomState(5)) for _ in range(2))
    assert one == other >= 0


def test_numbers_of_numpy_become_those_of_python() -> None:
    assert type(base.plain(np.float64(0.5))) is float
    assert type(base.plain(np.int64(3))) is int
    assert base.plain("text") == "text"


def test_tasks_that_were_not_in_fit_may_be_predicted_by_the_mean_of_all() -> None:
    model = CodedMultiTaskRegressor(unknown="mean").fit(X, Y, TASKS)
    expected = X[:2] @ model.coef_.mean(axis=0) + model.intercept_.mean()
    np.testing.assert_allclose(model.predict(X[:2], ["new", "new"]), expected, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X[:2], ["a", "new"])[0], model.predict(X[:1], ["a"])[0])
    chances = CodedMultiTaskClassifier(unknown="mean").fit(X, KINDS, TASKS).predict_proba(X[:2], ["new", "a"])
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    numbered = CodedMultiTaskRegressor(unknown="mean").fit(X, Y, [ord(task) for task in TASKS])
    with pytest.raises(UsageError, match="tasks must be as in fit, where there is 97, got '97'"):
        numbered.predict(X[:1], ["97"])
    with pytest.raises(UsageError, match="unknown must be error or mean, got 'zero'"):
        CodedMultiTaskRegressor(unknown="zero").fit(X, Y, TASKS)


def test_one_task_after_the_other_can_be_left_out() -> None:
    frame = pd.DataFrame(X, columns=list("pqrs")).assign(site=TASKS)
    scores = cross_val_score(
        CodedMultiTaskRegressor(unknown="mean"),
        frame, Y, cv=LeaveOneGroupOut(), groups=TASKS, params={"tasks": "site"},
    )  # fmt: skip
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_names_of_columns_may_be_numbers() -> None:
    frame = pd.DataFrame(X).assign(**{"4": TASKS}).rename(columns={"4": 4})
    model = CodedMultiTaskRegressor().fit(frame, Y, 4)
    assert model.tasks_ == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict(frame), model.predict(frame.drop(columns=4), TASKS))
    with pytest.raises(UsageError, match="tasks must be labels, or the name of a column of X, got 7"):
        CodedMultiTaskRegressor().fit(frame, Y, 7)


def test_pickles_of_long_runs_stay_small() -> None:
    model = CodedMultiTaskRegressor(max_iter=7, tol=0.0, update="gradient").fit(X, Y, TASKS)
    # As after a run of 5,000 rounds.
    history = {name: np.resize(values, 5000) for name, values in model.history_.items()}
    model.n_iter_, model.history_ = 5000, {**history, "round": np.arange(5000)}
    copied = pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(model)) < 10_000
    kept = copied.history_["round"]
    assert (len(kept), kept[0], kept[-1]) == (100, 0, 4999)
    assert all((copied.history_[name] == model.history_[name][kept]).all() for name in history)
    assert len(model.history_["round"]) == 5000
