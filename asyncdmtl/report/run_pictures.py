"""The picture of a run: traffic, training, test scores, and what the coupling found."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.report.model_pictures import draw_structure
from asyncdmtl.report.pictures import BOUND, CODED, MOST_NAMES, UNCODED, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Kinds of models: key in the report, label, marker, colour.
_KINDS = (
    ("coupled", "coupled", "D", CODED),
    ("single_task", "single-task", "o", UNCODED),
    ("pooled", "pooled (one model)", "_", BOUND),
)

# Line styles of the kinds that are drawn as levels, by their marker.
_LINES = {"o": "--", "_": ":"}


def plot_run(report: dict[str, Any], path: Path, model: SavedModel | None = None) -> None:
    """Draw a run: traffic, training, test scores, what the coupling found.

    Parameters
    ----------
    report : dict
        As `run_report.report_run` makes it, perhaps with `metrics` (of `evaluation.evaluate`) and
        `learning_curve` (of `evaluation.learning_curve`).
    path : Path
        Its ending says the format.
    model : SavedModel, optional
        The models of all tasks.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = new_figure(21, 10)
    upper, lower = figure.subplots(2, 4)
    _draw_loads(upper[0], report)
    _draw_round_bytes(upper[1], report)
    _draw_objective(upper[2:], report)
    _draw_gains(lower[0], report)
    draw_structure(figure, lower[1], model)
    _draw_curve(lower[2:], report)
    save_figure(figure, path)


def _draw_loads(axes: Axes, report: dict[str, Any]) -> None:
    names = {
        "uplink": "uplink",
        "downlink_broadcast": "downlink\n(broadcast)",
        "downlink_wire": "downlink\n(TCP wire)",
    }
    series = (
        ("measured_load", "measured", CODED),
        ("bound", "lower bound", BOUND),
        ("uncoded_load", "uncoded", UNCODED),
    )
    for offset, (key, label, colour) in enumerate(series):
        present = [(i, report[part][key]) for i, part in enumerate(names) if key in report[part]]
        positions = [i + 0.27 * (offset - 1) for i, _ in present]
        bars = axes.bar(
            positions, [float(Fraction(load)) for _, load in present], 0.25, label=label, color=colour
        )
        axes.bar_label(bars, [load for _, load in present], fontsize=8)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set_ylabel("vectors per round")
    axes.set_title("Load: what coding saves")
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    axes.legend(ncols=3, loc="upper center", fontsize=8)


def _draw_round_bytes(axes: Axes, report: dict[str, Any]) -> None:
    rounds = [entry["round"] + 1 for entry in report["rounds"]]
    for key, label, colour in (("up_bytes", "uplink", CODED), ("down_bytes", "downlink, all copies", BOUND)):
        values = [entry[key] / 1e3 for entry in report["rounds"]]
        axes.plot(rounds, values, ".-" if len(rounds) < 40 else "-", color=colour, label=label)
    axes.set_xlabel("round")
    axes.set_ylabel("kB on the wire per round")
    axes.set_ylim(bottom=0)
    axes.set_title("Traffic of each round, all workers together")
    axes.grid(alpha=0.3)
    axes.legend()


def _sent(report: dict[str, Any]) -> list[float]:
    """MB on the wire, both ways, before the first round and after each."""
    totals = [0.0]
    for entry in report["rounds"]:
        totals.append(totals[-1] + (entry["up_bytes"] + entry["down_bytes"]) / 1e6)
    return totals


def _draw_objective(pair: Sequence[Axes], report: dict[str, Any]) -> None:
    """The objective after every round; rounds tell it when they begin, so that the last may be unknown."""
    values = [entry["objective"] for entry in report["rounds"][1:]]
    values.append(report.get("metrics", {}).get("objective"))
    drawn = np.array([np.nan if value is None else value for value in values])
    _draw_progress(pair, report, range(1, len(values) + 1), drawn, "Training: objective")
    for axes in pair:
        axes.set_ylabel("objective")


def _draw_gains(axes: Axes, report: dict[str, Any]) -> None:
    """Tasks in the order of their single-task score, so that a gain is a distance from one line."""
    metrics = report.get("metrics")
    if metrics is None:
        axes.set_axis_off()
        return
    name, rows = metrics["name"], metrics["tasks"]
    alone = {task: row["single_task"] for task, row in rows.items() if row["single_task"] is not None}
    ranked = sorted(alone, key=lambda task: alone[task])
    for kind, label, style, colour in _KINDS:
        if kind in metrics["mean"]:
            values = [np.nan if rows[task][kind] is None else rows[task][kind] for task in ranked]
            text = f"{label}, mean {metrics['mean'][kind]:.4g}"
            axes.plot(range(len(ranked)), values, style, color=colour, label=text, ms=4, alpha=0.9)
    # More names than fit would be unreadable.
    step = max(1, -(-len(ranked) // MOST_NAMES))
    axes.set_xticks(range(0, len(ranked), step), ranked[::step], rotation=90, fontsize=7)
    axes.set_xlabel("tasks, in the order of their single-task score")
    axes.set_ylabel(f"test {name}")
    better = "higher" if metrics["higher_is_better"] else "lower"
    axes.set_title(f"Test {name} of each task ({better} is better)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)


def _draw_curve(pair: Sequence[Axes], report: dict[str, Any]) -> None:
    """The mean test metric after some of the rounds, with the metrics without coupling as lines."""
    metrics = report.get("metrics") or {}
    curve = [point for point in report.get("learning_curve", []) if point["mean"] is not None]
    if not curve:
        for axes in pair:
            axes.set_axis_off()
        return
    values = np.array([point["mean"] for point in curve])
    _draw_progress(pair, report, [point["rounds"] for point in curve], values, f"Test {metrics['name']}")
    for axes in pair:
        # The first rounds, or one model for all, can be so bad that nothing else would be seen beside them;
        # what does better than coupling is always shown.
        low, high = (float(bound(values[len(values) // 2 :])) for bound in (np.min, np.max))
        for kind, words, style, colour in _KINDS[1:]:
            if (alone := metrics["mean"].get(kind)) is not None:
                better = alone > values[-1] if metrics["higher_is_better"] else alone < values[-1]
                seen = better or kind == "single_task" or abs(2 * alone - low - high) < 3 * (high - low)
                where = "" if seen else " (above)" if alone > high else " (below)"
                axes.axhline(alone, ls=_LINES[style], color=colour, label=f"{words}, {alone:.4g}{where}")
                if seen:
                    low, high = min(low, alone), max(high, alone)
        margin = 0.1 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
        axes.set_ylabel(f"test {metrics['name']}, mean over tasks")
        axes.legend(fontsize=8)


def _draw_progress(
    pair: Sequence[Axes], report: dict[str, Any], rounds: Sequence[int], values: Floats, name: str
) -> None:
    """Values after rounds, against these and against the bytes sent until then."""
    sent = _sent(report)
    for axes, places, unit, over in (
        (pair[0], list(rounds), "rounds made", "rounds"),
        (pair[1], [sent[r] for r in rounds], "MB on the wire, both ways", "bytes"),
    ):
        axes.plot(
            places,
            values,
            ".-" if len(places) < 100 else "-",
            color=CODED,
            label=f"coupled, {values[-1]:.4g}",
        )
        # On a logarithmic axis: values change much in the first rounds, and little in hundreds of later ones.
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(unit)
        axes.set_title(f"{name} against {over}")
        axes.grid(alpha=0.3)
