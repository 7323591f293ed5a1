"""Test scores as a table and a few sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import gain_text, score_text

# Columns that count the rows of a task: key in the report, and heading.
_COUNTS = {"rows": "trained on", "test_rows": "tested on"}

# The most tasks that the table shows. If there are more, it shows those that gain most and those that gain
# least.
MOST_TASKS = 20


def show_metrics(metrics: Mapping[str, Any], console: Console) -> None:
    """Print the scores that `evaluation.evaluate` made; of many tasks only the best and the worst."""
    kinds, tasks = list(metrics["mean"]), metrics["tasks"]
    counts = {key: words for key, words in _COUNTS.items() if all(key in row for row in tasks.values())}
    gains = _gains(metrics, "single_task") if "single_task" in kinds else {}
    better = "higher" if metrics["higher_is_better"] else "lower"
    table = FittedTable(title=f"Test {metrics['name']} ({better} is better)")
    table.add_column("task", overflow="fold")
    for heading in (*counts.values(), *map(_heading, kinds), *(["gain"] if gains else [])):
        table.add_column(heading, justify="right", overflow="fold")
    shown, hidden = _best_and_worst(metrics, gains)
    for task in shown:
        if task is None:
            table.add_row("…", end_section=True)
            continue
        cells = [
            *(str(tasks[task][key]) for key in counts),
            *(score_text(tasks[task][kind]) for kind in kinds),
        ]
        table.add_row(task, *cells, *([gain_text(gains.get(task))] if gains else []))
    table.add_section()
    for name, part in _summaries(metrics):
        table.add_row(name, *["" for _ in counts], *(score_text(part[kind]) for kind in kinds))
    console.print(table)
    if gains:
        console.print(_gain_words(metrics, gains))
    if hidden:
        console.print(f"{hidden} tasks are not shown; the report in JSON has all.")


def _heading(kind: str) -> str:
    return kind.replace("_", "-")


def _gains(metrics: Mapping[str, Any], over: str) -> dict[str, float]:
    """The gain of coupled models over the kind `over`, for each task that has both scores."""
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    pairs = {task: (row["coupled"], row[over]) for task, row in metrics["tasks"].items()}
    return {task: sign * (a - b) for task, (a, b) in pairs.items() if a is not None and b is not None}


def _best_and_worst(metrics: Mapping[str, Any], gains: Mapping[str, float]) -> tuple[list[str | None], int]:
    """The tasks to show, with None in the place of those left out, and the number of those left out."""
    tasks = list(metrics["tasks"])
    if len(tasks) <= MOST_TASKS:
        return list(tasks), 0
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    scored = {task: row["coupled"] for task, row in metrics["tasks"].items() if row["coupled"] is not None}
    ranked = sorted(gains or scored, key=lambda task: -(gains[task] if gains else sign * scored[task]))
    if len(ranked) <= MOST_TASKS:
        return list(ranked), len(tasks) - len(ranked)
    half = MOST_TASKS // 2
    return [*ranked[:half], None, *ranked[-half:]], len(tasks) - MOST_TASKS


def _summaries(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    """The lines below the tasks: a name, and a score for each kind of models."""
    yield "mean over tasks", metrics["mean"]
    if "all_rows" in metrics:
        yield "all rows together", metrics["all_rows"]
    if also := metrics.get("also"):
        yield f"{also['name']}, mean over tasks", also["mean"]
        yield f"{also['name']}, all rows together", also["all_rows"]
    for other in metrics.get("further", ()):
        yield f"{other['name']}, all rows together", other["all_rows"]


def _gain_words(metrics: Mapping[str, Any], gains: Mapping[str, float]) -> str:
    won = [f"than single-task on {sum(gain > 0.0 for gain in gains.values())} of {len(gains)} tasks"]
    if "pooled" in metrics["mean"]:
        others = _gains(metrics, "pooled")
        won.append(f"than pooled on {sum(gain > 0.0 for gain in others.values())} of {len(others)}")
    words = f"Coupled training is better {', '.join(won)}."
    if len(gains) < 2:
        return words
    mean = math.fsum(gains.values()) / len(gains)
    error = math.sqrt(
        math.fsum((gain - mean) ** 2 for gain in gains.values()) / (len(gains) * (len(gains) - 1))
    )
    words += f"\nMean gain over single-task: {mean:+.4f}, with a standard error of {error:.4f} over the tasks"
    if abs(mean) <= 2.0 * error:
        return f"{words}: no clear difference."
    return f"{words}." if mean > 0.0 else f"{words}: single-task training wins here (--coupling ridge)."


def advice(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Advice if one model for all tasks scores better than this coupling in every mean, else ""."""
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    pairs = [(part.get("pooled"), part["coupled"]) for part in (metrics["mean"], metrics["all_rows"])]
    if any(None in pair or sign * (pair[0] - pair[1]) <= 0.0 for pair in pairs):
        return ""
    free = settings["intercept"] == "free"
    options = ["--coupling mean-regularised"] if settings["coupling"] != "mean-regularised" else []
    options += ["--intercept penalised"] if free else []
    if not options:
        return "One model for all does better here (--coupling mean)."
    return f"One model for all does better here. Try what is nearer to it: {', with '.join(options)}."
