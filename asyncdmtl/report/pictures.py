"""Pictures of runs, plans and placements."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.structure import (
    NEGLIGIBLE,
    Spectrum,
    cluster_order,
    feature_norms,
    low_rank_part,
    similarity,
    spectrum,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


CODED, BOUND, UNCODED = "#1b6ca8", "#e08e0b", "#9aa0a6"


def plot(report: dict[str, Any], path: Path, model: SavedModel | None = None) -> None:
    """Draw a run: traffic, training, test scores, what the coupling found; `path` ends in the format.

    Parameters
    ----------
    report : dict
        What `report.traffic` made, perhaps with `metrics` (of `evaluation.evaluate`) and `learning_curve`
        (of `evaluation.learning_curve`).
    path : Path
    model : SavedModel, optional
        The models of all tasks.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = _figure(21, 10)
    upper, lower = figure.subplots(2, 4)
    _draw_loads(upper[0], report)
    _draw_round_bytes(upper[1], report)
    _draw_objective(upper[2:], report)
    _draw_gains(lower[0], report)
    _draw_structure(figure, lower[1], model)
    _draw_curve(lower[2:], report)
    _save(figure, path)


def plot_plan(explanation: dict[str, Any], pattern: NDArray[np.bool_], path: Path) -> None:
    """Draw a placement, the zero pattern of the uplink matrix, and the loads of all strategies.

    Parameters
    ----------
    explanation : dict
        What `asyncdmtl plan --json` prints.
    pattern : bool array (R_up·P, N·P)
        Where the uplink matrix is not zero.
    path : Path
        Its ending says the format.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = _figure(15, 4.6)
    placement, matrix, loads = figure.subplots(1, 3)
    _draw_placement(placement, explanation)
    matrix.imshow(pattern, cmap=_two_colours(), aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    matrix.set_xlabel("packets of the partitions")
    matrix.set_ylabel("uplink rows, worker after worker")
    matrix.set_title(f"Uplink matrix of {explanation['strategy']}: where it is not zero")
    _draw_strategies(loads, explanation)
    _save(figure, path)


def plot_design(description: dict[str, Any], path: Path) -> None:
    """Draw a designed placement, and what more or fewer copies would cost and save.

    Parameters
    ----------
    description : dict
        What `asyncdmtl place --json` prints.
    path : Path
        Its ending says the format.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = _figure(13, 4.6)
    placement, loads = figure.subplots(1, 2)
    _draw_placement(placement, description)
    _draw_trade_off(loads, description)
    _save(figure, path)


def check_picture(path: Path | None) -> None:
    """UsageError, naming --plot, unless the ending of `path` says a picture format."""
    if path is None:
        return
    known = _figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UsageError("--plot", f"must end in one of {', '.join(sorted(known))}", str(path))


def _figure(width: float, height: float) -> Figure:
    # Here and not above: matplotlib takes a second to import, which no other command should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--plot", f"must be a writable file with a picture's ending ({error})", str(path)
        ) from error


def _two_colours() -> Colormap:
    from matplotlib.colors import ListedColormap

    return ListedColormap(["#f1f3f4", CODED])


def _draw_placement(axes: Axes, explanation: dict[str, Any]) -> None:
    partitions = explanation["partitions"]
    stored = [[part in set(held) for part in partitions] for held in explanation["placement"].values()]
    axes.imshow(stored, cmap=_two_colours(), aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    for ticks, names in ((axes.set_yticks, list(explanation["placement"])), (axes.set_xticks, partitions)):
        step = -(-len(names) // 25)
        ticks(range(0, len(names), step), names[::step], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set_title("Placement: who stores what")


def _draw_strategies(axes: Axes, explanation: dict[str, Any]) -> None:
    strategies = explanation["strategies"]
    series = (
        ("uplink_load", "uplink", CODED),
        ("downlink_load", "downlink, broadcast", BOUND),
        ("unicast_load", "downlink, unicast copies", UNCODED),
    )
    for offset, (key, label, colour) in enumerate(series):
        positions = [i + 0.27 * (offset - 1) for i in range(len(strategies))]
        values = [row[key] for row in strategies.values()]
        bars = axes.bar(positions, [float(Fraction(v)) for v in values], 0.25, label=label, color=colour)
        axes.bar_label(bars, values, fontsize=7)
    for i, row in enumerate(strategies.values()):
        for offset, key in enumerate(("uplink_bound", "downlink_bound")):
            centre = i + 0.27 * (offset - 1)
            axes.plot([centre - 0.13, centre + 0.13], [float(Fraction(row[key]))] * 2, color="black", lw=1.5)
    axes.plot([], [], color="black", lw=1.5, label="lower bound")
    axes.set_xticks(range(len(strategies)), list(strategies))
    axes.set_ylabel("vectors per round")
    axes.set_title("Loads")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.legend(fontsize=8, ncols=2, loc="upper center")


def _draw_trade_off(axes: Axes, description: dict[str, Any]) -> None:
    rows = description["trade_off"]
    copies = [row["copies"] for row in rows]
    series = (
        ("uncoded_uplink", "uncoded, up and down alike", UNCODED, "s--"),
        ("uplink_load", "uplink", CODED, "o-"),
        ("downlink_load", "downlink, broadcast", BOUND, "D-"),
    )
    for key, label, colour, style in series:
        axes.plot(copies, [float(Fraction(row[key])) for row in rows], style, color=colour, label=label, ms=4)
    own = float(Fraction(description["copies"]))
    # Of two sizes, so that both are seen where they coincide.
    for key, colour, size in (("uplink_load", CODED, 20), ("downlink_load", BOUND, 11)):
        load = float(Fraction(description[key]))
        axes.plot(own, load, "*", color=colour, ms=size, markeredgecolor="black", zorder=3)
    axes.plot([], [], "k*", ms=10, label="the placement on the left")
    axes.set_xlabel("copies of each partition: what is stored and computed, in multiples of the data")
    axes.set_ylabel("vectors per round")
    axes.set_ylim(bottom=0)
    axes.set_title(
        f"Storage and computation against traffic, on {len(description['placement'])} equal workers"
    )
    axes.grid(alpha=0.3)
    axes.legend()


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
    step = max(1, -(-len(ranked) // 25))
    axes.set_xticks(range(0, len(ranked), step), ranked[::step], rotation=90, fontsize=7)
    axes.set_xlabel("tasks, in the order of their single-task score")
    axes.set_ylabel(f"test {name}")
    better = "higher" if metrics["higher_is_better"] else "lower"
    axes.set_title(f"Test {name} of each task ({better} is better)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)


def _draw_curve(pair: Sequence[Axes], report: dict[str, Any]) -> None:
    """The mean test metric after some of the rounds, with what one gets without coupling as lines."""
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
        # Much happens in the first rounds, and little, but of interest, in hundreds of others.
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(unit)
        axes.set_title(f"{name} against {over}")
        axes.grid(alpha=0.3)


def _draw_structure(figure: Figure, axes: Axes, model: SavedModel | None) -> None:
    """What the coupling acts on, in the way that it does: singular values, features, or pairs of tasks."""
    if model is None:
        axes.set_axis_off()
        return
    coupling = "none" if model.settings is None else model.settings.coupling
    W = model.models.coef_.astype(np.float64)
    if coupling in ("nuclear", "covariance", "sparse-low-rank"):
        _draw_spectrum(axes, low_rank_part(W) if coupling == "sparse-low-rank" else spectrum(W), coupling)
    elif coupling in ("l21", "mean"):
        _draw_features(axes, feature_norms(W), model.features, coupling)
    else:
        _draw_similarity(figure, axes, W, model.models.tasks, coupling)


def _draw_spectrum(axes: Axes, found: Spectrum, coupling: str) -> None:
    shown = found.values[: max(found.count, 1)]
    axes.bar(range(1, len(shown) + 1), shown, color=CODED)
    axes.set_xlim(0.3, len(found.values) + 0.7)
    axes.set_xlabel("number of the singular value; those without a bar are 0")
    axes.set_ylabel("singular value of all models together")
    title = f"{coupling}: models of rank {found.count} of {len(found.values)}"
    axes.set_title(f"{title}\n{found.note}" if found.note else title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_features(axes: Axes, norms: Floats, names: Sequence[str], coupling: str) -> None:
    order = np.argsort(-norms, kind="stable")
    used = int(np.count_nonzero(norms > NEGLIGIBLE * norms.max()))
    axes.bar(range(len(norms)), norms[order], color=CODED)
    if len(norms) <= 40:
        axes.set_xticks(range(len(norms)), [names[f][:24] for f in order], rotation=90, fontsize=7)
    axes.set_xlabel("features, the strongest first")
    axes.set_ylabel("length of a feature's coefficients over all tasks")
    axes.set_title(f"{coupling}: {used} of {len(norms)} features are used")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_similarity(figure: Figure, axes: Axes, W: Floats, tasks: Sequence[str], coupling: str) -> None:
    rows = np.arange(0, len(tasks), -(-len(tasks) // _MOST_TASKS))
    cosines = similarity(W[rows])
    # In a chain neighbours are the structure.
    ordered = rows if coupling == "chain" else rows[order := cluster_order(cosines)]
    cosines = cosines if coupling == "chain" else cosines[np.ix_(order, order)]
    # Models that were drawn together differ in the last few percent.
    least = float(cosines.min())
    colours, low = ("RdBu_r", -1.0) if least < 0.0 else ("Blues", least)
    image = axes.imshow(cosines, colours, vmin=low, vmax=1.0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="cosine between models")
    step = -(-len(rows) // 25)
    names = [tasks[t][:24] for t in ordered][::step]
    for ticks, rotation in ((axes.set_xticks, 90), (axes.set_yticks, 0)):
        ticks(range(0, len(rows), step), names, rotation=rotation, fontsize=7)
    axes.set_title(f"{coupling}: how alike the tasks' models are")
    axes.set_xlabel("tasks, in their order" if coupling == "chain" else "tasks, similar ones together")


# What a picture can show and clustering can order in a second.
_MOST_TASKS = 1000

_KINDS = (
    ("coupled", "coupled", "D", CODED),
    ("single_task", "single-task", "o", UNCODED),
    ("pooled", "pooled (one model)", "_", BOUND),
)
_LINES = {"o": "--", "_": ":"}
