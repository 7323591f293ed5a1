"""Pictures of plans and of designed placements."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.report.delay_pictures import draw_delays
from asyncdmtl.report.pictures import (
    BOUND,
    CODED,
    MOST_NAMES,
    UNCODED,
    integer_ticks,
    make_room_for_legends,
    new_figure,
    save_figure,
    two_colours,
)
from asyncdmtl.report.units import counted, decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_plan(report: dict[str, Any], pattern: NDArray[np.bool_], path: Path, name: str) -> None:
    """Draw a placement, the zero pattern of the uplink matrix, the loads of all strategies, and delays.

    Parameters
    ----------
    report : dict
        The report that `plan_report` makes.
    pattern : bool array (R_up·P, N·P)
        True where the uplink matrix is not zero.
    path : Path
        Its ending selects the format.
    name : str
        The name of the placement file, for the headline.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    delays = report.get("delays")
    figure = new_figure(15 if delays is None else 20, 4.6)
    placement, matrix, loads, *rest = figure.subplots(1, 3 if delays is None else 4)
    if delays is not None:
        draw_delays(rest[0], delays)
    _draw_placement(placement, report)
    matrix.imshow(pattern, cmap=two_colours(), aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    integer_ticks(matrix.xaxis)
    integer_ticks(matrix.yaxis)
    matrix.set_xlabel("packets of the coded vectors")
    matrix.set_ylabel("uplink rows, worker after worker")
    matrix.set_title(f"Uplink matrix of {report['strategy']}: where it is not zero")
    _draw_strategies(loads, report)
    own = report["strategies"][report["strategy"]]
    figure.suptitle(f"{name}: {report['strategy']}, {_headline(report, own)}")
    make_room_for_legends(figure)
    save_figure(figure, path)


def plot_design(report: dict[str, Any], path: Path) -> None:
    """Draw a designed placement, and the loads for more or fewer copies.

    Parameters
    ----------
    report : dict
        The report that `design_report` makes and `asyncdmtl place --json` prints.
    path : Path
        Its ending selects the format.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    figure = new_figure(13, 4.6)
    placement, loads = figure.subplots(1, 2)
    _draw_placement(placement, report)
    _draw_trade_off(loads, report)
    figure.suptitle(_headline(report, report))
    make_room_for_legends(figure)
    save_figure(figure, path)


def _headline(report: dict[str, Any], loads: dict[str, Any]) -> str:
    """The numbers of workers, partitions and copies of a placement, and its loads."""
    workers, partitions = len(report["placement"]), len(report["partitions"])
    stored = sum(map(len, report["placement"].values()))
    copies, up, down = map(
        decimal, (str(Fraction(stored, partitions)), loads["uplink_load"], loads["downlink_load"])
    )
    counts = f"{counted(workers, 'worker')}, {counted(partitions, 'partition')}, {counted(copies, 'copy')}"
    return f"{counts}; vectors per round: uplink {up}, downlink {down}"


def _draw_placement(axes: Axes, report: dict[str, Any]) -> None:
    partitions = report["partitions"]
    stored = [[part in set(held) for part in partitions] for held in report["placement"].values()]
    axes.imshow(stored, cmap=two_colours(), aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    for ticks, names in ((axes.set_yticks, list(report["placement"])), (axes.set_xticks, partitions)):
        step = -(-len(names) // MOST_NAMES)
        ticks(range(0, len(names), step), names[::step], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set_title("Placement: partitions that each worker stores")


def _draw_strategies(axes: Axes, report: dict[str, Any]) -> None:
    strategies = report["strategies"]
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
    axes.legend(fontsize=8, ncols=2, loc="upper center")


def _draw_trade_off(axes: Axes, report: dict[str, Any]) -> None:
    rows = report["trade_off"]
    copies = [row["copies"] for row in rows]
    series = (
        ("uncoded_uplink", "uncoded, up and down alike", UNCODED, "s--"),
        ("uplink_load", "uplink", CODED, "o-"),
        ("downlink_load", "downlink, broadcast", BOUND, "D-"),
    )
    for key, label, colour, style in series:
        axes.plot(copies, [float(Fraction(row[key])) for row in rows], style, color=colour, label=label, ms=4)
    own = float(Fraction(report["copies"]))
    # Markers have two sizes, so that both are visible where they coincide.
    for key, colour, size in (("uplink_load", CODED, 20), ("downlink_load", BOUND, 11)):
        load = float(Fraction(report[key]))
        axes.plot(own, load, "*", color=colour, ms=size, markeredgecolor="black", zorder=3)
    axes.plot([], [], "k*", ms=10, label="the placement on the left")
    axes.set_xlabel("copies of each partition: what is stored and computed, in multiples of the data")
    axes.set_ylabel("vectors per round")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Storage and computation against traffic, on {len(report['placement'])} equal workers")
    integer_ticks(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", ncols=2, fontsize=8)
