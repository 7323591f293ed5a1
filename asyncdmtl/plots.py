"""Pictures of runs, plans and placements."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

CODED, BOUND, UNCODED = "#1b6ca8", "#e08e0b", "#9aa0a6"


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw a run's loads, objective and metric side by side; the ending of `path` says the format.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = _figure(14, 4.2)
    loads, objective, metric = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    _draw_loads(loads, report)
    _draw_objective(objective, report)
    _draw_metric(metric, report)
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
    axes.set_title("Load")
    axes.legend()


def _draw_objective(axes: Axes, report: dict[str, Any]) -> None:
    rounds = report["rounds"]
    sent, total = [], 0
    for entry in rounds:
        sent.append(total / 1e6)
        total += entry["up_bytes"] + entry["down_bytes"]
    axes.plot(sent, [entry["objective"] for entry in rounds], color=CODED)
    axes.set_xlabel("MB on the wire, both ways")
    axes.set_ylabel("objective")
    axes.set_title(f"Training, {len(rounds)} rounds")
    axes.grid(alpha=0.3)


def _draw_metric(axes: Axes, report: dict[str, Any]) -> None:
    metrics = report.get("metrics")
    if metrics is None:
        axes.set_axis_off()
        return
    tasks = list(metrics["tasks"])
    for key, label, marker, colour in (
        ("single_task", "single-task", "o", UNCODED),
        ("coupled", "coupled", "D", CODED),
    ):
        values = [metrics["tasks"][task][key] for task in tasks]
        axes.plot(
            range(len(tasks)), values, marker, color=colour, label=f"{label}, mean {metrics['mean'][key]:.4f}"
        )
    # More names than fit would be unreadable.
    step = -(-len(tasks) // 15)
    axes.set_xticks(range(0, len(tasks), step), tasks[::step], rotation=45, ha="right", fontsize=8)
    axes.set_title(f"Test {metrics['name']}")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
