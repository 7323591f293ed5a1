"""The picture of a run: traffic, training, test scores, and the structure that the coupling found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from asyncdmtl.arrays import Floats
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.settings import Settings
from asyncdmtl.report.model_pictures import draw_structure
from asyncdmtl.report.pictures import (
    BOUND,
    CODED,
    MOST_NAMES,
    UNCODED,
    integer_ticks,
    make_room_for_legends,
    new_figure,
    plain_log_ticks,
    save_figure,
)
from asyncdmtl.report.relay_report import copy_words, member_words
from asyncdmtl.report.units import load_text, score_text, strength_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The kinds of models: key in the report, label, marker and colour.
_KINDS = (
    ("coupled", "coupled", "D", CODED),
    ("single_task", "single-task", "o", UNCODED),
    ("pooled", "pooled (one model)", "_", BOUND),
)

# The fewest rounds that are drawn as a curve: fewer would be one or two dots.
FEWEST_ROUNDS = 3

# Colours of the couplings that cross-validation compared, in order.
_COLOURS = (CODED, BOUND, UNCODED, "#5f8f3e", "#a23b72", "#3f3f74")

# Line styles of the kinds that are drawn as levels, by their marker.
_LINES = {"o": "--", "_": ":"}

# The most characters of a task's name along an axis: more would leave no room for the panel.
_LONGEST_NAME = 24

# If the largest value of a curve exceeds the smallest one by more than this factor, the axis is logarithmic:
# on a linear axis, later rounds would look flat.
_WIDE = 5.0


def plot_run(report: dict[str, Any], path: Path, model: SavedModel | None = None, data: str = "") -> None:
    """Draw a run: traffic, training, test scores, and the structure that the coupling found.

    Parameters
    ----------
    report : dict
        The report that `run_report.report_run` makes, optionally with `metrics` (from `evaluation.evaluate`)
        and `learning_curve` (from `evaluation.learning_curve`).
    path : Path
        Its ending selects the format.
    model : SavedModel, optional
        The models of all tasks.
    data : str
        The name of the data, for the headline.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    save_figure(draw_run(report, model, data), path)


def draw_run(report: dict[str, Any], model: SavedModel | None = None, data: str = "") -> Figure:
    """The figure of `plot_run`: the panels for which the run has something to show."""
    panels: list[Callable[[Axes], None]] = [lambda axes: _draw_loads(axes, report)]
    if len(report["rounds"]) < FEWEST_ROUNDS:
        panels.append(lambda axes: _draw_bytes(axes, report))
    else:
        panels.append(lambda axes: _draw_round_bytes(axes, report))
        panels.append(lambda axes: _draw_objective(axes, report))
    if report.get("selection"):
        panels.append(lambda axes: _draw_selection(axes, report["selection"]))
    if report.get("metrics"):
        panels.append(lambda axes: _draw_gains(axes, report))
    if model is not None:
        panels.append(lambda axes: draw_structure(figure, axes, model))
    if len(report["rounds"]) >= FEWEST_ROUNDS and _curve(report):
        panels.append(lambda axes: _draw_curve(axes, report))
    columns = -(-len(panels) // 2)
    figure = new_figure(6 * columns, 10)
    figure.suptitle(_headline(report, data))
    places = figure.subplots(2, columns).flat
    for draw, axes in zip(panels, places, strict=False):
        draw(axes)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    make_room_for_legends(figure)
    return figure


def _headline(report: dict[str, Any], data: str) -> str:
    """Data, strategy, workers, coupling and λ in a line."""
    settings = report["settings"]
    words = [
        f"{report['strategy']}, {member_words(report)}, {copy_words(report)}",
        f"coupling {settings['coupling']}, {strength_text(settings['strength'])}",
        _rounds(report["training"]["rounds"]),
    ]
    return (f"{data}: " if data else "") + "; ".join(words)


def _rounds(count: int) -> str:
    """A number of rounds in words."""
    return f"{count} round{'' if count == 1 else 's'}"


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
        axes.bar_label(bars, [load_text(load) for _, load in present], fontsize=8)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set_ylabel("vectors per round")
    axes.set_title("Load: what coding saves")
    # Leaves room for the numbers on the bars.
    axes.set_ylim(top=1.08 * axes.get_ylim()[1])
    axes.legend(ncols=3, loc="upper center", fontsize=8)


def _draw_round_bytes(axes: Axes, report: dict[str, Any]) -> None:
    rounds = [entry["round"] + 1 for entry in report["rounds"]]
    for key, label, colour in (("up_bytes", "uplink", CODED), ("down_bytes", "downlink, all copies", BOUND)):
        values = [entry[key] / 1e3 for entry in report["rounds"]]
        axes.plot(rounds, values, ".-" if len(rounds) < 40 else "-", color=colour, label=label)
    integer_ticks(axes.xaxis)
    axes.set_xlabel("round")
    axes.set_ylabel("kB on the wire per round")
    axes.set_ylim(bottom=0)
    axes.set_title("Traffic of each round, all workers together")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, loc="upper center", fontsize=8)


def _draw_bytes(axes: Axes, report: dict[str, Any]) -> None:
    """The bytes of a run of few rounds: payload and framing of each direction, and everything else."""
    parts = {
        "uplink": report["uplink"],
        "downlink,\nall copies": report["downlink_wire"],
        "joining, plan,\nheartbeats": report["other"],
    }
    bottom = np.zeros(len(parts))
    for key, label, colour in (("payload_bytes", "payload", CODED), ("framing_bytes", "framing", UNCODED)):
        values = np.array([part.get(key, 0) / 1e6 for part in parts.values()])
        axes.bar(range(len(parts)), values, 0.5, bottom=bottom, label=label, color=colour)
        bottom += values
    axes.set_xticks(range(len(parts)), list(parts))
    axes.set_ylabel("MB on the wire")
    axes.set_title(f"Traffic of the run: {_rounds(len(report['rounds']))}")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(ncols=2, loc="upper center", fontsize=8)


def _draw_selection(axes: Axes, selection: dict[str, Any]) -> None:
    """The mean held-out loss over the folds for each coupling and strength, with its standard error."""
    shown = _best_of_each(selection["couplings"])
    losses = np.concatenate([found["mean_loss"] for found in shown.values()])
    # Strengths that are far too weak would make all others look alike on a linear axis.
    wide = 0.0 < _WIDE * losses.min() < losses.max()
    styles = cycle((":", "-."))
    for colour, (name, found) in zip(cycle(_COLOURS), shown.items(), strict=False):
        order = np.argsort(found["strengths"])
        strengths, loss, error = (
            np.array(found[key])[order] for key in ("strengths", "mean_loss", "standard_error")
        )
        if len(strengths) == 1:  # no strength was to be chosen
            axes.axhline(loss[0], ls=next(styles), color=colour, label=name)
            continue
        # No bar reaches down to 0 on a logarithmic axis.
        below = np.minimum(error, 0.9 * loss) if wide else error
        axes.errorbar(
            strengths, loss, np.array([below, error]), fmt=".-", color=colour, capsize=2, label=name
        )
    if wide:
        axes.set_yscale("log")
        plain_log_ticks(axes.yaxis, losses.max() / losses.min())
    best = f"{selection['coupling']}, λ = {selection['strength']:.4g}"
    axes.axvline(selection["strength"], ls="--", color="black", lw=1, label=f"chosen: {best}")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    plain_log_ticks(axes.xaxis, high / low)
    axes.set_xlabel("λ")
    axes.set_ylabel("held-out loss, mean over folds ± standard error")
    axes.set_title("Cross-validation across sites")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", fontsize=7, ncols=1 if len(shown) < 4 else 2)


def _best_of_each(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of each coupling the intercept with the least loss, since all kinds together hide each other."""
    best: dict[str, str] = {}
    for name in sorted(found, key=lambda name: min(found[name]["mean_loss"])):
        best.setdefault(Settings.coupling_in(name), name)
    return {name: found[name] for name in found if name in best.values()}


def _draw_objective(axes: Axes, report: dict[str, Any]) -> None:
    """Draw the objective after every round. Rounds report it at their beginning: the last may be unknown."""
    values = [entry["objective"] for entry in report["rounds"][1:]]
    values.append(report.get("metrics", {}).get("objective"))
    drawn = np.array([np.nan if value is None else value for value in values])
    _draw_progress(axes, report, range(1, len(values) + 1), drawn)
    axes.set_ylabel("objective")
    axes.set_title("Training: objective")


def _draw_gains(axes: Axes, report: dict[str, Any]) -> None:
    """Draw tasks sorted by their single-task score, so that a gain is a distance from one line."""
    metrics = report["metrics"]
    name, rows = metrics["name"], metrics["tasks"]
    alone = {task: row["single_task"] for task, row in rows.items() if row["single_task"] is not None}
    ranked = sorted(alone, key=lambda task: alone[task])
    for kind, label, style, colour in _KINDS:
        if kind in metrics["mean"]:
            values = [np.nan if rows[task][kind] is None else rows[task][kind] for task in ranked]
            text = f"{label}, mean {score_text(metrics['mean'][kind])}"
            axes.plot(range(len(ranked)), values, style, color=colour, label=text, ms=5, alpha=0.9)
    step = max(1, -(-len(ranked) // MOST_NAMES))
    shown = [task if len(task) <= _LONGEST_NAME else f"{task[: _LONGEST_NAME - 1]}…" for task in ranked]
    axes.set_xticks(range(0, len(ranked), step), shown[::step], rotation=90, fontsize=7)
    axes.set_xlabel("tasks, in the order of their single-task score")
    axes.set_ylabel(f"test {name}")
    better = "higher" if metrics["higher_is_better"] else "lower"
    axes.set_title(f"Test {name} of each task ({better} is better)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper center", fontsize=8)


def _curve(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of the learning curve at which the metric has a value."""
    return [point for point in report.get("learning_curve", []) if point["mean"] is not None]


def _draw_curve(axes: Axes, report: dict[str, Any]) -> None:
    """Draw the mean test metric after some of the rounds, with the metrics without coupling as lines."""
    metrics, curve = report["metrics"], _curve(report)
    values = np.array([point["mean"] for point in curve])
    low, high = float(values.min()), float(values.max())
    if low > 0.0 and high > _WIDE * low:
        axes.set_yscale("log")
    _draw_progress(axes, report, [point["rounds"] for point in curve], values)
    for kind, words, style, colour in _KINDS[1:]:
        if (alone := metrics["mean"].get(kind)) is None:
            continue
        better = alone > values[-1] if metrics["higher_is_better"] else alone < values[-1]
        # One model for all can be so bad that the curve would look flat beside it. A kind that is better than
        # coupling is always shown.
        seen = better or kind == "single_task" or abs(2 * alone - low - high) < 3 * (high - low)
        where = "" if seen else " (above)" if alone > high else " (below)"
        label = f"{words}, {score_text(alone)}{where}"
        if seen:
            axes.axhline(alone, ls=_LINES[style], color=colour, label=label)
        else:
            axes.plot([], [], ls=_LINES[style], color=colour, label=label)
    axes.set_ylabel(f"test {metrics['name']}, mean over tasks")
    axes.set_title(f"Test {metrics['name']} in training")
    axes.legend(loc="upper center", fontsize=8)


def _draw_progress(axes: Axes, report: dict[str, Any], rounds: Sequence[int], values: Floats) -> None:
    """Draw values after rounds; a second axis above shows the bytes sent until then."""
    label = f"coupled, {score_text(float(values[-1]))}"
    axes.plot(list(rounds), values, ".-" if len(values) < 100 else "-", color=CODED, label=label)
    # The axis is logarithmic: values change much in the first rounds, and little in hundreds of later ones.
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis, max(rounds) / min(rounds))
    axes.set_xlabel("rounds made")
    axes.grid(alpha=0.3)
    sent = _sent(report)
    if len(sent) > 1 and sent[1] > 0.0:
        made = np.arange(len(sent))
        above = axes.secondary_xaxis(
            "top",
            functions=(lambda r: _interpolated(r, made, sent), lambda mb: _interpolated(mb, sent, made)),
        )
        plain_log_ticks(above.xaxis, sent[-1] / sent[1])
        above.set_xlabel("MB on the wire, both ways")


def _sent(report: dict[str, Any]) -> Floats:
    """MB on the wire, in both directions, before the first round and after each round."""
    each = [(entry["up_bytes"] + entry["down_bytes"]) / 1e6 for entry in report["rounds"]]
    return np.concatenate([[0.0], np.cumsum(each)])


def _interpolated(x: Any, known: ArrayLike, values: ArrayLike) -> Floats:
    """Values between and beyond known points of a growing function that begins at 0."""
    at, ends, of_ends = (np.asarray(each, dtype=np.float64) for each in (x, known, values))
    found: Floats = np.where(at > ends[-1], at * (of_ends[-1] / ends[-1]), np.interp(at, ends, of_ends))
    return found
