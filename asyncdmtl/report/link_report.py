"""The part of a report on links and workers: the cost or the time of the uplink, speeds, and late workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import Any

from asyncdmtl.plan.links import MEGABIT
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.round_time import count_ranges, time_of_round
from asyncdmtl.report.units import decimal
from asyncdmtl.server.link_speeds import speeds_both_ways
from asyncdmtl.server.records import RunRecord


def report_links(record: RunRecord) -> dict[str, Any] | None:
    """The cost or the time of a round by the links; None if nothing is known of them.

    Times are in seconds. Those of rows count the payload of coded vectors only. `rows` is the time of both
    directions (`plan.round_time`), `computing` the measured one of the slowest worker, and `planned` their
    sum. The measured time of a round is the median over the rounds.
    """
    plan = record.plan
    objective = plan.objective if isinstance(plan, Plan) else None
    if objective is not None and objective.kind == "cost":
        prices = dict(zip(plan.placement.workers, map(str, objective.weights), strict=True))
        planned, bound = str(objective.value), str(objective.bound)
        return {"kind": "cost", "prices": prices, "planned": planned, "bound": bound}
    if not isinstance(plan, Plan) or plan.strategy != "relay" or (speeds := _speeds(record)) is None:
        return None
    up, down = speeds
    ranges = count_ranges(plan, record.vector_bytes)
    times = time_of_round(plan, up, down, ranges)
    bits = Fraction(8 * record.vector_bytes, MEGABIT)
    spans = [entry.seconds for entry in record.rounds if entry.seconds]
    computing = max((record.speeds[name].computing for name in record.speeds), default=0.0)
    rows = float(times.total * bits)
    return {
        "kind": "time",
        "speeds": dict(zip(plan.placement.workers, map(str, up), strict=True)),
        "down_speeds": dict(zip(plan.placement.workers, map(str, down), strict=True)),
        "uplink": float(times.uplink * bits),
        "bound": None if objective is None else float(objective.bound * bits),
        "downlink": float(times.downlink * bits),
        "slowest": None if times.slowest is None else plan.placement.workers[times.slowest],
        "rows": rows,
        "computing": computing,
        "planned": rows + computing,
        "measured": median(spans) if spans else None,
    }


def _speeds(record: RunRecord) -> tuple[Sequence[Fraction], Sequence[Fraction]] | None:
    """The speeds of the links up and down, which were given or measured; None if some are not known."""
    workers = record.plan.placement.workers
    if record.links.speeds:
        placement = record.plan.placement
        return record.links.weights(placement)["speeds"], record.links.speeds_down(placement)
    measured = speeds_both_ways(record.speeds, workers)
    if measured is None:
        return None
    return tuple(map(_rational, measured[0])), tuple(map(_rational, measured[1]))


def _rational(speed: float) -> Fraction:
    """A measured speed with three digits."""
    return Fraction(f"{speed:.3g}")


def link_words(links: Mapping[str, Any]) -> str:
    """A sentence about the cost or the time of rounds."""
    if links["kind"] == "cost":
        return (
            f"By the prices of the links, the uplink costs {decimal(links['planned'])} a round; "
            f"no rates cost less than {decimal(links['bound'])}."
        )
    least = "" if links["bound"] is None else f" (no rates take less than {links['bound']:.3g} s)"
    slowest = "" if links["slowest"] is None else f" to {links['slowest']}"
    measured = "" if links["measured"] is None else f" Measured: {links['measured']:.3g} s (median)."
    return (
        f"By the speeds of the links, rows take {links['uplink']:.3g} s up{least} and "
        f"{links['downlink']:.3g} s down{slowest}, {links['rows']:.3g} s in all. With "
        f"{links['computing']:.3g} s of computing, a round takes {links['planned']:.3g} s.{measured}"
    )


def speed_words(speeds: Mapping[str, Mapping[str, float]]) -> str:
    """A sentence about the measured speeds of workers and links."""
    each = (
        f"{worker} computes {speed['computing']:.3g} s, link {_known(speed['up'])} up, "
        f"{_known(speed['down'])} down"
        for worker, speed in speeds.items()
    )
    return f"Measured in a round, links in Mbit/s: {'; '.join(each)}."


def _known(speed: float) -> str:
    """A speed in words; too little may have travelled to tell it."""
    return f"{speed:.3g}" if speed else "not known"


def late_words(late: Mapping[str, Mapping[str, int]], rounds: int) -> str:
    """A sentence about the workers for which some of the rounds did not wait."""
    each = (
        f"{worker} in {told['rounds']} of {rounds} ({told['ignored_bytes']} bytes came too late"
        + (f", caught up by a state {told['states']} times)" if told["states"] else ")")
        for worker, told in late.items()
    )
    return f"Rounds went on without late workers: {'; '.join(each)}."
