"""The part of a run's report about a multicast group."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.plan.plan import Plan
from asyncdmtl.server.records import RunRecord


def wire_load(record: RunRecord) -> Fraction:
    """Vectors sent down in a round as planned: one copy for the whole group, one for each other worker."""
    plan, placement = record.plan, record.plan.placement
    if not isinstance(plan, Plan):
        return Fraction(sum(plan.missing_ranks))
    heard = () if record.multicast is None else record.multicast.listeners
    places = [placement.workers.index(name) for name in heard]
    grouped = {number for k in places for number in multicast_delivery(plan, k).rows}
    alone = [d for name, d in zip(placement.workers, plan.deliveries, strict=True) if name not in heard]
    return (len(grouped) + sum(len(delivery.rows) for delivery in alone)) * plan.packet_load


def report_multicast(record: RunRecord) -> dict[str, Any] | None:
    """The traffic to the group, in plain JSON types; None if there was no group.

    Each worker has `sent`: datagrams at first; `lost`: those of them that did not arrive; `repaired`: pieces
    of rows that needed repair; and `ranges` of rows that went to it over TCP instead. `rate` is in bits a
    second.
    """
    told = record.multicast
    if told is None:
        return None
    return {
        "group": told.group,
        "listeners": list(told.listeners),
        "reason": told.reason,
        "served_over_tcp": dict(told.served_over_tcp),
        "datagram_bytes": told.sent_bytes,
        "repair_bytes": told.repair_bytes,
        "rate": told.rate,
        "workers": {
            name: {"sent": r.sent, "lost": r.lost, "repaired": r.lacked, "ranges": r.ranges}
            for name, r in told.receptions.items()
        },
    }
