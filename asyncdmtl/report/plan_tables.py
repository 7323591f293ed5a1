"""The report of `asyncdmtl plan` as text."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncdmtl.learning.updates import ROUND_COST
from asyncdmtl.plan.units import sum_name
from asyncdmtl.report.console import FittedTable, make_console
from asyncdmtl.report.delay_report import delay_table
from asyncdmtl.report.downlink_report import downlink_table
from asyncdmtl.report.hierarchy_tables import show_hierarchy
from asyncdmtl.report.plan_costs import cost_table
from asyncdmtl.report.plan_report import PlanReport
from asyncdmtl.report.units import counted, human_bytes

# The most partitions of one worker that the table lists; it gives the number of the others.
MOST_LISTED = 12


def show_plan(report: PlanReport, console: Console | None = None) -> None:
    """Print a report as text, on stdout unless a console is given."""
    console = console or make_console()
    partitions = report["partitions"]
    workers = counted(len(report["placement"]), "worker")
    table = FittedTable(title=f"Placement: {workers}, {counted(len(partitions), 'partition')}")
    for heading in ("worker", "stores", "uplink"):
        table.add_column(heading, justify="right" if heading == "uplink" else "left")
    for worker, stored in report["placement"].items():
        more = f" and {len(stored) - MOST_LISTED} more" if len(stored) > MOST_LISTED else ""
        shown = " ".join(stored[:MOST_LISTED]) + more
        table.add_row(
            worker,
            f"{len(stored)}: {shown}" if stored else "nothing",
            report.get("uplink_loads", {}).get(worker, "-"),
        )
    console.print(table)
    console.print(_strategy_table(report))
    for strategy, row in report["strategies"].items():
        console.print(f"{strategy}: {row['limits']}")
    job = report["job_bound"]
    wanting = "every worker" + (f" but {', '.join(report['helpers'])}" if report["helpers"] else "")
    gets = "all models"
    if report["strategies"].keys() == {"personal"}:
        gets = "the models of its own tasks from a server that has all aggregates"
    console.print(
        f"The job: no scheme by which {wanting} gets {gets} sends less than {job['uplink']} up and "
        f"{job['downlink']} down."
    )
    if report["aggregated"]:
        shown = " ".join(report["aggregated"][:MOST_LISTED])
        others = len(report["aggregated"]) - MOST_LISTED
        shown += f" and {others} more" if others > 0 else ""
        console.print(f"A relay codes aggregates of {shown}: some worker stores each of these tasks whole.")
    if report["sums"]:
        sums = [sum_name(partitions) for partitions in report["sums"]]
        others = len(sums) - MOST_LISTED
        shown = ", ".join(sums[:MOST_LISTED]) + (f" and {others} more" if others > 0 else "")
        console.print(f"A relay codes the sums {shown}: some worker stores all partitions of each.")
    if "cost_bound" in report:
        console.print(f"A relay's uplink costs at least {report['cost_bound']}.")
    if "time_bound" in report:
        slowest = ", ".join(report["time_certificate"])
        console.print(
            f"A relay's uplink takes at least {report['time_bound']}, the time of what only {slowest} hold."
        )
    if "times" in report:
        console.print(_times(report["times"]))
    console.print(_verdict(report))
    if "downlinks" in report:
        console.print(downlink_table(report["downlinks"]))
    if "hierarchy" in report:
        show_hierarchy(report["hierarchy"], report["network"], console)
    if "costs" in report:
        console.print(cost_table(report["costs"], report["strategy"]))
    if "delays" in report:
        console.print(delay_table(report["delays"]))
    if "updates" in report:
        console.print(_update_table(report["updates"]))


def _update_table(updates: Mapping[str, Any]) -> Table:
    """The predicted traffic of each kind of update, or the reason why it is not possible."""
    table = FittedTable(title="Updates: predicted rounds and bytes to 1e-6")
    table.add_column("", overflow="fold")
    for heading in ("rounds", "vector", "uplink", "downlink (wire)"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("not here because")
    for name, each in updates.items():
        cells = (human_bytes(each[key]) for key in ("vector_bytes", "up_bytes", "down_bytes"))
        label = f"{'→' if each['chosen'] else ' '} {name}"
        table.add_row(label, str(each["rounds"]), *cells, each["reason"])
    table.caption = (
        f"→: the choice of --update auto, for which a round counts as {human_bytes(ROUND_COST)} more"
    )
    return table


def _times(times: Mapping[str, Any]) -> str:
    """What a round takes by the speeds of the links, both directions."""
    whose = "" if times["slowest"] is None else f" (the link of {times['slowest']}, whatever the rates are)"
    return (
        f"By the speeds of the links, rows take {times['uplink']} up and {times['downlink']} down{whose}. "
        f"A round takes {times['shortest']} if ranges of rows come down while others go up, and at most "
        f"{times['longest']}."
    )


def _verdict(report: PlanReport) -> str:
    """The planned strategy, and its cost beside the next best and beside uncoded exchange."""
    chosen, rivals = report["strategy"], report["strategies"]
    if chosen not in rivals:
        return f"Planned: {chosen}."
    cost = Fraction(rivals[chosen]["cost"])
    unit = "in cost" if report["priced"] else "vectors"
    words = [f"Planned: {chosen}, {cost} {unit} a round by {report['network']}"]
    others = [name for name in report["cheapest"] if name != chosen]
    for name in dict.fromkeys([*others[:1], *(name for name in others if name == "uncoded")]):
        other = Fraction(rivals[name]["cost"])
        if other:
            share = float(1 - cost / other)
            words.append(f"{abs(share):.0%} {'less' if share >= 0 else 'more'} than {name}")
    return ", ".join(words) + "."


def _strategy_table(report: PlanReport) -> Table:
    table = FittedTable(
        title="Vectors per round: up, down (each row once), copies (of what goes down, by unicast)"
    )
    headings = ("up", "bound", "down", "bound", "copies", "packets", "cost")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for strategy, row in report["strategies"].items():
        table.add_row(
            f"→ {strategy}" if strategy == report["strategy"] else f"  {strategy}",
            row["uplink_load"],
            row["uplink_bound"],
            row["downlink_load"],
            row["downlink_bound"],
            row["unicast_load"],
            str(row["subpackets"]),
            row["cost"],
        )
    return table
