"""Test scores from the sums that sites have sent: test rows themselves never leave a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncdmtl.learning.metric_sums import KINDS, MetricSums, merged
from asyncdmtl.learning.metrics import Scores, further_metrics, metrics_for
from asyncdmtl.learning.problem import Problem
from asyncdmtl.report.evaluation import summarised, summary
from asyncdmtl.report.json_output import finite


def report_tests(problem: Problem, tests: Mapping[str, MetricSums]) -> dict[str, Any] | None:
    """The result of `evaluation.evaluate` without `objective`, for the kinds of models that were tested.

    Parameters
    ----------
    problem : Problem
    tests : mapping of partition to MetricSums
        The sums of partitions with test rows.

    Returns
    -------
    dict, or None if there are no test rows.
    """
    by_task: dict[str, list[MetricSums]] = {}
    rows = dict.fromkeys(problem.tasks, 0)
    for info in problem.infos:
        rows[info.task] += info.rows
        if info.id in tests:
            by_task.setdefault(info.task, []).append(tests[info.id])
    if not by_task:
        return None
    sums = {task: merged(by_task[task]) for task in problem.tasks if task in by_task}
    every = merged(list(sums.values()))
    first, second = metrics_for(problem.settings.loss)
    made = summarised(
        {task: each.rows for task, each in sums.items()},
        (first, _scores(sums, every, first)),
        (second, _scores(sums, every, second)),
    )
    made["tasks"] = {task: {"rows": rows[task], **each} for task, each in made["tasks"].items()}
    further = [
        {"name": name, **summary(_scores(sums, every, name))}
        for name in further_metrics(problem.settings.loss)
    ]
    return {**made, "further": finite(further)}


def _scores(sums: Mapping[str, MetricSums], every: MetricSums, metric: str) -> dict[str, Scores]:
    """The values of a metric for each kind of models that was tested on all partitions."""
    kinds: Sequence[str] = [kind for kind in KINDS if kind in every.kinds]
    return {
        kind: Scores(
            {task: each.metric(metric, kind) for task, each in sums.items()}, every.metric(metric, kind)
        )
        for kind in kinds
    }
