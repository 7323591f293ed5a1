"""Scores of the models of a run: on test rows, beside models without coupling, and round by round.

Only a process that has all rows can compute them, as `asyncdmtl run` does. Results are plain JSON types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.errors import DataError
from asyncdmtl.learning.baseline import pooled, single_task
from asyncdmtl.learning.metrics import (
    METRICS,
    Decided,
    Rows,
    Scores,
    decide,
    further_metrics,
    measure,
    metrics_for,
    score,
)
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.report.json_output import finite

# The most points of a learning curve: more could not be distinguished in a picture.
CURVE_POINTS = 60


def evaluate(
    partitions: Sequence[Partition],
    test: Mapping[str, Rows],
    models: TaskModels,
    settings: Settings,
    metric: str,
) -> dict[str, Any]:
    """Scores on test rows, beside those of models trained for each task alone and of one model for all tasks.

    Parameters
    ----------
    partitions : sequence of Partition
        All training rows.
    test : mapping of task to `X` (rows, features) and `y` (rows,)
        Test rows, encoded like the partitions; tasks without test rows may be left out.
    models : TaskModels
        The models of the run.
    settings : Settings
    metric : str
        A name in `METRICS`.

    Returns
    -------
    dict
        `name`, `higher_is_better`; `tasks`: for each task with test rows its scores `coupled`, `single_task`
        and `pooled`, and its counts `rows` and `test_rows`; `mean`: the mean over the tasks that have a
        score; `all_rows`: the scores of the test rows of all tasks together; `also`: `name`, `mean` and
        `all_rows` of a second metric, or None; `further`: a list of the same of other metrics, such as
        log-loss and average precision; `objective`: the objective at the models. An undefined score is None.

    Raises
    ------
    UsageError
        A task has no model. It is a DataError if rows have another number of features.
    """
    intercept = settings.has_intercept
    kinds = {
        "coupled": models,
        "single_task": single_task(partitions, settings.loss, intercept=intercept),
        "pooled": pooled(partitions, settings.loss, intercept=intercept),
    }
    made = compare({name: decide(each, test) for name, each in kinds.items()}, settings.loss, metric)
    rows = dict.fromkeys(made["tasks"], 0)
    for partition in partitions:
        if partition.task in rows:
            rows[partition.task] += partition.rows
    made["tasks"] = {task: {"rows": rows[task], **each} for task, each in made["tasks"].items()}
    return {**made, "objective": finite(objective(partitions, models, settings))}


def compare(kinds: Mapping[str, Mapping[str, Decided]], loss: str, metric: str) -> dict[str, Any]:
    """The result of `evaluate` without `rows` and `objective`, from the decisions of each kind of models."""
    first, second = metrics_for(loss)
    scores = {name: measure(decided, metric) for name, decided in kinds.items()}
    also = None
    if metric == first:
        also = second, {name: measure(decided, second) for name, decided in kinds.items()}
    rows = {task: len(y) for task, (y, _) in next(iter(kinds.values())).items()}
    further = [
        {"name": name, **summary({kind: measure(decided, name) for kind, decided in kinds.items()})}
        for name in further_metrics(loss)
    ]
    return {**summarised(rows, (metric, scores), also), "further": finite(further)}


def summarised(
    rows: Mapping[str, int],
    first: tuple[str, Mapping[str, Scores]],
    second: tuple[str, Mapping[str, Scores]] | None,
) -> dict[str, Any]:
    """The result of `compare`, from the scores of each kind of models.

    Parameters
    ----------
    rows : mapping of task to int
        The number of test rows of each task.
    first, second : (metric, scores of each kind)
        `second` may be None.
    """
    name, scores = first
    made = {
        "name": name,
        "higher_is_better": METRICS[name].higher_is_better,
        "tasks": {
            task: {"test_rows": count, **{kind: each.tasks[task] for kind, each in scores.items()}}
            for task, count in rows.items()
        },
        **summary(scores),
        "also": None if second is None else {"name": second[0], **summary(second[1])},
    }
    return dict(finite(made))


def objective(partitions: Sequence[Partition], models: TaskModels, settings: Settings) -> float:
    """`Σ_t (1/n_t)·loss_t(w_t) + λ R(W)` at the models of all tasks.

    Raises
    ------
    DataError
        The partitions do not fit each other or the loss, or belong to other tasks than the models.
    """
    problem = Problem(settings, [partition.info(settings) for partition in partitions])
    if set(models.tasks) != set(problem.tasks):
        raise DataError("models", "must be of all tasks of the partitions", models.tasks)
    trainer = Trainer(problem, dict(enumerate(partitions)))
    rows = [models.tasks.index(task) for task in problem.tasks]
    W = np.column_stack([models.coef_, models.intercept_])[rows]
    trainer.place(range(len(rows)), W[:, : problem.d])
    return trainer.objective(trainer.losses())


def learning_curve(
    partitions: Sequence[Partition], test: Mapping[str, Rows], settings: Settings, metric: str, rounds: int
) -> list[dict[str, Any]]:
    """The metric after some rounds of a run, from the run's one-process twin, which has the same bits.

    Parameters
    ----------
    partitions, test, settings, metric
        As for `evaluate`.
    rounds : int
        The number of rounds that the run made.

    Returns
    -------
    list of dict
        `rounds` (made so far), `mean` and `all_rows` at no more than `CURVE_POINTS` points, which are denser
        at the beginning and include the last round. An undefined score is None.
    """
    wanted = set(np.unique(np.geomspace(1, rounds, CURVE_POINTS).round().astype(int)).tolist())
    curve: list[dict[str, Any]] = []

    def note(round: int, trainer: Trainer) -> None:
        if round + 1 in wanted:
            scores = score(trainer.models(), test, metric)
            curve.append({"rounds": round + 1, "mean": scores.mean, "all_rows": scores.all_rows})

    train(partitions, replace(settings, rounds=rounds), on_round=note)
    return list(finite(curve))


def summary(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Mean over the tasks, and value over all rows, of the scores of each kind of models."""
    return {
        "mean": {name: each.mean for name, each in scores.items()},
        "all_rows": {name: each.all_rows for name, each in scores.items()},
    }
