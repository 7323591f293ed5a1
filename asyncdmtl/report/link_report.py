"""The part of a report on links and workers: the cost or the time of the uplink, speeds, and late workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import Any

from asyncdmtl.plan.links import MEGABIT
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.round_time import (
    RoundTime,
    count_ranges,
    downlink_times,
    seconds_of_round,
    time_of_round,
    uplink_times,
)
from asyncdmtl.report.units import decimal
from asyncdmtl.server.link_speeds import speeds_both_ways
from asyncdmtl.server.records import RunRecord


def report_links(record: RunRecord) -> dict[str, Any] | None:
    """The cost or the time of a round by the links; None if nothing is known of them.

    Times are in seconds. `rows` is the time of both directions (`plan.round_time`), `computing` the measured
    one of the slowest worker, and `planned` the time of a round with the computing of each worker
    (`seconds_of_round`). The measured time of a round is the median over the rounds. Speeds that were given
    are those of links, of which vectors get `payload_share`, as headers take the rest, and on which
    acknowledgements go back; measured speeds are those of payload.
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
    times = time_of_round(plan, up, down, ranges, record.links.server)
    share, acknowledging = wire_shares(record)
    unit = 8 * record.vector_bytes / MEGABIT / share
    spans = [entry.seconds for entry in record.rounds if entry.seconds]
    computing = [
        record.speeds[name].computing if name in record.speeds else 0.0 for name in plan.placement.workers
    ]
    return {
        "kind": "time",
        "speeds": dict(zip(plan.placement.workers, map(str, up), strict=True)),
        "down_speeds": dict(zip(plan.placement.workers, map(str, down), strict=True)),
        "server_speed": None if record.links.server is None else str(record.links.server),
        "payload_share": share,
        "uplink": unit * float(times.uplink),
        "bound": None if objective is None else unit * float(objective.bound),
        "downlink": unit * float(times.downlink),
        "slowest": None if times.slowest is None else plan.placement.workers[times.slowest],
        "rows": unit * float(times.total),
        "computing": max(computing),
        "planned": _planned(plan, (up, down), times, computing, (unit, acknowledging)),
        "measured": median(spans) if spans else None,
    }


def wire_shares(record: RunRecord) -> tuple[float, float]:
    """The share of the links' speeds that is left for payload, and that of acknowledgements on the way back.

    1 and 0 if speeds are those of payload, or the kernel tells nothing.
    """
    if not record.links.speeds or record.links.learned or not record.kernel:
        return 1.0, 0.0
    counts = record.kernel.values()
    return min(count.payload_share for count in counts), max(count.acknowledging for count in counts)


def _planned(
    plan: Plan,
    speeds: tuple[Sequence[Fraction], Sequence[Fraction]],
    times: RoundTime,
    computing: Sequence[float],
    wire: tuple[float, float],
) -> float:
    """The planned seconds of a round, with computing, headers and acknowledgements.

    `wire` has the seconds of a unit of `times`, and the bytes of acknowledgements for a byte that comes.
    """
    (up, down), (unit, acknowledging) = speeds, wire
    back = [acknowledging * unit * float(time) for time in downlink_times(plan, up)]
    forth = [acknowledging * unit * float(time) for time in uplink_times(plan, down)]
    uplinks = [unit * float(time) + more for time, more in zip(uplink_times(plan, up), back, strict=True)]
    downlinks = [
        unit * float(time) + more for time, more in zip(downlink_times(plan, down), forth, strict=True)
    ]
    # The server's link may take longer than each of the workers' links.
    together = min(computing) + unit * float(times.total)
    return max(together, seconds_of_round(computing, uplinks, downlinks, times.ranges))


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
        f"{links['downlink']:.3g} s down{slowest}, {links['rows']:.3g} s in all. With up to "
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
