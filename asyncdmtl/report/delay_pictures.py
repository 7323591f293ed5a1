"""The picture of the delay of a stream of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncdmtl.plan.delay.queueing import Moments, mean_delay
from asyncdmtl.report.delay_report import SPLIT_NAMES
from asyncdmtl.report.pictures import BOUND, CODED, UNCODED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Delays beyond so many times the longest job are not drawn, since they grow without end.
LONGEST_DELAY = 8

# Points of a curve.
POINTS = 200

# Colour and style of each curve.
STYLES = {"uniform": (UNCODED, "--"), "speeds": (CODED, "-"), "silent": (BOUND, "-"), "ideal": ("black", ":")}


def draw_delays(axes: Axes, delays: Mapping[str, Any]) -> None:
    """Draw the mean delay of jobs, made one at a time, against the rate at which they arrive.

    Parameters
    ----------
    axes : Axes
    delays : mapping
        The result of `delay_report.predicted_delays`.
    """
    rows = delays["splits"]
    longest = LONGEST_DELAY * max(row["job"] for row in rows.values())
    capacities = [1 / row["job"] for name, row in rows.items() if name != "ideal" and row["job"]]
    rates = np.linspace(0, max(*capacities, delays["arrivals"]), POINTS)
    for name, row in rows.items():
        made = Moments(row["job"], row["square"])
        curve = [mean_delay(rate, made) for rate in rates]
        colour, style = STYLES[name]
        axes.plot(rates, [min(d, 2 * longest) for d in curve], style, color=colour, label=SPLIT_NAMES[name])
    axes.axvline(delays["arrivals"], color="grey", lw=0.8)
    axes.set_ylim(0, longest)
    axes.set_xlim(0, float(rates[-1]))
    axes.set_xlabel("jobs that arrive in a unit of time")
    axes.set_ylabel("mean delay, in order")
    axes.set_title("Delay of jobs made one by one")
    axes.legend(fontsize=8, loc="upper center", ncols=2)
