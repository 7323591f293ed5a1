"""From rates to a plan: the matrices and deliveries that a strategy, its rates and a seed determine."""

from __future__ import annotations

import numpy as np

from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.codes.matrices import Delivery
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan, Strategy


def build_plan(
    placement: Placement,
    tasks: tuple[int, ...],
    strategy: Strategy,
    subpackets: int,
    uplink_rows: tuple[int, ...],
    senders: tuple[int, ...],
    seed: int,
    silent: int,
) -> Plan:
    """The matrices and deliveries that the arguments determine, not yet checked."""
    if strategy == "relay":
        deliveries = _missing(placement, subpackets)
        E = matrices.coded_uplink(placement, uplink_rows, subpackets, seed)
        D = matrices.coded_downlink(_most_rows(deliveries), len(E), seed)
    elif strategy == "central":
        deliveries = _missing_tasks(placement, tasks, subpackets)
        if silent:
            E = matrices.coded_uplink(placement, uplink_rows, subpackets, seed)
        else:
            E = matrices.plain_uplink(placement, senders)
        D = matrices.coded_downlink(_most_rows(deliveries), (max(tasks) + 1) * subpackets, seed)
    elif strategy == "personal":
        hosted = [tuple(sorted({tasks[n] for n in stored})) for stored in placement.stored]
        deliveries = tuple(Delivery(own, own, ()) for own in hosted)
        E = matrices.plain_uplink(placement, senders)
        D = np.eye(max(tasks) + 1, dtype=np.uint8)
    else:
        deliveries = tuple(Delivery(missing, missing, ()) for missing in _each_missing(placement))
        E = matrices.plain_uplink(placement, senders)
        D = E.T.copy()
    for matrix in (E, D):
        matrix.flags.writeable = False
    return Plan(placement, tasks, strategy, subpackets, seed, uplink_rows, senders, E, D, deliveries, silent)


def _each_missing(placement: Placement) -> list[tuple[int, ...]]:
    return [placement.missing(k) for k in range(len(placement.workers))]


def _most_rows(deliveries: tuple[Delivery, ...]) -> int:
    return max(len(delivery.rows) for delivery in deliveries)


def _missing(placement: Placement, subpackets: int) -> tuple[Delivery, ...]:
    """Every worker is sent the first rows, as many as it lacks packets: any that many would suffice."""
    return tuple(
        Delivery(tuple(range(len(missing) * subpackets)), missing, stored)
        for missing, stored in zip(_each_missing(placement), placement.stored, strict=True)
    )


def _missing_tasks(placement: Placement, tasks: tuple[int, ...], subpackets: int) -> tuple[Delivery, ...]:
    """Every worker computes the aggregates of the tasks that it stores whole, and is sent the others."""
    owned: list[set[int]] = [set() for _ in range(max(tasks) + 1)]
    for n, task in enumerate(tasks):
        owned[task].add(n)
    deliveries = []
    for stored in placement.stored:
        whole = tuple(task for task, parts in enumerate(owned) if parts <= set(stored))
        wanted = tuple(task for task in range(len(owned)) if task not in whole)
        deliveries.append(Delivery(tuple(range(len(wanted) * subpackets)), wanted, whole))
    return tuple(deliveries)
