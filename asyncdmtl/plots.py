"""Pictures of a report."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdmtl.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CODED, BOUND, UNCODED = "#1b6ca8", "#e08e0b", "#9aa0a6"


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw loads, objective and metric side by side; the ending of `path` says the format.

    Raises
    ------
    UsageError
        The file cannot be written, or its ending is no picture format.
    """
    # Here and not above: matplotlib takes a second to import, which no other command should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    loads, objective, metric = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    _draw_loads(loads, report)
    _draw_objective(objective, report)
    _draw_metric(metric, report)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--plot", f"must be a writable file with a picture's ending ({error})", str(path)
        ) from error


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
