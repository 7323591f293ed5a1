"""What a run was and cost: one plain dict with stable keys, shown as tables, written as JSON, drawn.

Loads are fractions as strings, counted in vectors per round; bytes are integers over the whole run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncdmtl._version import __version__
from asyncdmtl.errors import UsageError
from asyncdmtl.field.gf256 import kernel_name
from asyncdmtl.net.event_loop import loop_name
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.protocol.ledger import Entry
from asyncdmtl.report.json_output import finite
from asyncdmtl.report.multicast import multicast, wire_load
from asyncdmtl.server.records import RunRecord

Report = dict[str, Any]

ROUND_KINDS = ("uplink", "downlink", "repair")


def traffic(record: RunRecord) -> Report:
    """The report of a finished run, as the server sees it, in plain JSON types: what is infinite is None.

    Objectives and residuals are those at the beginning of a round, in `training` of the last one; None if
    this server knows of no round, since it was resumed when all had been made.
    """
    plan, placement = record.plan, record.plan.placement
    rounds = len(record.rounds)
    last = record.rounds[-1] if record.rounds else None
    copies = sum(map(len, placement.stored))
    N = len(placement.partitions)
    up = record.ledger.total(lambda entry: entry.kind == "uplink")
    down = record.ledger.total(lambda entry: entry.kind in ("downlink", "repair"))
    rest = record.ledger.total(lambda entry: entry.kind not in ROUND_KINDS)

    def measured(payload: int) -> str:
        return str(Fraction(payload, max(rounds, 1) * record.vector_bytes))

    report: Report = {
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
        "training": {
            "rounds": rounds,
            "max_rounds": record.settings.rounds,
            "converged": record.converged,
            "objective": None if last is None else last.objective,
            "residual": None if last is None else last.residual,
        },
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
            "load": str(wire_load(record)),
            "uncoded_load": str(len(placement.workers) * N - copies),
            "measured_load": measured(down[0]),
            "payload_bytes": down[0],
            "framing_bytes": down[1],
        },
        "multicast": multicast(record),
        "other": {"payload_bytes": rest[0], "framing_bytes": rest[1]},
        "certificate": _certificate(plan),
        "incidents": [asdict(incident) for incident in record.incidents],
        "kernel": {name: asdict(count) for name, count in record.kernel.items()},
        "kernel_ledger_difference": _kernel_difference(record),
        "software": {"event_loop": loop_name(), "field_kernel": kernel_name()},
        "ledger": record.ledger.as_list(),
    }
    return dict(finite(report))


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
    settings = report["settings"]
    coupling = f"coupling {settings['coupling']}, λ = {settings['strength']:.4g}"
    console.print(f"Loss {settings['loss']}, {coupling}, intercept {settings['intercept']}.")
    if "metrics" in report:
        show_metrics(report["metrics"], console)
        if advice := _advice(report["metrics"], settings):
            console.print(advice)
    console.print(_load_table(report))
    console.print(_byte_table(report))
    console.print(_words(report))
    console.print(_training_words(report))


def make_console(*, stderr: bool = False) -> Console:
    """Where results are printed: as wide as the terminal, or wide enough for a file."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 110
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def show_metrics(metrics: Mapping[str, Any], console: Console) -> None:
    """Print what `evaluation` made; of many tasks the ten that gain most and the ten that gain least."""
    kinds, tasks = list(metrics["mean"]), metrics["tasks"]
    counts = {key: words for key, words in _COUNTS.items() if all(key in row for row in tasks.values())}
    gains = _gains(metrics, "single_task") if "single_task" in kinds else {}
    better = "higher" if metrics["higher_is_better"] else "lower"
    table = Table(title=f"Test {metrics['name']} ({better} is better)")
    table.add_column("task")
    for heading in (*counts.values(), *map(_heading, kinds), *(["gain"] if gains else [])):
        table.add_column(heading, justify="right")
    shown, hidden = _best_and_worst(metrics, gains)
    for task in shown:
        if task is None:
            table.add_row("…", end_section=True)
            continue
        cells = [*(str(tasks[task][key]) for key in counts), *(_metric(tasks[task][kind]) for kind in kinds)]
        table.add_row(task, *cells, *([_gain(gains.get(task))] if gains else []))
    table.add_section()
    for name, part in _summaries(metrics):
        table.add_row(name, *["" for _ in counts], *(_metric(part[kind]) for kind in kinds))
    console.print(table)
    if gains:
        console.print(_gain_words(metrics, gains))
    if hidden:
        console.print(f"{hidden} tasks are not shown; the report in JSON has all.")


_COUNTS = {"rows": "trained on", "test_rows": "tested on"}
_SHOWN = 20


def _heading(kind: str) -> str:
    return kind.replace("_", "-")


def _gains(metrics: Mapping[str, Any], over: str) -> dict[str, float]:
    """By how much coupling does better on each task that can be compared."""
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    pairs = {task: (row["coupled"], row[over]) for task, row in metrics["tasks"].items()}
    return {task: sign * (a - b) for task, (a, b) in pairs.items() if a is not None and b is not None}


def _best_and_worst(metrics: Mapping[str, Any], gains: Mapping[str, float]) -> tuple[list[str | None], int]:
    """Tasks to show, None where some are left out, and how many these are."""
    tasks = list(metrics["tasks"])
    if len(tasks) <= _SHOWN:
        return list(tasks), 0
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    scored = {task: row["coupled"] for task, row in metrics["tasks"].items() if row["coupled"] is not None}
    ranked = sorted(gains or scored, key=lambda task: -(gains[task] if gains else sign * scored[task]))
    if len(ranked) <= _SHOWN:
        return list(ranked), len(tasks) - len(ranked)
    half = _SHOWN // 2
    return [*ranked[:half], None, *ranked[-half:]], len(tasks) - _SHOWN


def _summaries(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    """Lines below the tasks: name, and a score for each kind of models."""
    yield "mean over tasks", metrics["mean"]
    if "all_rows" in metrics:
        yield "all rows together", metrics["all_rows"]
    if also := metrics.get("also"):
        yield f"{also['name']}, mean over tasks", also["mean"]
        yield f"{also['name']}, all rows together", also["all_rows"]


def _gain_words(metrics: Mapping[str, Any], gains: Mapping[str, float]) -> str:
    won = [f"than single-task on {sum(gain > 0.0 for gain in gains.values())} of {len(gains)} tasks"]
    if "pooled" in metrics["mean"]:
        others = _gains(metrics, "pooled")
        won.append(f"than pooled on {sum(gain > 0.0 for gain in others.values())} of {len(others)}")
    return f"Coupled training is better {', '.join(won)}."


def _advice(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What to try where one model for all does better, by every mean, than this coupling of many; or ""."""
    sign = 1.0 if metrics["higher_is_better"] else -1.0
    pairs = [(part.get("pooled"), part["coupled"]) for part in (metrics["mean"], metrics["all_rows"])]
    if any(None in pair or sign * (pair[0] - pair[1]) <= 0.0 for pair in pairs):
        return ""
    free = settings["intercept"] == "free"
    options = ["--coupling mean-regularised"] if settings["coupling"] != "mean-regularised" else []
    options += ["--intercept penalised"] if free else []
    if not options:
        return "One model for all does better here (--coupling mean)."
    return f"One model for all does better here. Try what is nearer to it: {', with '.join(options)}."


def _training_words(report: Report) -> str:
    """How training ended."""
    training, settings = report["training"], report["settings"]
    value = report.get("metrics", {}).get("objective", training["objective"])
    words = f"{training['rounds']} rounds in {report['seconds']:.2f} s"
    if value is None:
        return words
    words += f"; objective {value:.6g}"
    if not settings["tolerance"]:
        return f"{words}."
    if not training["converged"]:
        return f"{words}; --tolerance was not reached."
    residual, last = training["residual"], training["objective"]
    if not residual or not last:
        further = "" if settings["dtype"] == "float64" else "; --dtype float64 may bring them further"
        return f"{words}; ended: the models no longer change in {settings['dtype']}{further}."
    return f"{words}; converged: by estimate within {residual / abs(last):.1g} of itself of the least."


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
    ("downlink, all copies (wire)", "downlink_wire"),
)


def _words(report: Report) -> str:
    """What the numbers mean, without flattering them."""
    lines = []
    up, broadcast, wire = (report[key] for _, key in _DIRECTIONS)
    travels = any(Fraction(part["load"]) for part in (up, wire))
    lines.append(
        f"Uplink {_saving(report, up)} uncoded; a broadcast downlink {_saving(report, broadcast)} uncoded."
        if travels
        else "No vector travels: every worker has all partitions."
    )
    if 0 < _MUCH * up["payload_bytes"] < up["framing_bytes"]:
        lines.append(_framing_words(report))
    heard = bool(report["multicast"] and report["multicast"]["listeners"])
    if travels:
        held = f"every partition is held {_decimal(report['copies'])} times"
        lines.append(
            f"{'' if heard else 'TCP has no broadcast: '}{'O' if heard else 'o'}n the wire the downlink "
            f"{_saving(report, wire)} uncoded{' over TCP' if heard else ''}. "
            f"The price is storage and computation: {held}."
        )
    if report["multicast"] is not None:
        lines.append(_multicast_words(report["multicast"]))
    lines.append(_by_strategy(report))
    for incident in report["incidents"]:
        lines.append(f"Round {incident['round']}: worker {incident['worker']}: {incident['reason']}")
    difference = report["kernel_ledger_difference"]
    if difference is not None:
        off = f"differ by {difference['up']} B up and {difference['down']} B down from"
        verdict = off if any(difference.values()) else "agree with"
        lines.append(f"The kernel's TCP counters {verdict} all bytes counted here.")
    return "\n".join(lines)


# Of the payload: framing beyond this is worth a line.
_MUCH = 0.1


def _framing_words(report: Report) -> str:
    """What coding saves of all bytes up: framing is the same without it, but for the strategy linear."""
    up = report["uplink"]
    share = up["framing_bytes"] / up["payload_bytes"]
    told = f"Vectors are small: framing is {share:.0%} of the uplink's payload"
    whole = up["payload_bytes"] + up["framing_bytes"]
    uncoded = _uncoded_bytes(report, up) + up["framing_bytes"]
    if report["strategy"] == "linear" or whole == uncoded:
        return f"{told}."
    change = "less" if whole < uncoded else "more"
    return f"{told}; with it, the uplink costs {abs(1 - whole / uncoded):.0%} {change} than uncoded."


def _multicast_words(told: Mapping[str, Any]) -> str:
    """Who heard the group, what was lost, and what that cost."""
    count = len(told["listeners"])
    words = [f"Multicast {told['group']}: {count} workers hear it; {told['reason']}."]
    counts = [sum(row[key] for row in told["workers"].values()) for key in ("sent", "lost", "repaired")]
    sent, lost, repaired = counts
    if sent:
        words.append(
            "No datagram was lost."
            if not lost
            else f"{lost} of {sent} datagrams to workers were lost ({lost / sent:.2%}), {repaired} needed "
            f"repair, which took {human(told['repair_bytes'])} of {human(told['datagram_bytes'])}; "
            f"rate {told['rate'] / 1e6:.3g} Mbit/s."
        )
    words += [f"{name} was served over TCP: {why}." for name, why in told["served_over_tcp"].items()]
    return " ".join(words)


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
    return "-" if value is None or math.isnan(value) else _fixed(value, "")


def _gain(value: float | None) -> str:
    return "-" if value is None else _fixed(value, "+")


def _fixed(value: float, sign: str) -> str:
    """Four decimals; of what is too small for these, three digits."""
    return f"{value:{sign}.4f}" if value == 0.0 or abs(value) >= 1e-3 else f"{value:{sign}.2e}"
