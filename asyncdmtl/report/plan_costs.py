"""Loads of strategies as bytes and seconds of a whole training."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

from rich.table import Table

from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import human_bytes

# Bytes of an exchanged number: those of float64, the default for data in files.
NUMBER_BYTES = 8


def predicted_costs(
    strategies: Mapping[str, Mapping[str, Any]],
    network: str,
    numbers: int,
    rounds: int,
    rate: float | None = None,
) -> dict[str, dict[str, Any]]:
    """The predicted traffic of a training at the server, for each strategy.

    Parameters
    ----------
    strategies : mapping of name to mapping
        Loads as `plan_report.report_strategies` gives them.
    network : str
        "unicast" sends every copy of a downlink vector, "multicast" each vector once.
    numbers : int
        Numbers in a vector, of `NUMBER_BYTES` each.
    rounds : int
    rate : float, optional
        Bits per second of the server's link, in each direction. The downlink of a round follows its uplink.

    Returns
    -------
    dict
        For each strategy `uplink_bytes`, `downlink_bytes` (payload, whole numbers) and `seconds`, or None
        without a rate.
    """
    down = "unicast_load" if network == "unicast" else "downlink_load"
    costs: dict[str, dict[str, Any]] = {}
    for name, row in strategies.items():
        up_bytes, down_bytes = (
            ceil(Fraction(row[key]) * numbers * NUMBER_BYTES * rounds) for key in ("uplink_load", down)
        )
        seconds = None if rate is None else 8.0 * (up_bytes + down_bytes) / rate
        costs[name] = {"uplink_bytes": up_bytes, "downlink_bytes": down_bytes, "seconds": seconds}
    return costs


def cost_table(costs: Mapping[str, Mapping[str, Any]], chosen: str) -> Table:
    """The costs as a table, with the change against uncoded exchange if that is among the strategies."""
    table = FittedTable(title="Payload of the whole training, at the server")
    table.add_column("", no_wrap=True)
    for heading in ("up", "down", "together", "seconds", "beside uncoded"):
        table.add_column(heading, justify="right", overflow="fold")
    uncoded = costs.get("uncoded")
    for name, row in costs.items():
        total = row["uplink_bytes"] + row["downlink_bytes"]
        table.add_row(
            f"→ {name}" if name == chosen else f"  {name}",
            human_bytes(row["uplink_bytes"]),
            human_bytes(row["downlink_bytes"]),
            human_bytes(total),
            "-" if row["seconds"] is None else f"{row['seconds']:.3g}",
            _change(total, uncoded),
        )
    return table


def _change(total: int, uncoded: Mapping[str, Any] | None) -> str:
    if uncoded is None or not (base := uncoded["uplink_bytes"] + uncoded["downlink_bytes"]):
        return "-"
    return f"{total / base - 1:+.0%}"
