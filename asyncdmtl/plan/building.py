"""Builds a plan, its matrices and deliveries, from its parameters; both ends build the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from itertools import compress

import numpy as np

from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.codes.matrices import Delivery
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.units import Units, whole_holders


def build_plan(parameters: PlanParameters) -> Plan:
    """The plan with these parameters; whether every worker can decode is not checked here."""
    units, P, seed = parameters.units, parameters.subpackets, parameters.seed
    tasks, named = max(parameters.tasks) + 1, parameters.matrices
    if parameters.senders:
        E = matrices.plain_uplink(parameters.senders, P)
    else:
        E = matrices.coded_uplink(units.blocks, parameters.uplink_rows, P, seed, parameters.redrawn, named)
    if parameters.strategy == "relay":
        deliveries = _without_helpers(_missing(units, P), parameters)
        D = matrices.coded_downlink(_most_rows(deliveries), len(E), seed, parameters.last_row, named)
    elif parameters.strategy == "central":
        deliveries = _without_helpers(_missing_tasks(parameters, P), parameters)
        D = matrices.coded_downlink(_most_rows(deliveries), tasks * P, seed, parameters.last_row, named)
    elif parameters.strategy == "personal":
        wanted = wanted_models(parameters.placement, parameters.tasks, parameters.helpers)
        sent = sorted(set().union(*wanted))
        row = {task: i for i, task in enumerate(sent)}
        deliveries = tuple(Delivery(tuple(row[task] for task in own), own, ()) for own in wanted)
        D = np.eye(tasks, dtype=np.uint8)[sent]
    else:
        down = forwarded(parameters.placement, parameters.helpers)
        place = {n: i for i, n in enumerate(down)}
        each = [() if k in parameters.helpers else own for k, own in enumerate(_each_missing(units))]
        deliveries = tuple(Delivery(tuple(place[n] for n in missing), missing, ()) for missing in each)
        D = E.T[list(down)]
    deliveries = _with_replaced_rows(deliveries, parameters.replaced)
    given = {field.name: getattr(parameters, field.name) for field in fields(PlanParameters)}
    return Plan(**given, uplink_matrix=E, downlink_matrix=D, deliveries=deliveries)


def wanted_models(
    placement: Placement, tasks: Sequence[int], helpers: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """The tasks whose models each worker is sent under `personal`: those that it stores data of, or none."""
    return [
        () if k in helpers else tuple(sorted({tasks[n] for n in stored}))
        for k, stored in enumerate(placement.stored)
    ]


def forwarded(placement: Placement, helpers: Collection[int] = ()) -> tuple[int, ...]:
    """The partitions whose updates go down under `uncoded`: all but those that only `helpers` lack."""
    wanting = set(range(len(placement.workers))) - set(helpers)
    return tuple(n for n, H in enumerate(placement.holders) if not helpers or not wanting.issubset(H))


def _each_missing(units: Units) -> list[tuple[int, ...]]:
    """The units that each worker lacks, ascending."""
    everything = tuple(range(len(units.holders)))
    missing = []
    for own in units.held:
        lacks = np.ones(len(everything), dtype=np.bool_)
        lacks[list(own)] = False
        # Tuples that share the integers of `everything` take a fifth of the memory of new ones.
        missing.append(tuple(compress(everything, lacks.tobytes())))
    return missing


def _without_helpers(deliveries: Sequence[Delivery], parameters: PlanParameters) -> tuple[Delivery, ...]:
    """The deliveries, with empty ones for workers that want nothing."""
    helpers = set(parameters.helpers)
    return tuple(
        Delivery((), (), delivery.known) if k in helpers else delivery
        for k, delivery in enumerate(deliveries)
    )


def _most_rows(deliveries: Sequence[Delivery]) -> int:
    return max(len(delivery.rows) for delivery in deliveries)


def _missing(units: Units, subpackets: int) -> tuple[Delivery, ...]:
    """Each worker is sent the first rows, as many as it lacks packets (other rows would serve as well)."""
    # Slices of one tuple share its integers: for 1,000 workers they take 80 MB instead of 400 MB.
    rows = tuple(range(len(units.holders) // units.merged * subpackets))
    return tuple(
        Delivery(rows[: len(missing) // units.merged * subpackets], missing, held)
        for missing, held in zip(_each_missing(units), units.held, strict=True)
    )


def _missing_tasks(parameters: PlanParameters, subpackets: int) -> tuple[Delivery, ...]:
    """Every worker computes the aggregates of the tasks that it stores whole, and is sent the others."""
    whole: list[list[int]] = [[] for _ in parameters.placement.workers]
    holders = whole_holders(parameters.placement, parameters.tasks)
    for task, workers in enumerate(holders):
        for k in workers:
            whole[k].append(task)
    deliveries = []
    for known in map(set, whole):
        wanted = tuple(task for task in range(len(holders)) if task not in known)
        deliveries.append(Delivery(tuple(range(len(wanted) * subpackets)), wanted, tuple(sorted(known))))
    return tuple(deliveries)


def _with_replaced_rows(
    deliveries: tuple[Delivery, ...], replaced: Sequence[tuple[int, int]]
) -> tuple[Delivery, ...]:
    """The deliveries with another last row for some workers."""
    changed = list(deliveries)
    for worker, row in replaced:
        before = changed[worker]
        if before.rows:
            changed[worker] = Delivery((*before.rows[:-1], row), before.wanted, before.known)
    return tuple(changed)
