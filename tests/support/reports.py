"""Reports of small runs, for tests of tables and pictures."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

from rich.console import Console
from support.clusters import run_cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.evaluation import evaluate, learning_curve
from asyncdmtl.report.run_report import report_run

PARTITIONS = make_partitions(6, "squared")

# Test rows of each task.
TEST = {p.task: (p.X, p.y) for p in make_partitions(6, "squared", seed=1)[::2]}


async def make_report(settings: Settings) -> tuple[dict[str, Any], TaskModels]:
    """The report of a run over `PARTITIONS` with three workers, and the models of all tasks."""
    options = run_options(settings=settings, workers=3)
    record, models = await run_cluster(options, Placement.cyclic(3, 6, 2), PARTITIONS)
    return report_run(record), models[0]


def full_report() -> dict[str, Any]:
    """The report of a run of 30 rounds with scores and learning curve."""
    settings = make_settings(rounds=30)
    report, models = asyncio.run(make_report(settings))
    report["metrics"] = evaluate(PARTITIONS, TEST, models, settings, "RMSE")
    report["learning_curve"] = learning_curve(PARTITIONS, TEST, settings, "RMSE", 30)
    return report


def make_metrics(gains: list[float | None], name: str = "RMSE") -> dict[str, Any]:
    """Scores of tasks whose coupled models gain these amounts over 1.0."""
    higher = name != "RMSE"
    rows = {
        f"task {t}": {
            "rows": 10 + t, "test_rows": 5, "single_task": 1.0, "pooled": 1.5,
            "coupled": None if gain is None else 1.0 + gain if higher else 1.0 - gain,
        }
        for t, gain in enumerate(gains)
    }  # fmt: skip
    mean = {"coupled": 0.875, "single_task": 1.0, "pooled": 1.25}
    return {
        "name": name,
        "higher_is_better": higher,
        "tasks": rows,
        "mean": mean,
        "all_rows": mean,
        "also": None,
    }


def shown(show: Callable[..., None], *arguments: Any, width: int = 110) -> str:
    """The text that a function prints on a console of this width."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    show(*arguments, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
