"""Making plans: rates that meet the bounds, matrices that are checked for every worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.field import linalg
from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.codes.matrices import Delivery
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import RECIPE_VERSION, STRATEGIES, Plan, Strategy
from asyncdmtl.plan.rates.optimum import (
    cheapest_rates,
    fastest_rates,
    integral_rates,
    smallest_subpackets,
    uplink_optimum,
)
from asyncdmtl.plan.rates.senders import choose_senders
from asyncdmtl.plan.rates.stragglers import fewest_packets, responder_sets
from asyncdmtl.plan.validation import MOST, a_placement, numbered_tasks, per_worker, rational, whole_number

# A random matrix fails one worker's check with probability about 1/255, so even a hundred workers
# rarely need more than a few seeds.
ATTEMPTS = 256

# Where optimal rates have larger denominators than these, a little overhead must be allowed.
MOST_SUBPACKETS = 256

# What plans may take, at their maker and at every worker: bytes of matrices, byte operations of the rank
# checks (some ten minutes), rows that are sent to all workers together, and names in a recipe.
MOST_ENTRIES = 2**29
MOST_WORK = 10**13
MOST_DELIVERED = 2**21
MOST_NAMES = 2**14


def make_plan(
    placement: Placement,
    strategy: Strategy = "relay",
    *,
    tasks: Sequence[int] | None = None,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
    seed: int = 0,
) -> Plan:
    """The plan of least load for `placement`, checked by exact rank for every worker.

    Parameters
    ----------
    placement : Placement
    strategy : "relay", "central", "personal" or "uncoded"
        Who aggregates, and what is coded (docs/theory.md, section 2).
    tasks : sequence of int, length N, optional
        The task, counted from 0, that owns each partition. Default: each partition is a task.
    max_overhead : Fraction, default 0
        The smallest number of packets per vector is taken whose uplink exceeds the optimum by at most this
        share; 0 meets the optimum exactly.
    prices : sequence of K numbers, optional
        The uplink's cost, `Σ c_k R_k`, is minimised instead of its load.
    speeds : sequence of K numbers, optional
        `relay` minimises how long the uplink takes, `max_k R_k / b_k`.
    silent : int, default 0
        `central`: the server decodes all updates without the rows of any so many workers.
    seed : int
        Of the first random matrices that are tried.

    Raises
    ------
    UsageError
        An argument breaks its rule.
    PlanError
        No such plan exists, or none of a size that can be checked without some `max_overhead`.
    """
    placement = a_placement(placement)
    if strategy not in STRATEGIES:
        raise UsageError("strategy", f"must be one of {', '.join(STRATEGIES)}", strategy)
    owners = numbered_tasks(placement, tasks)
    overhead = rational("max_overhead", max_overhead)
    silent = whole_number("silent", silent)
    seed = whole_number("seed", seed, high=MOST - ATTEMPTS)
    subpackets, uplink_rows = plan_rates(
        placement,
        strategy,
        max_overhead=overhead,
        prices=prices,
        speeds=speeds,
        silent=silent,
    )
    senders: tuple[int, ...] = ()
    if strategy != "relay" and not silent:
        senders = choose_senders(placement, prices and per_worker("prices", prices, placement))
    _check_size(placement, subpackets, uplink_rows)
    for attempt in range(seed, seed + ATTEMPTS):
        plan = _build(placement, owners, strategy, subpackets, uplink_rows, senders, attempt, silent)
        if not matrices.undecodable(plan.combined, plan.deliveries, subpackets) and _collects(plan):
            return plan
    raise PlanError(f"no decodable matrices among {ATTEMPTS} seeds from {seed} on; this is a defect")


def plan_rates(
    placement: Placement,
    strategy: Strategy,
    *,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
) -> tuple[int, tuple[int, ...]]:
    """Packets per vector, and how many of them each worker sends up; arguments as for `make_plan`."""
    _check_combination(strategy, prices, speeds, silent)
    overhead = Fraction(max_overhead)
    if silent:
        tolerant = fewest_packets(placement, silent, overhead)
        return tolerant.subpackets, tuple(int(rate * tolerant.subpackets) for rate in tolerant.rates)
    costs = None if prices is None else per_worker("prices", prices, placement)
    if strategy != "relay":
        senders = choose_senders(placement, costs)
        return 1, tuple(senders.count(k) for k in range(len(placement.workers)))
    if costs is not None:
        cheapest = cheapest_rates(placement, costs)
        return _rounded_up(cheapest.rates, lambda rates: _dot(costs, rates), overhead)
    if speeds is not None:
        quick = per_worker("speeds", speeds, placement, positive=True)
        fastest = fastest_rates(placement, quick)
        return _rounded_up(fastest.rates, lambda rates: longest(rates, quick), overhead)
    optimum = uplink_optimum(placement)
    subpackets = smallest_subpackets(optimum, overhead)
    return subpackets, integral_rates(placement, subpackets, optimum)


def _check_size(placement: Placement, subpackets: int, uplink_rows: Sequence[int]) -> None:
    """PlanError rather than hours of waiting, where the exact optimum takes very many packets."""
    partitions = len(placement.partitions)
    missing = [subpackets * (partitions - len(stored)) for stored in placement.stored]
    columns, rows = subpackets * partitions, sum(uplink_rows)
    entries = rows * (columns + max(missing)) + max(missing) * columns
    work = sum(count**3 for count in missing)
    if entries > MOST_ENTRIES or work > MOST_WORK or sum(missing) > MOST_DELIVERED:
        raise PlanError(
            f"optimal matrices have {rows} rows and {columns} columns ({subpackets} packets per vector), "
            "too many to check: allow some max_overhead, such as 1/100"
        )


def _check_combination(strategy: Strategy, prices: object, speeds: object, silent: int) -> None:
    if prices is not None and speeds is not None:
        raise UsageError("prices and speeds", "cannot both be given", (prices, speeds))
    if speeds is not None and strategy != "relay":
        raise UsageError("speeds", "are for the strategy relay", strategy)
    if silent and strategy != "central":
        raise UsageError("silent", "is for the strategy central", strategy)
    if silent and prices is not None:
        raise UsageError("prices", "cannot be given with silent", prices)


def _rounded_up(
    rates: Sequence[Fraction], cost: Callable[[Sequence[Fraction]], Fraction], max_overhead: Fraction
) -> tuple[int, tuple[int, ...]]:
    """The fewest packets with which `rates`, rounded up, cost at most `max_overhead` more than they do.

    Rates that are rounded up stay feasible: every cut asks for at least so much. (Other optimal rates may
    do with fewer packets.)
    """
    allowed = (1 + max_overhead) * cost(rates)
    for P in range(1, MOST_SUBPACKETS + 1):
        rows = tuple(ceil(P * rate) for rate in rates)
        if cost([Fraction(count, P) for count in rows]) <= allowed:
            return P, rows
    raise PlanError(
        f"the optimal rates need more than {MOST_SUBPACKETS} packets per vector: allow some max_overhead"
    )


def _collects(plan: Plan) -> bool:
    """Whether a server that aggregates decodes all updates, whoever of those that may stay silent does."""
    if plan.broadcasts == "updates":
        return True
    E, owners = plan.uplink_matrix, np.repeat(np.arange(len(plan.uplink_rows)), plan.uplink_rows)
    return all(
        linalg.rank(E[np.isin(owners, present)]) == E.shape[1]
        for present in responder_sets(len(plan.uplink_rows), plan.silent)
    )


def _dot(prices: Sequence[Fraction], rates: Sequence[Fraction]) -> Fraction:
    return sum((Fraction(price) * rate for price, rate in zip(prices, rates, strict=True)), Fraction(0))


def longest(rates: Sequence[Fraction], speeds: Sequence[Fraction]) -> Fraction:
    """`max_k R_k / b_k`: how long the uplink takes."""
    return max(rate / Fraction(speed) for rate, speed in zip(rates, speeds, strict=True))


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
        placement = recipe_placement(recipe)
        if recipe["strategy"] not in STRATEGIES:
            raise PlanError(f"plan recipe with the unknown strategy {recipe['strategy']!r}")
        _check_recipe(recipe, placement)
        owners = numbered_tasks(placement, recipe["tasks"])
        plan = _build(
            placement,
            owners,
            recipe["strategy"],
            int(recipe["subpackets"]),
            tuple(map(int, recipe["uplink_rows"])),
            tuple(map(int, recipe["senders"])),
            int(recipe["seed"]),
            int(recipe["silent"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PlanError(f"malformed plan recipe: {error!r}") from error
    if plan.digest != digest:
        raise PlanError(f"the plan built has digest {plan.digest.hex()}, not the one announced")
    return plan


def recipe_placement(recipe: Mapping[str, Any]) -> Placement:
    """The placement in a recipe; ValueError and the like if there is none."""
    names, workers = recipe["partitions"], recipe["workers"]
    if type(names) is not list or type(workers) is not list:
        raise ValueError("partitions and workers must be lists")
    if max(len(names), len(workers)) > MOST_NAMES:
        raise ValueError(f"{len(names)} partitions and {len(workers)} workers")
    stored = [[names[whole(n, 0, len(names) - 1)] for n in indices] for indices in recipe["stored"]]
    return Placement(dict(zip(workers, stored, strict=True)), names)


def whole(value: Any, low: int, high: int) -> int:
    """`value`, if it is a whole number from `low` to `high`; else ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is no whole number from {low} to {high}")
    return value


def _check_recipe(recipe: Mapping[str, Any], placement: Placement) -> None:
    """PlanError or ValueError, before any matrix is made, if no maker would have made this plan."""
    P = whole(recipe["subpackets"], 1, max(MOST_SUBPACKETS, len(placement.workers)))
    rows = [
        whole(count, 0, len(stored) * P)
        for count, stored in zip(recipe["uplink_rows"], placement.stored, strict=True)
    ]
    whole(recipe["seed"], 0, MOST)
    silent = whole(recipe["silent"], 0, len(placement.workers) - 1)
    for task in recipe["tasks"]:
        whole(task, 0, len(placement.partitions) - 1)
    _check_combination(recipe["strategy"], None, None, silent)
    _check_size(placement, P, rows)
    senders = [whole(sender, 0, len(placement.workers) - 1) for sender in recipe["senders"]]
    if recipe["strategy"] == "relay" or silent:
        needed = (
            len(placement.partitions)
            if silent
            else len(placement.partitions) - min(map(len, placement.stored))
        )
        if senders or sum(rows) < needed * P:
            raise ValueError(f"{sum(rows)} coded rows for {needed * P} packets")
    elif P > 1 or not _hold(placement, senders) or Counter(senders) != Counter(dict(enumerate(rows))):
        raise ValueError("uncoded rows from others than holders")


def _hold(placement: Placement, senders: Sequence[int]) -> bool:
    """Whether there is a sender for each partition, which stores it."""
    return all(sender in H for sender, H in zip(senders, placement.holders, strict=True))


def _build(
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
    """Every worker is sent as many rows as it lacks packets: any that many would do, so the first."""
    return tuple(
        Delivery(tuple(range(len(missing) * subpackets)), missing, stored)
        for missing, stored in zip(_each_missing(placement), placement.stored, strict=True)
    )


def _missing_tasks(placement: Placement, tasks: tuple[int, ...], subpackets: int) -> tuple[Delivery, ...]:
    """Every worker computes the aggregates of the tasks that it stores whole, and is sent the rest."""
    owned: list[set[int]] = [set() for _ in range(max(tasks) + 1)]
    for n, task in enumerate(tasks):
        owned[task].add(n)
    deliveries = []
    for stored in placement.stored:
        whole = tuple(task for task, parts in enumerate(owned) if parts <= set(stored))
        wanted = tuple(task for task in range(len(owned)) if task not in whole)
        deliveries.append(Delivery(tuple(range(len(wanted) * subpackets)), wanted, whole))
    return tuple(deliveries)
