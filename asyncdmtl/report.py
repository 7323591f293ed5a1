"""What a run was and cost: one plain dict with stable keys, shown as tables, written as JSON, drawn.

Loads are fractions as strings, counted in vectors per round; bytes are integers over the whole run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncdmtl import __version__
from asyncdmtl.command import finite
from asyncdmtl.errors import UsageError
from asyncdmtl.field.gf256 import kernel_name
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.recipes import AnyPlan
from asyncdmtl.protocol.ledger import Entry
from asyncdmtl.runtime.loop import loop_name
from asyncdmtl.runtime.records import RunRecord

Report = dict[str, Any]

ROUND_KINDS = ("uplink", "downlink")


def traffic(record: RunRecord) -> Report:
    """The report of a finished run, as the server sees it."""
    plan, placement = record.plan, record.plan.placement
    rounds = len(record.rounds)
    copies = sum(map(len, placement.stored))
    N = len(placement.partitions)
    up = record.ledger.total(lambda entry: entry.kind == "uplink")
    down = record.ledger.total(lambda entry: entry.kind == "downlink")
    rest = record.ledger.total(lambda entry: entry.kind not in ROUND_KINDS)

    wire_load = plan.wire_downlink_load if isinstance(plan, Plan) else Fraction(sum(plan.missing_ranks))

    def measured(payload: int) -> str:
        return str(Fraction(payload, rounds * record.vector_bytes))

    return {
        "asyncdmtl": __version__,
        "run": record.run,
        "strategy": plan.strategy if isinstance(plan, Plan) else "linear",
        "strategies": _candidates(record),
        "settings": record.settings.as_dict(),
        "workers": len(placement.workers),
        "tasks": len(record.problem.tasks),
        "partitions": N,
        "copies": str(Fraction(copies, N)),
        "placement": placement.as_dict(),
        "vector": {
            "numbers": record.problem.d,
            "dtype": record.settings.dtype,
            "bytes": record.vector_bytes,
            "uncoded_bytes": record.problem.d * record.problem.dtype.itemsize,
            "subpackets": plan.subpackets,
        },
        "rounds": [asdict(entry) for entry in record.rounds],
        "seconds": record.seconds,
        "uplink": {
            "load": str(plan.uplink_load),
            "bound": str(plan.uplink_bound),
            "uncoded_load": str(N),
            "measured_load": measured(up[0]),
            "payload_bytes": up[0],
            "framing_bytes": up[1],
        },
        "downlink_broadcast": {
            "load": str(plan.downlink_load),
            "bound": str(plan.downlink_bound),
            "uncoded_load": str(N),
            "measured_load": measured(rounds * record.broadcast_bytes),
            "payload_bytes": rounds * record.broadcast_bytes,
        },
        "downlink_wire": {
            "load": str(wire_load),
            "uncoded_load": str(len(placement.workers) * N - copies),
            "measured_load": measured(down[0]),
            "payload_bytes": down[0],
            "framing_bytes": down[1],
        },
        "other": {"payload_bytes": rest[0], "framing_bytes": rest[1]},
        "certificate": _certificate(plan),
        "incidents": [asdict(incident) for incident in record.incidents],
        "kernel": {name: asdict(count) for name, count in record.kernel.items()},
        "kernel_ledger_difference": _kernel_difference(record),
        "software": {"event_loop": loop_name(), "field_kernel": kernel_name()},
        "ledger": record.ledger.as_list(),
    }


def _certificate(plan: AnyPlan) -> list[list[str]] | None:
    """The partition of the workers that proves the uplink bound, by name; a linear plan has another bound."""
    if not isinstance(plan, Plan):
        return None
    return [[plan.placement.workers[k] for k in block] for block in plan.certificate]


def _candidates(record: RunRecord) -> dict[str, dict[str, str]]:
    """Loads of the exact strategies for this placement, to see what another choice would have cost."""
    return {
        candidate.strategy: {
            "uplink_load": str(candidate.uplink_load),
            "downlink_load": str(candidate.downlink_load),
            "unicast_load": str(candidate.unicast_load),
            "unicast_cost": str(candidate.cost("unicast")),
            "multicast_cost": str(candidate.cost("multicast")),
        }
        for candidate in record.candidates
    }


def _kernel_difference(record: RunRecord) -> dict[str, int] | None:
    """Bytes that the kernel counted beyond the ledger's, per direction; None where it does not count."""
    if len(record.kernel) < len(record.plan.placement.workers):
        return None
    counts = record.kernel.values()
    received = sum(count.received_bytes for count in counts)
    sent = sum(count.sent_bytes - count.retransmitted_bytes for count in counts)

    def own(entry: Entry) -> bool:
        return entry.worker in record.kernel

    up = sum(record.ledger.total(lambda entry: own(entry) and entry.direction == "up"))
    down = sum(record.ledger.total(lambda entry: own(entry) and entry.direction == "down"))
    return {"up": received - up, "down": sent - down}


def write(report: Report, path: Path) -> None:
    """Write a report as JSON; UsageError if that cannot be. What is not a number (NaN) becomes null."""
    try:
        path.write_text(json.dumps(finite(report), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError("--report", f"must be writable ({error.strerror})", str(path)) from error


def show(report: Report, console: Console | None = None) -> None:
    """Print a report as a person wants to see it."""
    console = console or make_console()
    vector, plan = report["vector"], report["strategy"]
    console.print(
        f"{plan}: {report['workers']} workers, {report['tasks']} tasks in {report['partitions']} partitions, "
        f"{_decimal(report['copies'])} copies; vectors of {vector['numbers']} {vector['dtype']}"
        + (f" in {vector['subpackets']} packets" if vector["subpackets"] > 1 else "")
    )
    if "metrics" in report:
        console.print(_metric_table(report["metrics"]))
    console.print(_load_table(report))
    console.print(_byte_table(report))
    console.print(_words(report))
    console.print(f"{len(report['rounds'])} rounds in {report['seconds']:.2f} s")


def make_console() -> Console:
    """Where results are printed: as wide as the terminal, or wide enough for a file."""
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 110)


def _metric_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"Test {metrics['name']} ({'higher' if metrics['higher_is_better'] else 'lower'} is better)"
    )
    table.add_column("task")
    for heading in ("coupled", "single-task"):
        table.add_column(heading, justify="right")
    for task, row in metrics["tasks"].items():
        table.add_row(task, _metric(row["coupled"]), _metric(row["single_task"]))
    table.add_section()
    mean = metrics["mean"]
    table.add_row("mean", _metric(mean["coupled"]), _metric(mean["single_task"]))
    return table


def _load_table(report: Report) -> Table:
    table = Table(title="Load: vectors per round")
    table.add_column("")
    for heading in ("measured", "planned", "lower bound", "uncoded"):
        table.add_column(heading, justify="right")
    for name, key in _DIRECTIONS:
        part = report[key]
        table.add_row(name, part["measured_load"], part["load"], part.get("bound", "-"), part["uncoded_load"])
    return table


def _byte_table(report: Report) -> Table:
    table = Table(title="Bytes in the whole run")
    table.add_column("")
    for heading in ("payload", "framing", "uncoded payload"):
        table.add_column(heading, justify="right")
    for name, key in _DIRECTIONS:
        part = report[key]
        uncoded = _uncoded_bytes(report, part)
        framing = human(part["framing_bytes"]) if "framing_bytes" in part else "-"
        table.add_row(name, human(part["payload_bytes"]), framing, human(uncoded))
    table.add_row("joining, plan, heartbeats", "-", human(report["other"]["framing_bytes"]), "-")
    return table


_DIRECTIONS = (
    ("uplink", "uplink"),
    ("downlink, each row once (broadcast)", "downlink_broadcast"),
    ("downlink, all copies (TCP wire)", "downlink_wire"),
)


def _words(report: Report) -> str:
    """What the numbers mean, without flattering them."""
    lines = []
    up, broadcast, wire = (report[key] for _, key in _DIRECTIONS)
    lines.append(
        f"Uplink {_saving(report, up)} uncoded; a broadcast downlink {_saving(report, broadcast)} uncoded."
    )
    lines.append(
        f"TCP has no broadcast: on the wire the downlink {_saving(report, wire)} uncoded. "
        f"The price is storage and computation: every partition is held {_decimal(report['copies'])} times."
    )
    lines.append(_by_strategy(report))
    for incident in report["incidents"]:
        lines.append(f"Round {incident['round']}: worker {incident['worker']}: {incident['reason']}")
    difference = report["kernel_ledger_difference"]
    if difference is not None:
        off = f"differ by {difference['up']} B up and {difference['down']} B down from"
        verdict = off if any(difference.values()) else "agree with"
        lines.append(f"The kernel's TCP counters {verdict} all bytes counted here.")
    return "\n".join(lines)


def _by_strategy(report: Report) -> str:
    """What each strategy costs here on links without multicast, and the cheapest of them."""
    costs = {name: Fraction(row["unicast_cost"]) for name, row in report["strategies"].items()}
    listed = ", ".join(f"{name} {cost}" for name, cost in costs.items())
    return f"Vectors a round on the wire, both ways, by strategy: {listed}."


def _uncoded_bytes(report: Report, part: Mapping[str, Any]) -> int:
    """Bytes of the whole run if vectors went as they are, without coding and so without padding."""
    whole = len(report["rounds"]) * report["vector"]["uncoded_bytes"]
    return int(Fraction(part["uncoded_load"]) * whole)


def _saving(report: Report, part: Mapping[str, Any]) -> str:
    payload, uncoded = part["payload_bytes"], _uncoded_bytes(report, part)
    if payload == uncoded:
        return "costs as much as"
    if not uncoded:
        return "costs more than"
    share = abs(1 - payload / uncoded)
    return f"costs {share:.0%} {'less' if payload < uncoded else 'more'} than"


def human(count: int) -> str:
    """Bytes with a unit that a person reads: decimal multiples, three digits."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def _decimal(fraction: str) -> str:
    return f"{float(Fraction(fraction)):g}"


def _metric(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
