"""The part of a report on links and workers: the cost or the time of the uplink, speeds, and late workers."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from statistics import median
from typing import Any

from asyncdmtl.plan.links import MEGABIT
from asyncdmtl.plan.plan import Plan
from asyncdmtl.report.units import decimal
from asyncdmtl.server.records import RunRecord


def report_links(record: RunRecord) -> dict[str, Any] | None:
    """The cost or the time of the uplink in a round; None if the plan minimised its load.

    Times are in seconds. The planned ones count the payload of coded vectors only; the measured one is the
    median over the rounds, from the moment at which all workers had the round before.
    """
    objective = record.plan.objective if isinstance(record.plan, Plan) else None
    if objective is None:
        return None
    weights = dict(zip(record.plan.placement.workers, map(str, objective.weights), strict=True))
    if objective.kind == "cost":
        planned, bound = str(objective.value), str(objective.bound)
        return {"kind": "cost", "prices": weights, "planned": planned, "bound": bound}
    bits = Fraction(8 * record.vector_bytes, MEGABIT)
    spans = [entry.uplink_seconds for entry in record.rounds if entry.uplink_seconds]
    return {
        "kind": "time",
        "speeds": weights,
        "planned": float(objective.value * bits),
        "bound": float(objective.bound * bits),
        "measured": median(spans) if spans else None,
    }


def link_words(links: Mapping[str, Any]) -> str:
    """A sentence about the cost or the time of the uplink."""
    if links["kind"] == "cost":
        return (
            f"By the prices of the links, the uplink costs {decimal(links['planned'])} a round; "
            f"no rates cost less than {decimal(links['bound'])}."
        )
    measured = "" if links["measured"] is None else f" Measured: {links['measured']:.3g} s (median)."
    return (
        f"By the speeds of the links, the uplink takes {links['planned']:.3g} s a round; no rates take less "
        f"than {links['bound']:.3g} s.{measured}"
    )


def speed_words(speeds: Mapping[str, Mapping[str, float]]) -> str:
    """A sentence about the measured speeds of workers and links."""
    each = (
        f"{worker} computes {speed['computing']:.3g} s, link {speed['up']:.3g} up, {speed['down']:.3g} down"
        for worker, speed in speeds.items()
    )
    return f"Measured in a round, links in Mbit/s: {'; '.join(each)}."


def late_words(late: Mapping[str, Mapping[str, int]], rounds: int) -> str:
    """A sentence about the workers for which some of the rounds did not wait."""
    each = (
        f"{worker} in {told['rounds']} of {rounds} ({told['ignored_bytes']} bytes came too late"
        + (f", caught up by a state {told['states']} times)" if told["states"] else ")")
        for worker, told in late.items()
    )
    return f"Rounds went on without late workers: {'; '.join(each)}."
