from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.baseline import pooled, single_task
from asyncdmtl.learning.metrics import Rows, score
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.report.evaluation import CURVE_POINTS, evaluate, learning_curve, objective

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(rounds=40, dtype="float64")
TRAINED = train(PARTITIONS, SETTINGS)


def rows_to_test(loss: str = "squared") -> dict[str, Rows]:
    """Rows of the first two of three tasks."""
    return {p.task: (p.X, p.y) for p in make_partitions(4, loss, seed=1)[::2]}


def test_scores_beside_those_without_coupling() -> None:
    test = rows_to_test()
    made = evaluate(PARTITIONS, test, TRAINED.models, SETTINGS, "RMSE")
    assert (made["name"], made["higher_is_better"]) == ("RMSE", False)
    kinds = {
        "coupled": TRAINED.models,
        "single_task": single_task(PARTITIONS, "squared"),
        "pooled": pooled(PARTITIONS, "squared"),
    }
    for name, models in kinds.items():
        scores, also = score(models, test, "RMSE"), score(models, test, "R²")
        assert made["mean"][name] == scores.mean
        assert made["all_rows"][name] == scores.all_rows
        assert {task: row[name] for task, row in made["tasks"].items()} == scores.tasks
        assert (made["also"]["mean"][name], made["also"]["all_rows"][name]) == (also.mean, also.all_rows)
    assert made["also"]["name"] == "R²"
    assert made["tasks"]["t1"]["rows"] == PARTITIONS[2].rows + PARTITIONS[3].rows
    assert made["tasks"]["t1"]["test_rows"] == len(test["t1"][1])


@pytest.mark.parametrize("intercept", ["free", "none"])
def test_baselines_have_an_intercept_if_the_run_has(intercept: str) -> None:
    settings = replace(SETTINGS, intercept=intercept)
    models = train(PARTITIONS, settings).models
    made = evaluate(PARTITIONS, rows_to_test(), models, settings, "RMSE")
    alone = single_task(PARTITIONS, "squared", intercept=intercept == "free")
    assert made["mean"]["single_task"] == score(alone, rows_to_test(), "RMSE").mean


def test_what_has_no_value_is_none() -> None:
    partitions = make_partitions(6, "logistic")
    settings = replace(SETTINGS, loss="logistic", rounds=3)
    test = rows_to_test("logistic")
    test["t0"] = (test["t0"][0], np.ones(len(test["t0"][1])))
    made = evaluate(partitions, test, train(partitions, settings).models, settings, "ROC AUC")
    assert made["tasks"]["t0"]["coupled"] is None
    assert made["mean"]["coupled"] == made["tasks"]["t1"]["coupled"] is not None
    assert made["also"]["name"] == "accuracy"
    further = {each["name"]: each["all_rows"]["coupled"] for each in made["further"]}
    assert list(further) == ["average precision", "F1", "log-loss", "Brier score"]
    assert 0.0 < further["Brier score"] < further["log-loss"]
    json.dumps(made, allow_nan=False)
    assert evaluate(PARTITIONS, rows_to_test(), TRAINED.models, SETTINGS, "ROC AUC")["also"] is None


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_the_objective_is_that_of_the_run(intercept: str) -> None:
    settings = replace(SETTINGS, intercept=intercept, accelerated=False)
    before, after = (train(PARTITIONS, replace(settings, rounds=rounds)) for rounds in (5, 6))
    assert objective(PARTITIONS, before.models, settings) == after.objectives[5]
    made = evaluate(PARTITIONS, rows_to_test(), before.models, settings, "RMSE")
    assert made["objective"] == after.objectives[5]


def test_the_objective_counts_weights() -> None:
    settings = replace(SETTINGS, coupling="none")
    doubled = [Partition(p.id, p.task, p.X, p.y, np.full(p.rows, 2.0)) for p in PARTITIONS]
    ours = objective(doubled, TRAINED.models, settings)
    assert ours == pytest.approx(objective(PARTITIONS, TRAINED.models, settings))
    weights = np.arange(1.0, PARTITIONS[0].rows + 1.0)
    first = replace(PARTITIONS[0], weights=weights)
    residuals = first.y - TRAINED.models.predict(first.X, "t0")
    expected = 0.5 * float(weights @ residuals**2) / weights.sum()
    assert objective([first], TRAINED.models.of([0]), settings) == pytest.approx(expected)


def test_objective_and_scores_need_the_models_of_their_tasks() -> None:
    with pytest.raises(DataError, match="models must be of all tasks of the partitions"):
        objective(PARTITIONS, TRAINED.models.of([0, 1]), SETTINGS)
    with pytest.raises(UsageError, match="task must be one of"):
        evaluate(PARTITIONS, {"t9": rows_to_test()["t0"]}, TRAINED.models, SETTINGS, "RMSE")


def test_the_curve_is_the_metric_after_rounds() -> None:
    test = rows_to_test()
    curve = learning_curve(PARTITIONS, test, SETTINGS, "RMSE", 40)
    assert len(curve) <= CURVE_POINTS
    assert [point["rounds"] for point in curve[:3]] == [1, 2, 3]
    assert curve[-1]["rounds"] == 40
    for point in (curve[1], curve[-1]):
        settings: Settings = replace(SETTINGS, rounds=point["rounds"])
        scores = score(train(PARTITIONS, settings).models, test, "RMSE")
        assert (point["mean"], point["all_rows"]) == (scores.mean, scores.all_rows)


def test_the_curve_ends_where_the_run_ended() -> None:
    early = replace(SETTINGS, rounds=10_000, tolerance=1e-3)
    rounds = len(train(PARTITIONS, early).objectives)
    assert rounds < 10_000
    curve = learning_curve(PARTITIONS, rows_to_test(), early, "RMSE", rounds)
    assert curve[-1]["rounds"] == rounds
    assert len(curve) <= CURVE_POINTS
    assert all(math.isfinite(point["mean"]) for point in curve)
