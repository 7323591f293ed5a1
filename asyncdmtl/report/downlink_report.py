"""The parts of reports about the ways by which rows may come to workers: what each link would carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rich.table import Table

from asyncdmtl.plan.compare import Candidate
from asyncdmtl.plan.downlinks import Speeds, as_json, compare_downlinks, quickest
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.plan.units import UnitKind
from asyncdmtl.plan.uplink_choice import UplinkWishes
from asyncdmtl.plan.validation import helpers_of
from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import decimal
from asyncdmtl.server.downlink_choice import in_words
from asyncdmtl.server.records import RunRecord


def planned_downlinks(
    request: PlanRequest, candidates: Sequence[Candidate], units: UnitKind
) -> dict[str, Any]:
    """The downlinks beside each other for a placement, in plain types, and the one with the shortest round.

    Parameters
    ----------
    request : PlanRequest
    candidates : sequence of Candidate
        The strategies to choose from.
    units : "updates", "tasks" or "sums"
        The vectors that may be coded.
    """
    placement = request.placement
    speeds = Speeds.of(len(placement.workers), request.speeds, request.server_speed, request.down_speeds)
    wishes = UplinkWishes(units=units, helpers=helpers_of(placement, request.wants))
    found = compare_downlinks(placement, request.tasks, candidates, speeds, wishes)
    return {
        "chosen": quickest(found, speeds).kind,
        "by_speeds": request.speeds is not None,
        "server_speed": str(speeds.server),
        "downlinks": as_json(found, speeds, placement.workers),
    }


def downlink_table(told: Mapping[str, Any]) -> Table:
    """The table of the downlinks of a placement: vectors on links, and times."""
    table = FittedTable(title="Downlinks: vectors per round on links, of workers on the busiest")
    table.add_column("", no_wrap=True)
    table.add_column("strategy")
    for heading in ("server sends", "receives", "worker sends", "receives", "time"):
        table.add_column(heading, justify="right", overflow="fold")
    for kind, row in told["downlinks"].items():
        most = (str(max(map(Fraction, row[way].values()))) for way in ("sent", "received"))
        numbers = [row["server_sent"], row["server_received"], *most, row["time"]]
        label = f"{'→' if kind == told['chosen'] else ' '} {kind}"
        table.add_row(label, row["strategy"], *map(decimal, numbers))
    speeds = "speeds in FILE" if told["by_speeds"] else "equal speeds"
    table.caption = (
        f"→: the choice of --downlink auto, for {speeds}; the server's link has speed "
        f"{decimal(told['server_speed'])}"
    )
    return table


def report_downlink(record: RunRecord) -> dict[str, Any] | None:
    """The server's choice of a downlink, in plain types; None if it had none."""
    choice = record.downlink
    if choice is None:
        return None
    return {
        "chosen": choice.chosen.kind,
        "by_speeds": choice.told,
        "server_speed": str(choice.speeds.server),
        "downlinks": as_json(choice.possible, choice.speeds, record.plan.placement.workers),
        "refused": dict(choice.refused),
        "in_words": in_words(choice),
    }


def downlink_words(told: Mapping[str, Any]) -> str:
    """Sentences about the server's choice of a downlink, and what its busiest links carry."""
    row = told["downlinks"][told["chosen"]]
    sent, received = (max(map(Fraction, row[way].values())) for way in ("sent", "received"))
    return (
        f"Downlink {told['in_words']}. In a round the server sends {decimal(row['server_sent'])} vectors and "
        f"receives {decimal(row['server_received'])}; no worker sends more than {decimal(str(sent))} or "
        f"receives more than {decimal(str(received))}."
    )
