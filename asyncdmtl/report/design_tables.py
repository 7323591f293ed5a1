"""The report of `asyncdmtl place` as text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rich.console import Console
from rich.table import Table

from asyncdmtl.report.console import FittedTable, make_console
from asyncdmtl.report.design_report import DesignReport
from asyncdmtl.report.units import counted, decimal

# The most characters of the picture of a worker's partitions, so that it fits beside the other columns in a
# line of 80 characters.
MOST_CELLS = 48


def show_design(report: DesignReport, console: Console | None = None) -> None:
    """Print a report as text, on stdout unless a console is given."""
    console = console or make_console()
    console.print(_store_table(report))
    console.print(_load_table(report))
    console.print(_verdict(report))
    console.print(_trade_off_table(report))


def show_hierarchy_design(report: DesignReport, console: Console | None = None) -> None:
    """Print the report of a design for a topology as text, on stdout unless a console is given."""
    console = console or make_console()
    console.print(_store_table(report))
    console.print(_load_table(report))
    console.print(_verdict(report))


def show_additions(report: DesignReport, console: Console | None = None) -> None:
    """Print the added copies as text, on stdout unless a console is given."""
    console = console or make_console()
    kinds = {"load": "the loads", "cost": "the costs", "makespan": "the times"}
    stored = report["placement"].values()
    copies = Fraction(sum(map(len, stored)), len(report["partitions"]))
    console.print(
        f"{counted(len(stored), 'worker')}, {counted(len(report['partitions']), 'partition')}, "
        f"{counted(f'{float(copies):.4g}', 'copy')} of each"
    )
    what = kinds[report["minimised"]]
    title = f"The next copies worth making, and {what} of {report['strategy']} with them"
    table = FittedTable(
        title=title if report["additions"] else f"{what[0].upper()}{what[1:]} of {report['strategy']}"
    )
    for heading, justify in (
        ("worker", "left"),
        ("partition", "left"),
        ("uplink", "right"),
        ("downlink", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_row("as it is", "", report["uplink_load"], report["downlink_load"], end_section=True)
    for added in report["additions"]:
        table.add_row(added["worker"], added["partition"], added["uplink_load"], added["downlink_load"])
    console.print(table)
    if all(len(own) == len(report["partitions"]) for own in stored):
        console.print("Every worker stores all partitions: there is no copy to add.")


def _store_table(report: DesignReport) -> Table:
    partitions = report["partitions"]
    N = len(partitions)
    per_cell = -(-N // MOST_CELLS)
    each = "a cell is a partition" if per_cell == 1 else f"a cell is {per_cell} partitions, darker if stored"
    table = FittedTable(
        title=f"{counted(N, 'partition')}, {counted(decimal(report['copies']), 'copy')} of each",
        caption=f"{partitions[0]} to {partitions[-1]}: {each}",
    )
    for heading, justify in (("worker", "left"), ("stores", "right"), ("uplink", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("stored partitions", no_wrap=True)
    for worker, stored in report["placement"].items():
        table.add_row(
            worker,
            f"{len(stored)} of {report['capacities'][worker]}",
            report["uplink_loads"].get(worker, ""),
            _cells(set(stored), partitions, per_cell),
        )
    for relay, stored in report.get("stored", {}).items():
        if relay in report["relays"]:
            cells = _cells(set(stored), partitions, per_cell)
            table.add_row(f"relay {relay}", str(len(stored)), report["uplink_loads"][relay], cells)
    return table


def _cells(stored: set[str], partitions: Sequence[str], per_cell: int) -> str:
    cells = []
    for first in range(0, len(partitions), per_cell):
        cell = partitions[first : first + per_cell]
        held = sum(name in stored for name in cell)
        # Rounded up, so that a single stored partition is visible.
        cells.append("·░▒▓█"[-(-4 * held // len(cell))])
    return "".join(cells)


def _load_table(report: DesignReport) -> Table:
    hierarchy = "relays" in report
    where = ", between relays and server" if hierarchy else ""
    table = FittedTable(title=f"Load of relay{where}: vectors per round")
    table.add_column("", overflow="fold")
    flat = ["designed for a star"] if hierarchy else []
    for heading in ("this placement", "least of all placements", *flat, "uncoded"):
        table.add_column(heading, justify="right", overflow="fold")
    uncoded = report["uncoded_load"]
    for name, key in (("uplink", "uplink"), ("downlink, broadcast", "downlink")):
        without = [report[f"flat_{key}_load"]] if hierarchy else []
        table.add_row(name, report[f"{key}_load"], f"≥ {report[f'{key}_bound']}", *without, uncoded)
    if times := report["times"]:
        table.add_section()
        for key in ("uplink", "downlink"):
            table.add_row(f"time of the {key}", times[key], f"≥ {times[f'{key}_bound']}", "-")
    return table


def _verdict(report: DesignReport) -> str:
    what = "load" if report["times"] is None else "time"
    if report["optimal"]:
        return f"Optimal: no placement with this storage has a smaller total {what}."
    gap = Fraction(report["gap"])
    return (
        f"The total {what} is {float(gap):.3g} above what is known to be needed; "
        "whether any placement with this storage does better is open."
    )


def _trade_off_table(report: DesignReport) -> Table:
    table = FittedTable(
        title=f"Storage and computation against traffic, on {len(report['placement'])} equal workers"
    )
    for heading in (
        "copies",
        "stored",
        "computed",
        "uplink",
        "bound",
        "downlink",
        "uncoded up, down",
        "unicast down",
    ):
        table.add_column(heading, justify="right", overflow="fold")
    for row in report["trade_off"]:
        table.add_row(
            str(row["copies"]),
            str(row["storage"]),
            str(row["computation"]),
            row["uplink_load"],
            row["uplink_bound"],
            row["downlink_load"],
            f"{row['uncoded_uplink']}, {row['uncoded_downlink']}",
            str(row["unicast_downlink"]),
        )
    table.caption = "stored: partitions a worker; computed: updates a round by all; the rest: vectors a round"
    return table
