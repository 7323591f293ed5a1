"""The planner: it makes plans whose rates meet the bounds, and checks their matrices for every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.field import linalg
from asyncdmtl.plan.codes.decodability import undecodable
from asyncdmtl.plan.codes.matrices import ENTRIES, unit_columns
from asyncdmtl.plan.limits import check_size
from asyncdmtl.plan.mending import decodable_plan
from asyncdmtl.plan.parameters import CODED, STRATEGIES, PlanParameters, Strategy
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.rates.senders import choose_senders
from asyncdmtl.plan.rates.stragglers import responder_sets
from asyncdmtl.plan.units import UnitKind
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_rates, choose_units
from asyncdmtl.plan.validation import (
    LARGEST_WHOLE_NUMBER,
    a_placement,
    check_combination,
    helpers_of,
    numbered_tasks,
    per_worker,
    rational,
    true_or_false,
    unit_kind,
    wants_of,
    whole_number,
)

# The most seeds that are tried for decodable matrices. If a few workers cannot decode, the draw is mended, so
# that more than a few seeds are hardly ever needed.
ATTEMPTS = 256


def make_plan(
    placement: Placement,
    strategy: Strategy = "relay",
    *,
    tasks: Sequence[int] | None = None,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
    units: UnitKind = "tasks",
    wants: Mapping[str, str] | Sequence[str] | None = None,
    seed: int = 0,
    matrices: str = "random",
    merge: bool = True,
) -> Plan:
    """The plan with the smallest load for `placement`, checked exactly for every worker.

    Parameters
    ----------
    placement : Placement
    strategy : "relay", "central", "personal" or "uncoded"
        Where updates are aggregated, and what is coded (docs/theory.md, section 2).
    tasks : sequence of int, length N, optional
        The task, counted from 0, that owns each partition. Default: each partition is a task.
    max_overhead : Fraction, default 0
        The share by which the uplink may exceed the optimum, which saves packets; with 0, the plan meets the
        optimum exactly.
    prices : sequence of K numbers, optional
        `c_k`, the cost of a vector from worker `k`: `Σ c_k R_k` is minimised instead of the load.
    speeds : sequence of K numbers, optional
        `b_k`, in vectors per unit of time: `relay` minimises the time of the uplink, `max_k R_k / b_k`.
    silent : int, default 0
        Under `central` and `relay`, this number of workers, whichever, may send nothing: the rows of the
        others suffice for the server, or under `relay` for every worker.
    units : "updates", "tasks" or "sums", default "tasks"
        The vectors that may be coded, if that lowers the loads (`Plan.units`). With "tasks", tasks that a
        worker stores whole may be coded as aggregates, one vector instead of one per partition. With "sums",
        weighted sums of the updates of some consecutive partitions of a task may be coded, too, for
        aggregation by the mean (docs/planning.md). With "updates", only updates are coded.
    wants : mapping of worker name to "all", "own" or "none", or sequence of K such words, optional
        A worker that wants nothing only helps: it sends rows, but receives none. That lowers the downlink,
        and the uplink of `relay` (docs/theory.md, section 7a). "own" is for `personal`, which sends each
        worker the models of its own tasks only. Default: every worker wants all that the strategy sends.
    seed : int
        The first seed of random matrices that is tried.
    matrices : str
        How entries of the matrices are drawn: "random", or a name that was registered
        (`codes.matrices.register_matrices`).
    merge : bool, default True
        Whether units with equal holders may be coded as one longer vector where matrices are large.

    Raises
    ------
    UsageError
        An argument breaks its rule.
    PlanError
        No such plan exists, or it would be too large to be checked unless `max_overhead` permits fewer
        packets.
    """
    placement = a_placement(placement)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise UsageError("strategy", f"must be one of {', '.join(STRATEGIES)}", strategy)
    if matrices not in ENTRIES:
        raise UsageError("matrices", f"must be one of {', '.join(ENTRIES)}", matrices)
    owners = numbered_tasks(placement, tasks)
    overhead = rational("max_overhead", max_overhead)
    silent = whole_number("silent", silent)
    seed = whole_number("seed", seed, high=LARGEST_WHOLE_NUMBER - ATTEMPTS)
    check_combination(strategy, prices, speeds, silent)
    costs = None if prices is None else per_worker("prices", prices, placement)
    link_speeds = None if speeds is None else per_worker("speeds", speeds, placement, positive=True)
    helpers = helpers_of(placement, wants)
    if strategy != "personal" and "own" in wants_of(placement, wants):
        raise UsageError("wants", "can be own under the strategy personal only", strategy)
    merge = true_or_false("merge", merge)
    wishes = UplinkWishes(overhead, costs, link_speeds, silent, unit_kind(units), helpers, merge)
    coded, rates = choose_rates(choose_units(placement, owners, strategy, wishes), strategy, wishes)
    senders: tuple[int, ...] = ()
    if strategy != "relay" and not silent:
        senders = choose_senders(coded.blocks, costs)
    parameters = PlanParameters(
        placement=placement,
        tasks=owners,
        strategy=STRATEGIES[STRATEGIES.index(strategy)],
        subpackets=rates.subpackets,
        uplink_rows=rates.rows,
        seed=seed,
        senders=senders,
        silent=silent,
        helpers=helpers,
        aggregated=coded.aggregated,
        sums=coded.sums,
        merged=coded.merged,
        matrices=matrices,
    )
    check_size(parameters.units, rates.subpackets, rates.rows, coded=strategy in CODED)
    for attempt in range(seed, seed + ATTEMPTS):
        plan = decodable_plan(replace(parameters, seed=attempt))
        if plan is not None and _collects(plan) and _tolerates(plan):
            return replace(plan, objective=rates.objective)
    whose = "this is a defect" if matrices == "random" else f"with the matrices {matrices} of a plug-in"
    if silent and strategy == "relay":
        # Each worker must decode from each set of responders, and each fails with a probability of 1/255.
        whose = f"{len(placement.workers)} workers are too many for relay if any {silent} may stay silent"
    raise PlanError(f"no decodable matrices among {ATTEMPTS} seeds from {seed} on; {whose}")


def _tolerates(plan: Plan) -> bool:
    """Whether every worker of a relay decodes from the rows of every set of responders."""
    if plan.broadcasts != "updates" or not plan.silent:
        return True
    everyone, deliveries = range(len(plan.uplink_rows)), list(map(plan.in_columns, plan.deliveries))
    absent = (set(everyone) - set(some) for some in responder_sets(len(everyone), plan.silent))
    return all(not undecodable(plan.coders.combined_without(sorted(some)), deliveries) for some in absent)


def _collects(plan: Plan) -> bool:
    """Whether a server that aggregates decodes all units from every set of responders."""
    if plan.broadcasts == "updates":
        return True
    E, owners = plan.uplink_matrix, np.repeat(np.arange(len(plan.uplink_rows)), plan.uplink_rows)
    plain = unit_columns(E)
    if plain is not None and not plan.silent:
        return bool(len(np.unique(plain)) == E.shape[1])
    return all(
        linalg.rank(E[np.isin(owners, present)]) == E.shape[1]
        for present in responder_sets(len(plan.uplink_rows), plan.silent)
    )
