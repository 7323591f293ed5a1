"""What of a run went to a group, for the report."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.plan.plan import Plan
from asyncdmtl.server.records import RunRecord


def wire_load(record: RunRecord) -> Fraction:
    """Vectors sent down in a round as planned: a copy for each worker, but one for all who hear the group."""
    plan, placement = record.plan, record.plan.placement
    if not isinstance(plan, Plan):
        return Fraction(sum(plan.missing_ranks))
    heard = () if record.broadcast is None else record.broadcast.listeners
    places = [placement.workers.index(name) for name in heard]
    grouped = {number for k in places for number in multicast_delivery(plan, k).rows}
    alone = [d for name, d in zip(placement.workers, plan.deliveries, strict=True) if name not in heard]
    return Fraction(len(grouped) + sum(len(delivery.rows) for delivery in alone), plan.subpackets)


def multicast(record: RunRecord) -> dict[str, Any] | None:
    """What went to the group and what became of it, in plain JSON types; None if there was none.

    Of each worker: datagrams `sent` at first, those of them `lost`, pieces of rows that were `repaired`, and
    `ranges` that it was sent over TCP instead. `rate` is in bits a second.
    """
    told = record.broadcast
    if told is None:
        return None
    return {
        "group": told.group,
        "listeners": list(told.listeners),
        "reason": told.reason,
        "served_over_tcp": dict(told.deaf),
        "datagram_bytes": told.sent_bytes,
        "repair_bytes": told.repair_bytes,
        "rate": told.rate,
        "workers": {
            name: {"sent": r.sent, "lost": r.lost, "repaired": r.lacked, "ranges": r.ranges}
            for name, r in told.receptions.items()
        },
    }
