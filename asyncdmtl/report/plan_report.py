"""The report of `asyncdmtl plan`: loads of every strategy, their bounds with proofs, and the plan."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.building import wanted_models
from asyncdmtl.plan.compare import Candidate, relay_limit_in_words
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.rates.bounds import certificate_value
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.demands import Demands
from asyncdmtl.plan.rates.job import job_bound, job_downlink_bound
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.round_time import time_of_round
from asyncdmtl.plan.units import UnitKind, summed_partitions
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_units
from asyncdmtl.plan.validation import helpers_of

PlanReport = dict[str, Any]


def linear_candidate(
    request: PlanRequest,
    combinations: int | None = None,
    silent: int = 0,
    seed: int = 0,
    prices: Sequence[Fraction] | None = None,
) -> Candidate:
    """Loads of the strategy "linear", under which workers learn only linear combinations of the updates.

    Parameters
    ----------
    request : PlanRequest
    combinations : int or None
        The number of generic combinations that every worker wants; None for the mean update of each task.
    silent : int
        Workers that may stay silent.
    seed : int
        The seed of the generic combinations and of the plan's matrices.
    prices : sequence of K Fractions, or None
        The price of an uplink vector of each worker; None for 1 each.

    Raises
    ------
    UsageError
        `combinations` is below 1.
    """
    N = len(request.placement.partitions)
    if combinations is None:
        target = np.zeros((len(request.task_names), N))
        target[list(request.tasks), range(N)] = 1.0
        wanted = "the mean update of each task"
    else:
        if combinations < 1:
            raise UsageError("--combinations", "must be at least 1", combinations)
        target = np.random.default_rng(seed).standard_normal((combinations, N))
        wanted = f"{combinations} generic combinations of the updates"
    plan = make_linear_plan(
        request.placement, target, silent=silent, seed=seed, at_server=False, wants=request.wants
    )
    costs = prices or [Fraction(1)] * len(request.placement.workers)
    # A worker needs the leading rows of the downlink, as many as its rank; a helper needs none.
    ranks = plan.missing_ranks
    return Candidate(
        "linear",
        plan.uplink_load,
        plan.uplink_bound,
        Fraction(max(ranks)),
        Fraction(max(ranks)),
        Fraction(sum(ranks)),
        plan.subpackets,
        f"wanted by workers only: {wanted}, over the reals; gap to the bound {plan.gap}, worst condition "
        f"number {plan.condition:.3g}.",
        sum((c * R for c, R in zip(costs, plan.dimensions, strict=True)), Fraction(0)),
        sum((c * rank for c, rank in zip(costs, ranks, strict=True)), Fraction(0)),
    )


def report_strategies(
    request: PlanRequest,
    candidates: list[Candidate],
    network: Any,
    chosen: str,
    weights: dict[str, Any],
    coded: UnitKind = "tasks",
) -> PlanReport:
    """Loads and bounds, which follow from a placement without matrices; plain JSON types, fractions as
    strings.

    Parameters
    ----------
    request : PlanRequest
    candidates : list of Candidate
        The strategies to compare.
    network : str
        One of `NETWORKS`, by which the downlink travels.
    chosen : str
        The strategy that is planned.
    weights : dict
        `prices` or `speeds` of the workers, if cost or time is minimised instead of the load.
    coded : "updates", "tasks" or "sums"
        The vectors that may be coded, as for `make_plan`.
    """
    placement, tasks = request.placement, request.tasks
    helpers = helpers_of(placement, request.wants)
    units = choose_units(placement, tasks, "relay", UplinkWishes(helpers=helpers, units=coded, **weights))
    # Groups of workers prove the uplink's bound only if every worker wants models.
    own = "own" in (request.wants or ())
    groups = () if helpers or own else uplink_optimum(units.blocks).certificate
    # Workers that want the models of their own tasks only leave the steps to the server.
    job = job_bound(placement, tasks, at_server=own, helpers=helpers)
    models = set().union(*wanted_models(placement, tasks, helpers))
    ranked = sorted(candidates, key=lambda candidate: candidate.cost(network))
    return {
        "placement": placement.as_dict(),
        "partitions": list(placement.partitions),
        "tasks": {
            name: [
                part for part, owner in zip(placement.partitions, request.tasks, strict=True) if owner == t
            ]
            for t, name in enumerate(request.task_names)
        },
        "network": network,
        "strategy": chosen,
        "priced": "prices" in weights,
        "helpers": _named(placement, helpers),
        "certificate": [_named(placement, block) for block in groups],
        "certificate_value": str(certificate_value(units.blocks, groups)) if len(groups) > 1 else "0",
        "certificate_in_words": candidates[0].limits
        if own
        else relay_limit_in_words(placement, units, helpers),
        "aggregated": [request.task_names[t] for t in units.aggregated],
        "sums": summed_partitions(placement, tasks, units.sums),
        "job_bound": {
            "uplink": str(job.load),
            "downlink": len(models) if own else job_downlink_bound(placement, tasks, helpers),
            "certificate": [
                {"workers": _named(placement, cut), "multiplier": str(y)} for cut, y in job.certificate
            ],
            "complete": job.complete,
        },
        **_weighted_bound(placement, units.blocks, weights, helpers),
        "strategies": {
            candidate.strategy: {
                "uplink_load": str(candidate.uplink_load),
                "uplink_bound": str(candidate.uplink_bound),
                "downlink_load": str(candidate.downlink_load),
                "downlink_bound": str(candidate.downlink_bound),
                "unicast_load": str(candidate.unicast_load),
                "subpackets": candidate.subpackets,
                "overhead": str(candidate.overhead),
                "cost": str(candidate.cost(network)),
                "limits": candidate.limits,
            }
            for candidate in candidates
        },
        "cheapest": [candidate.strategy for candidate in ranked],
    }


def report_plan(plan: Plan) -> PlanReport:
    """The part of the report about the plan: its loads, bounds, subpacketization, seed and digest."""
    rows = zip(plan.placement.workers, plan.uplink_rows, strict=True)
    return {
        "uplink_load": str(plan.uplink_load),
        "uplink_bound": str(plan.uplink_bound),
        "downlink_load": str(plan.downlink_load),
        "downlink_bound": str(plan.downlink_bound),
        "unicast_load": str(plan.wire_downlink_load),
        "subpackets": plan.subpackets,
        "uplink_loads": {worker: str(count * plan.packet_load) for worker, count in rows},
        "merged": plan.merged,
        "seed": plan.seed,
        "digest": plan.digest.hex(),
    }


def report_times(request: PlanRequest, plan: Plan) -> PlanReport:
    """The times of a round of `relay` by the speeds of the links, both directions; empty without speeds."""
    if request.directions is None or plan.strategy != "relay":
        return {}
    times = time_of_round(plan, *request.directions, server=request.server_speed)
    slowest = None if times.slowest is None else plan.placement.workers[times.slowest]
    return {
        "times": {
            "uplink": str(times.uplink),
            "downlink": str(times.downlink),
            "slowest": slowest,
            "shortest": str(max(times.uplink, times.downlink)),
            "longest": str(times.total),
        }
    }


def _weighted_bound(
    placement: Placement, coded: Placement, weights: dict[str, Any], helpers: Sequence[int]
) -> PlanReport:
    """The smallest cost or time of the uplink of `relay`, with its proof; empty if the load is minimised.

    `coded` is the placement of the coded units, with the workers of `placement`.
    """
    if "prices" in weights:
        cheap = cheapest_rates(coded, weights["prices"])
        cost, cuts = cheap.cost, cheap.certificate
        if helpers:
            cost, cuts = Demands(coded, helpers).cheapest(weights["prices"])
        proof = [{"workers": _named(placement, cut), "multiplier": str(y)} for cut, y in cuts]
        return {"cost_bound": str(cost), "cost_certificate": proof}
    if "speeds" in weights:
        if helpers:
            time, proven = Demands(coded, helpers).fastest(weights["speeds"])
            slowest = proven[0][0] if proven else ()
        else:
            fast = fastest_rates(coded, weights["speeds"])
            time, slowest = fast.time, fast.certificate
        return {"time_bound": str(time), "time_certificate": _named(placement, slowest)}
    return {}


def _named(placement: Placement, workers: Sequence[int]) -> list[str]:
    return [placement.workers[k] for k in workers]
