"""Linear targets: making checked plans, and other plans with the same loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.linear.matrices import Downlink, build_downlink
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.targets import Target, cut_bound, packet_columns
from asyncdmtl.plan.linear.uplink import (
    Uplink,
    WantedTarget,
    cheapest_uplink,
    fewest_subpackets,
    find_uplink,
    uplink_with_load,
)
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.stragglers import check_copies, responder_sets
from asyncdmtl.plan.validation import (
    a_placement,
    helpers_of,
    rational,
    true_or_false,
    wants_of,
    whole_number,
)

# The most packets per vector of a linear plan: the size of the systems grows with their square.
MOST_LINEAR_SUBPACKETS = 4096


def make_linear_plan(
    placement: Placement,
    target: NDArray[np.float64],
    *,
    silent: int = 0,
    seed: int = 0,
    subpackets: int | None = None,
    max_overhead: float | Fraction | None = None,
    at_server: bool = True,
    wants: Mapping[str, str] | Sequence[str] | None = None,
) -> LinearPlan:
    """A checked plan for the target `A`.

    Parameters
    ----------
    placement : Placement
    target : (C, N) real matrix
        Columns are in the order of `placement.partitions`. `A` may have any rank, and zero or repeated
        columns.
    silent : int
        The server decodes from any K − `silent` workers.
    seed : int
        The seed of all random choices. LAPACK's last digits differ between machines, so one side makes the
        plan and sends its matrices.
    subpackets : int, optional
        P. Default: 1, or a few packets (at most `MOST_DEFAULT_SUBPACKETS`) if they lower the load.
    max_overhead : float or Fraction, optional
        Choose the smallest P, up to `MOST_TRIED_SUBPACKETS`, whose bound exceeds `fractional_bound` by at
        most this share; `subpackets` is then ignored.
    at_server : bool, default True
        Whether the server needs `A·V`, too. With False only workers do, which lowers the uplink if every
        worker stores enough: for all of 4 updates (`A` the identity) with 3 at each worker from 4 to 4/3.
    wants : mapping of worker name to "all" or "none", or sequence of K such words, optional
        A worker that wants "none" needs no rows of the broadcast. If only workers need the target, that may
        lower the uplink, too (docs/theory.md, section 7a). Default: every worker wants the target.

    Raises
    ------
    UsageError
        An argument breaks a rule, or there are too many sets of responders to check.
    PlacementError
        A partition has at most `silent` holders.
    """
    placement = a_placement(placement)
    A = _check_target(placement, target)
    silent, seed = whole_number("silent", silent), whole_number("seed", seed)
    if subpackets is not None:
        subpackets = whole_number("subpackets", subpackets, 1, MOST_LINEAR_SUBPACKETS)
    if max_overhead is not None:
        max_overhead = rational("max_overhead", max_overhead)
    at_server = true_or_false("at_server", at_server)
    if "own" in wants_of(placement, wants):
        raise UsageError("wants", "must be all or none for a linear target", wants)
    helpers = helpers_of(placement, wants)
    check_copies(placement, silent)
    # The matrices are small, so that BLAS threads would mostly wait for each other.
    with single_threaded():
        wanted, downlink = _wanted(placement, A, silent, seed, at_server, helpers)
        if max_overhead is not None:
            subpackets = fewest_subpackets(wanted, Fraction(max_overhead))
        uplink = cheapest_uplink(wanted) if subpackets is None else find_uplink(wanted, subpackets)
        return _checked_plan(A, wanted, uplink, downlink, helpers)


def redrawn_plan(plan: LinearPlan, seed: int) -> LinearPlan | None:
    """A plan for the same target with the same loads from another seed, in a small part of the time.

    Parameters
    ----------
    plan : LinearPlan
        A plan that all workers want.
    seed : int
        As that of `make_linear_plan`.

    Returns
    -------
    LinearPlan or None
        None if this seed finds no uplink with the load of `plan`.
    """
    at_server = plan.solved is plan.target
    with single_threaded():
        wanted, downlink = _wanted(plan.placement, plan.target, plan.silent, seed, at_server, ())
        uplink = uplink_with_load(wanted, plan.subpackets, plan.uplink_load)
        return None if uplink is None else _checked_plan(plan.target, wanted, uplink, downlink, ())


def _wanted(
    placement: Placement, A: Floats, silent: int, seed: int, at_server: bool, helpers: Sequence[int]
) -> tuple[WantedTarget, Downlink]:
    """What the uplink must let the server solve for, and the downlink."""
    responders = list(responder_sets(len(placement.workers), silent))
    reduced = Target(placement, A)
    downlink = build_downlink(reduced, np.random.default_rng([seed, 1]), helpers)
    wanted = WantedTarget(A, reduced, silent, seed, responders)
    if not at_server:
        rows = _needed_rows(placement, downlink.of_updates, helpers)
        wanted = replace(wanted, matrix=rows, reduced=Target(placement, rows))
    return wanted, downlink


def _needed_rows(placement: Placement, rows: Floats, helpers: Sequence[int]) -> Floats:
    """Combinations of updates, without the updates that no worker lacks that wants the target."""
    wanting = set(range(len(placement.workers))) - set(helpers)
    return np.where([wanting.issubset(H) for H in placement.holders], 0.0, rows)


def _checked_plan(
    target: Floats, wanted: WantedTarget, uplink: Uplink, downlink: Downlink, helpers: Sequence[int]
) -> LinearPlan:
    """The plan with this uplink, whose server solves for what is wanted."""
    reduced, P, bound = wanted.reduced, uplink.subpackets, uplink.bound
    if helpers and target is not wanted.matrix:
        whole = Target(reduced.placement, target)
        bound = cut_bound(whole, subpackets=P, silent=wanted.silent, helpers=helpers)
    matrices = []
    for M, W in zip(reduced.placement.stored, uplink.matrices, strict=True):
        matrices.append(
            np.ascontiguousarray(W[:, packet_columns(M, P)] * np.repeat(reduced.scales[list(M)], P))
        )
    sent, condition = downlink.of_target, max(downlink.condition, downlink.target_condition)
    if target is not wanted.matrix:
        sent, condition = np.eye(len(wanted.matrix)), downlink.condition
    for matrix in (target, wanted.matrix, sent, *matrices):
        matrix.flags.writeable = False
    return LinearPlan(
        placement=reduced.placement,
        target=target,
        solved=wanted.matrix,
        silent=wanted.silent,
        subpackets=P,
        uplink_matrices=tuple(matrices),
        uplink_bound=Fraction(bound.packets, P),
        fractional_bound=bound.fractional,
        bound_complete=bound.complete,
        downlink_matrix=sent,
        missing_ranks=downlink.ranks,
        condition=max(uplink.condition, condition),
    )


def _check_target(placement: Placement, target: NDArray[np.float64]) -> Floats:
    try:
        given = np.asarray(target)
    except ValueError as error:
        raise UsageError("target", "must be a matrix of real numbers", target) from error
    if given.ndim != 2 or given.shape[0] < 1 or given.shape[1] != len(placement.partitions):
        raise UsageError(
            "target",
            f"must be a matrix with {len(placement.partitions)} columns, one per partition",
            given.shape,
        )
    if given.dtype.kind not in "fiu" or not np.all(np.isfinite(given)):
        raise UsageError("target", "must hold finite real numbers", target)
    return given.astype(np.float64, order="C")
