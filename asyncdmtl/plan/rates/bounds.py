"""Lower bounds of `relay`, for every scheme (docs/theory.md, section 3).

The functions that check a certificate are simple on purpose: they rely on the placement alone.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cuts import MergedPartitions, PacketAssignment


def downlink_bound(placement: Placement) -> int:
    """`max_k (N − |M_k|)`: the smallest load of a broadcast from which every worker decodes what it lacks."""
    return len(placement.partitions) - min(map(len, placement.stored))


def lacking(placement: Placement, workers: Iterable[int]) -> int:
    """`ex'(S) = N − |∪_{k∈S} M_k|`: the number of partitions that none of `workers` stores."""
    return len(placement.partitions) - len({n for k in workers for n in placement.stored[k]})


def exclusive(placement: Placement, workers: Iterable[int]) -> int:
    """`ex(S) = N − |∪_{k∉S} M_k|`: the number of partitions that no other workers store."""
    return lacking(placement, set(range(len(placement.workers))).difference(workers))


def certificate_value(placement: Placement, blocks: Sequence[Sequence[int]]) -> Fraction:
    """The lower bound on the uplink load that a partition of the worker set proves.

    `Σ_{S∈𝒫} ex'(S) / (|𝒫| − 1)`, in vectors: add the cut-set constraints of the complements of all blocks
    (El Rouayheb, Sprintson, Sadeghi 2010). A single block proves nothing: 0.

    Raises
    ------
    UsageError
        `blocks` is not a partition of the worker set into non-empty blocks.
    """
    if sorted(k for block in blocks for k in block) != list(range(len(placement.workers))) or not all(blocks):
        raise UsageError("blocks", "must hold every worker once, in non-empty blocks", blocks)
    if len(blocks) == 1:
        return Fraction(0)
    return Fraction(sum(lacking(placement, block) for block in blocks), len(blocks) - 1)


def cost_bound(
    placement: Placement,
    costs: Sequence[Fraction | int],
    multipliers: Sequence[tuple[Sequence[int], Fraction]],
) -> Fraction:
    """The lower bound on `Σ_k c_k R_k` that multipliers `y_S >= 0` on cuts `S` prove: `Σ_S y_S ex(S)`.

    Linear programming duality: `Σ_{S∋k} y_S <= c_k` for all `k` makes
    `Σ_k c_k R_k >= Σ_S y_S Σ_{k∈S} R_k >= Σ_S y_S ex(S)`.

    Raises
    ------
    UsageError
        A multiplier is negative, a cut is not a non-empty proper subset of the workers, or the multipliers
        on some worker's cuts exceed its cost.
    """
    c = rationals("costs", costs, placement)
    for cut, multiplier in multipliers:
        _check_cut(placement, cut)
        if multiplier < 0:
            raise UsageError("multipliers", "must not be negative", multiplier)
    for k, cost in enumerate(c):
        if sum(y for cut, y in multipliers if k in cut) > cost:
            raise UsageError("multipliers", f"must not sum to more than the cost of worker {k}", multipliers)
    return sum((y * exclusive(placement, cut) for cut, y in multipliers), Fraction(0))


def time_bound(placement: Placement, speeds: Sequence[Fraction | int], cut: Sequence[int]) -> Fraction:
    """The lower bound on the makespan `max_k R_k / b_k` that a cut `S` proves: `ex(S) / Σ_{k∈S} b_k`.

    Raises
    ------
    UsageError
        `cut` is not a non-empty proper subset of the workers, or a speed is not positive.
    """
    b = rationals("speeds", speeds, placement, positive=True)
    _check_cut(placement, cut)
    return exclusive(placement, cut) / sum((b[k] for k in cut), Fraction(0))


def violated_cut(
    placement: Placement, rates: Sequence[Fraction | int], subpackets: int = 1
) -> tuple[int, ...] | None:
    """A non-empty proper subset `S` of the workers with `Σ_{k∈S} R_k < P·ex(S)`, or None if there is none.

    Parameters
    ----------
    rates : sequence of K rationals
        Uplink loads; in packets when `subpackets` is given.
    subpackets : int
        `P`, the number of packets of a vector.

    Returns
    -------
    tuple of int or None
        Ascending.

    Raises
    ------
    UsageError
        There are not as many rates as workers, or `subpackets` is not positive.
    """
    R = rationals("rates", rates, placement, signed=True)
    check_subpackets(subpackets)
    K = len(placement.workers)
    if K == 1:
        return None
    for k in range(K):
        if R[k] < 0:
            return (k,)
    scale = lcm(*(rate.denominator for rate in R))
    merged = MergedPartitions.of(placement)
    assignment = PacketAssignment(merged, subpackets * scale)
    # For the complement C of a cut, R(C) + slack <= |∪_{k∈C} M_k| must hold, where slack is the number of
    # packets that no worker sends. Rates whose sum exceeds the number of packets leave no slack; they suffice
    # iff all packets can be handed out.
    slack = max(0, int(scale * (subpackets * merged.total - sum(R))))
    short = set()
    for k in range(K):
        wanted = int(R[k] * scale) + slack
        if assignment.draw(k, wanted) < wanted:
            short.add(k)
            if slack:
                break
        assignment.release(k, slack)
    if short and (slack or assignment.free):
        return tuple(sorted(set(range(K)) - assignment.dependents(short)))
    return None


def rationals(
    argument: str,
    values: Sequence[Fraction | int],
    placement: Placement,
    *,
    signed: bool = False,
    positive: bool = False,
) -> tuple[Fraction, ...]:
    """One exact rational for every worker, `positive` or at least not negative unless `signed`."""
    try:
        exact = tuple(Fraction(value) for value in values)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UsageError(argument, "must be rational numbers", values) from error
    if len(exact) != len(placement.workers):
        raise UsageError(argument, f"must be as many as workers ({len(placement.workers)})", values)
    if positive and min(exact) <= 0:
        raise UsageError(argument, "must be positive", values)
    if not signed and min(exact) < 0:
        raise UsageError(argument, "must not be negative", values)
    return exact


def check_subpackets(subpackets: int) -> None:
    """UsageError unless `subpackets` is a positive integer."""
    try:
        positive = operator.index(subpackets) > 0
    except TypeError:
        positive = False
    if not positive:
        raise UsageError("subpackets", "must be a positive integer", subpackets)


def _check_cut(placement: Placement, cut: Sequence[int]) -> None:
    K = len(placement.workers)
    if not 0 < len(cut) < K or len(set(cut)) < len(cut) or not set(cut) <= set(range(K)):
        raise UsageError("cut", "must be a non-empty proper subset of the workers", cut)
