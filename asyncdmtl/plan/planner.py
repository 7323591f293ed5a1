"""Making plans: rates that meet the bounds, matrices that are checked for every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan import matrices
from asyncdmtl.plan.matrices import Delivery
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import RECIPE_VERSION, STRATEGIES, Plan, Strategy
from asyncdmtl.plan.rates import integral_rates, smallest_subpackets, uplink_optimum
from asyncdmtl.plan.senders import balanced_senders

# A random matrix fails one worker's check with probability about 1/255, so even a hundred workers
# rarely need more than a few seeds.
ATTEMPTS = 256


def make_plan(
    placement: Placement,
    strategy: Strategy = "relay",
    *,
    tasks: Sequence[int] | None = None,
    max_overhead: Fraction | int = 0,
    seed: int = 0,
) -> Plan:
    """The plan of least load for `placement`, checked by exact rank for every worker.

    Parameters
    ----------
    placement : Placement
    strategy : "relay", "central", "personal" or "uncoded"
        Who aggregates, and what is coded (shared/theory.md, section 2).
    tasks : sequence of int, length N, optional
        The task, counted from 0, that owns each partition. Default: each partition is a task.
    max_overhead : Fraction, default 0
        `relay` takes the smallest number of packets per vector whose uplink load exceeds the bound by at
        most this share; 0 meets the bound exactly.
    seed : int
        Of the first random matrices that are tried.

    Raises
    ------
    UsageError
        An argument breaks its rule.
    PlanError
        No matrices passed the check.
    """
    if strategy not in STRATEGIES:
        raise UsageError("strategy", f"must be one of {', '.join(STRATEGIES)}", strategy)
    if max_overhead < 0:
        raise UsageError("max_overhead", "must not be negative", max_overhead)
    owners = _checked_tasks(placement, tasks)
    if strategy == "relay":
        optimum = uplink_optimum(placement)
        subpackets = smallest_subpackets(optimum, Fraction(max_overhead))
        uplink_rows = integral_rates(placement, subpackets, optimum)
    else:
        subpackets = 1
        senders = balanced_senders(placement)
        uplink_rows = tuple(senders.count(k) for k in range(len(placement.workers)))
    for attempt in range(seed, seed + ATTEMPTS):
        plan = _build(placement, owners, strategy, subpackets, uplink_rows, attempt)
        if not matrices.undecodable(plan.combined, plan.deliveries, subpackets):
            return plan
    raise PlanError(
        f"no decodable matrices among {ATTEMPTS} seeds from {seed} on; this is a defect of asyncdmtl"
    )


def rebuild_plan(recipe: Mapping[str, Any], digest: bytes) -> Plan:
    """The plan whose `recipe()` and `digest` these are.

    Nothing is checked but the digest: the maker has checked that every worker can decode.

    Raises
    ------
    PlanError
        The recipe is malformed, of another version, or gives a plan with another digest.
    """
    try:
        if recipe["version"] != RECIPE_VERSION:
            raise PlanError(f"plan recipe of version {recipe['version']!r}, this is version {RECIPE_VERSION}")
        names = list(recipe["partitions"])
        stored = [[names[n] for n in indices] for indices in recipe["stored"]]
        placement = Placement(dict(zip(recipe["workers"], stored, strict=True)), names)
        owners = _checked_tasks(placement, recipe["tasks"])
        if recipe["strategy"] not in STRATEGIES:
            raise PlanError(f"plan recipe with the unknown strategy {recipe['strategy']!r}")
        plan = _build(
            placement,
            owners,
            recipe["strategy"],
            int(recipe["subpackets"]),
            tuple(map(int, recipe["uplink_rows"])),
            int(recipe["seed"]),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PlanError(f"malformed plan recipe: {error!r}") from error
    if plan.digest != digest:
        raise PlanError(f"the plan built has digest {plan.digest.hex()}, the one announced {digest.hex()}")
    return plan


def _checked_tasks(placement: Placement, tasks: Sequence[int] | None) -> tuple[int, ...]:
    partitions = len(placement.partitions)
    if tasks is None:
        return tuple(range(partitions))
    owners = tuple(tasks)
    if len(owners) != partitions:
        raise UsageError("tasks", f"must name a task for each of {partitions} partitions", owners)
    if set(owners) != set(range(len(set(owners)))):
        raise UsageError("tasks", "must be numbered from 0 without gaps", owners)
    return owners


def _build(
    placement: Placement,
    tasks: tuple[int, ...],
    strategy: Strategy,
    subpackets: int,
    uplink_rows: tuple[int, ...],
    seed: int,
) -> Plan:
    """The matrices and deliveries that the arguments determine, not yet checked."""
    if strategy == "relay":
        deliveries = _missing(placement, subpackets)
        E = matrices.coded_uplink(placement, uplink_rows, subpackets, seed)
        D = matrices.coded_downlink(_most_rows(deliveries), len(E), seed)
    elif strategy == "central":
        deliveries = _missing_tasks(placement, tasks)
        E = matrices.plain_uplink(placement, balanced_senders(placement))
        D = matrices.coded_downlink(_most_rows(deliveries), max(tasks) + 1, seed)
    elif strategy == "personal":
        hosted = [tuple(sorted({tasks[n] for n in stored})) for stored in placement.stored]
        deliveries = tuple(Delivery(own, own, ()) for own in hosted)
        E = matrices.plain_uplink(placement, balanced_senders(placement))
        D = np.eye(max(tasks) + 1, dtype=np.uint8)
    else:
        deliveries = tuple(Delivery(missing, missing, ()) for missing in _each_missing(placement))
        E = matrices.plain_uplink(placement, balanced_senders(placement))
        D = E.T.copy()
    for matrix in (E, D):
        matrix.flags.writeable = False
    return Plan(placement, tasks, strategy, subpackets, seed, uplink_rows, E, D, deliveries)


def _each_missing(placement: Placement) -> list[tuple[int, ...]]:
    return [placement.missing(k) for k in range(len(placement.workers))]


def _most_rows(deliveries: tuple[Delivery, ...]) -> int:
    return max(len(delivery.rows) for delivery in deliveries)


def _missing(placement: Placement, subpackets: int) -> tuple[Delivery, ...]:
    """Every worker is sent as many rows as it lacks packets: any that many would do, so the first."""
    return tuple(
        Delivery(tuple(range(len(missing) * subpackets)), missing, stored)
        for missing, stored in zip(_each_missing(placement), placement.stored, strict=True)
    )


def _missing_tasks(placement: Placement, tasks: tuple[int, ...]) -> tuple[Delivery, ...]:
    """Every worker computes the aggregates of the tasks that it stores whole, and is sent the rest."""
    owned: list[set[int]] = [set() for _ in range(max(tasks) + 1)]
    for n, task in enumerate(tasks):
        owned[task].add(n)
    deliveries = []
    for stored in placement.stored:
        whole = tuple(task for task, parts in enumerate(owned) if parts <= set(stored))
        wanted = tuple(task for task in range(len(owned)) if task not in whole)
        deliveries.append(Delivery(tuple(range(len(wanted))), wanted, whole))
    return tuple(deliveries)
