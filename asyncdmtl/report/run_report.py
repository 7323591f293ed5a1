"""The report of a run: one plain dict with stable keys, which is shown as tables, written as JSON and drawn.

Loads are fractions as strings, counted in vectors per round. Bytes are integers over the whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from asyncdmtl._version import __version__
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.field.gf256 import kernel_name
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.settings import SINGLE_TASK, Choice, Settings
from asyncdmtl.learning.statistics import Layout
from asyncdmtl.learning.updates import Forecast
from asyncdmtl.net.event_loop import loop_name
from asyncdmtl.plan.building import forwarded
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.plan.units import summed_partitions
from asyncdmtl.protocol.ledger import Entry
from asyncdmtl.report.downlink_report import report_downlink
from asyncdmtl.report.held_back import report_tests
from asyncdmtl.report.json_output import finite
from asyncdmtl.report.link_report import report_links
from asyncdmtl.report.multicast_report import report_multicast, wire_load
from asyncdmtl.report.peers_report import report_peers
from asyncdmtl.server.events import speeds_as_json
from asyncdmtl.server.records import PEER_ROWS, RunRecord

Report = dict[str, Any]

# The kinds of messages that carry coded vectors. All other kinds count as `other` in the report.
VECTOR_KINDS = ("uplink", "downlink", "repair")


def report_run(record: RunRecord) -> Report:
    """The report of a finished run as the server sees it, in plain JSON types; None stands for infinity.

    Objectives and residuals are those at the beginning of a round. `training` has those of the last round;
    None if this server made no round, because it was resumed when all rounds had been made.
    """
    plan, placement = record.plan, record.plan.placement
    rounds = len(record.rounds)
    rest = record.ledger.total(lambda entry: entry.kind not in VECTOR_KINDS)
    report: Report = {
        "asyncdmtl": __version__,
        "run": record.run,
        "strategy": plan.strategy if isinstance(plan, Plan) else "linear",
        "strategies": _candidates(record),
        "settings": record.settings.as_dict(),
        "workers": len(placement.workers),
        "tasks": len(record.problem.tasks),
        "partitions": len(placement.partitions),
        "copies": str(Fraction(sum(map(len, placement.stored)), len(placement.partitions))),
        "placement": placement.as_dict(),
        "vector": {
            "numbers": record.problem.d,
            "dtype": record.settings.dtype,
            "bytes": record.vector_bytes,
            "uncoded_bytes": record.problem.wire.length * record.problem.wire.dtype.itemsize,
            "down_bytes": record.down_vector_bytes,
            "uncoded_down_bytes": _uncoded_down_bytes(record),
            "subpackets": plan.subpackets,
            "merged": plan.merged if isinstance(plan, Plan) else 1,
        },
        "rounds": [asdict(entry) for entry in record.rounds],
        "seconds": record.seconds,
        "training": {
            "rounds": rounds,
            "update": record.problem.update,
            "max_rounds": record.problem.rounds,
            "converged": record.converged,
            "reached": _reached(record),
            **_end(record),
        },
        "updates": report_updates(record.problem.forecasts, len(record.problem.infos)),
        **_directions(record),
        "multicast": report_multicast(record),
        "peers": report_peers(record),
        "downlink_choice": report_downlink(record),
        "other": {"payload_bytes": rest[0], "framing_bytes": rest[1]},
        "links": report_links(record),
        "speeds": speeds_as_json(record.speeds),
        "late": {worker: asdict(late) for worker, late in record.late.items()},
        "certificate": _certificate(plan),
        "job_certificate": _job_certificate(plan),
        "aggregated": _aggregated(record),
        "sums": _sums(record),
        "helpers": _helpers(record),
        "incidents": [asdict(incident) for incident in record.incidents],
        "kernel": {name: asdict(count) for name, count in record.kernel.items()},
        "kernel_ledger_difference": _kernel_difference(record),
        "software": {"event_loop": loop_name(), "field_kernel": kernel_name()},
        "ledger": record.ledger.as_list(),
    }
    report["selection"] = report_selection(record.outcome, record.problem.settings)
    if report["selection"] is not None:
        report["selection"]["bytes"] = _choice_bytes(record, report)
    if record.critical_strength is not None:
        report["critical_strength"] = record.critical_strength
    if (tested := report_tests(record.problem, record.tests)) is not None:
        report["metrics"] = tested
    return dict(finite(report))


def _end(record: RunRecord) -> Report:
    """Objective and residual: at the final models if the training was solved, else of the last round."""
    if record.outcome is not None:
        return {"objective": record.outcome.objective, "residual": record.outcome.gap}
    last = record.rounds[-1] if record.rounds else None
    return {
        "objective": None if last is None else last.objective,
        "residual": None if last is None else last.residual,
    }


def _reached(record: RunRecord) -> str:
    """The point that training reached: "minimum" or "fixed point" within its tolerance, or "rounds".

    It is "precision" if the problem was solved, but float64 does not allow the tolerance.
    """
    if not record.converged:
        return "rounds"
    outcome, tolerance = record.outcome, record.settings.tolerance
    if outcome is not None and tolerance and outcome.gap > tolerance * abs(outcome.objective):
        return "precision"
    return "minimum" if record.problem.minimises else "fixed point"


def report_updates(made: Sequence[Forecast], partitions: int) -> Report:
    """The predicted traffic of each kind of update: rounds, bytes of a partition in each, cost of the run."""
    return {
        each.update: {
            "rounds": each.rounds, "bytes": each.bytes, "cost": each.cost(partitions), "reason": each.reason,
        }
        for each in made
    }  # fmt: skip


def report_selection(outcome: Outcome | None, settings: Settings) -> Report | None:
    """The results of cross-validation across the sites, for each choice; None if there was none.

    `gain` is how much smaller the held-out loss is than that of the best coupling that ties no tasks, with
    the standard error over the folds; None if none was tried, or one was chosen.
    """
    if outcome is None or not outcome.selections:
        return None
    tried = {
        name: {
            "strengths": found.strengths.tolist(),
            "mean_loss": found.means.tolist(),
            "standard_error": found.errors.tolist(),
            "losses": found.losses.tolist(),
            "best": found.strength,
            "one_standard_error": found.parsimonious,
        }
        for name, found in outcome.selections.items()
    }
    chosen = {"coupling": outcome.coupling, "strength": outcome.strength, "intercept": outcome.intercept}
    return {**chosen, "couplings": tried, "gain": _gain(outcome, settings)}


def _gain(outcome: Outcome, settings: Settings) -> Report | None:
    """The gain in held-out loss over the best training of each task alone."""
    names = {settings.name_of(choice): choice for choice in settings.choices}
    found = {name: outcome.selections[name] for name in names if name in outcome.selections}
    alone = [name for name in found if names[name].coupling in SINGLE_TASK]
    if not alone or outcome.coupling in SINGLE_TASK:
        return None
    own = found[settings.name_of(Choice(outcome.coupling, outcome.intercept))]
    best = min(alone, key=lambda name: found[name].loss)
    mean, error = own.gain_over(found[best])
    return {"over": best, "mean": mean, "standard_error": error}


def _choice_bytes(record: RunRecord, report: Report) -> Report:
    """The bytes of the choice: the payload beyond that of statistics without folds, in each direction."""
    length = record.problem.wire.length
    share = Fraction(length - Layout(record.problem.features).size, length)
    up, down = (report[key]["payload_bytes"] for key in ("uplink", "downlink_wire"))
    if strategy_of(record.plan).server_trains:
        # Models come down, and a choice does not change their length.
        down = 0
    return {"up": round(share * up), "down": round(share * down)}


def _directions(record: RunRecord) -> Report:
    """Loads and bytes: of the uplink, of a downlink that sends each row once, and of the actual downlink."""
    plan, placement = record.plan, record.plan.placement
    rounds = len(record.rounds)
    N = len(placement.partitions)
    helpers = [k for k, name in enumerate(placement.workers) if name in _helpers(record)]
    up = record.ledger.total(lambda entry: entry.kind == "uplink")
    down = record.ledger.total(lambda entry: entry.kind in ("downlink", "repair", PEER_ROWS))
    broadcast = rounds * record.broadcast_bytes

    def measured(payload: int, vector_bytes: int) -> Fraction:
        return Fraction(payload, max(rounds, 1) * vector_bytes)

    # Rows between workers are parts of vectors without the padding that codes need.
    between = record.ledger.total(lambda entry: entry.kind == PEER_ROWS)[0]
    wire = measured(down[0] - between, record.down_vector_bytes)
    wire += measured(between, _uncoded_down_bytes(record))

    return {
        "uplink": {
            "load": str(plan.uplink_load if record.peers is None or record.peers.carried else 0),
            "bound": str(plan.uplink_bound),
            "uncoded_load": str(N),
            "measured_load": str(measured(up[0], record.vector_bytes)),
            "payload_bytes": up[0],
            "framing_bytes": up[1],
        },
        "downlink_broadcast": {
            "load": str(plan.downlink_load),
            "bound": str(plan.downlink_bound),
            "uncoded_load": str(len(forwarded(placement, helpers))),
            "measured_load": str(measured(broadcast, record.down_vector_bytes)),
            "payload_bytes": broadcast,
        },
        "downlink_wire": {
            "load": str(wire_load(record)),
            "uncoded_load": str(
                sum(
                    N - len(stored)
                    for name, stored in zip(placement.workers, placement.stored, strict=True)
                    if name not in _helpers(record)
                )
            ),
            "measured_load": str(wire),
            "payload_bytes": down[0],
            "framing_bytes": down[1],
        },
    }


def _uncoded_down_bytes(record: RunRecord) -> int:
    """Bytes of a vector of the downlink: a model if the server trains, else as in the uplink."""
    if strategy_of(record.plan).server_trains:
        length, dtype = record.problem.told
        return length * dtype.itemsize
    return record.problem.wire.length * record.problem.wire.dtype.itemsize


def _certificate(plan: AnyPlan) -> list[list[str]] | None:
    """The blocks of workers that prove the bound of the coded uplink.

    None for a linear plan, and if workers want no models, for which the job's certificate is the proof.
    """
    if not isinstance(plan, Plan) or plan.helpers:
        return None
    return [[plan.placement.workers[k] for k in block] for block in plan.certificate]


def _job_certificate(plan: AnyPlan) -> list[dict[str, Any]] | None:
    """The cuts and multipliers that prove the uplink bound of the job; None for a linear plan."""
    if not isinstance(plan, Plan):
        return None
    return [
        {"workers": [plan.placement.workers[k] for k in cut], "multiplier": str(multiplier)}
        for cut, multiplier in plan.job_bound.certificate
    ]


def _helpers(record: RunRecord) -> list[str]:
    """The workers that only help: they send rows, but want no models."""
    plan = record.plan
    return [plan.placement.workers[k] for k in plan.helpers] if isinstance(plan, Plan) else []


def _aggregated(record: RunRecord) -> list[str]:
    """The tasks whose aggregates workers coded, instead of updates."""
    plan = record.plan
    return [record.problem.tasks[t] for t in plan.aggregated] if isinstance(plan, Plan) else []


def _sums(record: RunRecord) -> list[list[str]]:
    """The partitions of each sum that workers coded in place of their updates."""
    plan = record.plan
    return summed_partitions(plan.placement, plan.tasks, plan.sums) if isinstance(plan, Plan) else []


def _candidates(record: RunRecord) -> dict[str, dict[str, str]]:
    """Loads of every exact strategy for this placement, to show the cost of other choices."""
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
    """The excess of the kernel's byte counts over the ledger's, per direction; None if it does not count."""
    if len(record.kernel) < len(record.plan.placement.workers):
        return None
    counts = record.kernel.values()
    received = sum(count.received_bytes for count in counts)
    sent = sum(count.sent_bytes - count.retransmitted_bytes for count in counts)

    def own(entry: Entry) -> bool:
        return entry.worker in record.kernel and entry.kind != PEER_ROWS

    up = sum(record.ledger.total(lambda entry: own(entry) and entry.direction == "up"))
    down = sum(record.ledger.total(lambda entry: own(entry) and entry.direction == "down"))
    return {"up": received - up, "down": sent - down}
