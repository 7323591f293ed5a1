"""Optimal uplink rates for `relay`: exact, in polynomial time (docs/theory.md, section 3).

Fix the sum `α` of all rates and turn every cut-set constraint over to the complement `C` of its cut:
`R(C) <= f(C) = |∪_{k∈C} M_k| − (N − α)` for every non-empty set `C` of workers. `f` is submodular on
intersecting sets, so Edmonds' greedy algorithm works: serve one worker after the other with as much as it
may have. The sum that it reaches is the least of `Σ_{C∈𝒫} f(C)` over partitions `𝒫` of the worker set (the
Dilworth truncation of `f`), and rates of sum `α` exist iff that is `α`. Where it is less, `𝒫` proves a
greater lower bound on `α`: that is Newton's method on `α` (Milosavljevic et al., arXiv:1502.06149).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import check_subpackets, rationals, time_bound, violated_cut
from asyncdmtl.plan.rates.cuts import Blocks, MergedPartitions, PacketAssignment, serve


@dataclass(frozen=True)
class UplinkOptimum:
    """The least uplink load, rates that reach it, and the proof that no less will do.

    Attributes
    ----------
    load : Fraction
        `R_CO`, in vectors.
    certificate : tuple of tuple of int
        The finest partition `𝒫*` of the worker set whose `certificate_value` is `load`; each block ascending,
        blocks by their first worker. With one worker: the single block.
    rates : tuple of K Fractions
        `R_k`, non-negative, of sum `load`, that violate no cut.
    """

    load: Fraction
    certificate: tuple[tuple[int, ...], ...]
    rates: tuple[Fraction, ...]

    @property
    def denominator(self) -> int:
        """`|𝒫*| − 1`: with so many subpackets integral rates of sum `load` exist. 1 for a single worker."""
        return max(1, len(self.certificate) - 1)


def uplink_optimum(placement: Placement) -> UplinkOptimum:
    """`R_CO` of a placement, with rates that reach it and a certificate that proves it."""
    K = len(placement.workers)
    if K == 1:
        return UplinkOptimum(Fraction(0), ((0,),), (Fraction(0),))
    merged = MergedPartitions.of(placement)
    load, blocks, rates = _least_sum(merged, _promising_blocks(merged), limits=None)
    return UplinkOptimum(load, tuple(sorted(tuple(sorted(block)) for block in blocks)), rates)


def smallest_subpackets(optimum: UplinkOptimum, max_overhead: Fraction | int = 0) -> int:
    """The smallest `P` with `⌈P·R_CO⌉ / P <= (1 + max_overhead)·R_CO`; 1 if `R_CO` is 0.

    Raises
    ------
    UsageError
        `max_overhead` is negative.
    """
    overhead = Fraction(max_overhead)
    if overhead < 0:
        raise UsageError("max_overhead", "must not be negative", max_overhead)
    P = 1
    while ceil(P * optimum.load) > (1 + overhead) * P * optimum.load:
        P += 1
    return P


def integral_rates(
    placement: Placement, subpackets: int, optimum: UplinkOptimum | None = None
) -> tuple[int, ...]:
    """How many packets each worker sends up, when a vector has `subpackets`: as few as can be, and even.

    Parameters
    ----------
    subpackets : int
        `P`.
    optimum : UplinkOptimum, optional
        That of `placement`, to save computing it again.

    Returns
    -------
    tuple of K ints
        Rates in packets that violate no cut, of sum `⌈P·R_CO⌉`. Of all such it is decreasingly minimal: the
        largest rate is as small as possible, then the second largest, and so on.

    Raises
    ------
    UsageError
        `subpackets` is not a positive integer.

    Notes
    -----
    All rates rise together; a worker stops where a cut stops it. For the bases of an integral polymatroid
    this is optimal (Federgruen, Groenevelt 1986; Frank, Murota, arXiv:1808.07600).
    """
    check_subpackets(subpackets)
    K = len(placement.workers)
    if K == 1:
        return (0,)
    total = ceil(subpackets * (optimum or uplink_optimum(placement)).load)
    merged = MergedPartitions.of(placement)
    slack = subpackets * merged.total - total
    assignment = PacketAssignment(merged, subpackets)
    rates = [0] * K
    rising = set(range(K))
    while rising:
        _raise_together(merged, subpackets, slack, assignment, rates, rising)
        for k in sorted(rising):
            if k not in rising:
                continue
            drawn = assignment.draw(k, slack + 1)
            if drawn > slack:
                rates[k] += 1
            else:
                rising -= assignment.dependents([k])
            assignment.release(k, slack)
    return tuple(rates)


def _raise_together(
    merged: MergedPartitions,
    packets: int,
    slack: int,
    assignment: PacketAssignment,
    rates: list[int],
    rising: set[int],
) -> None:
    """Raise the rates of all `rising` workers to the highest common level."""
    everyone = set(range(merged.workers))

    def highest(workers: set[int]) -> int:
        """The level at which these workers hold as much as their cut lets them."""
        room = packets * merged.covered(workers) - slack - sum(rates[k] for k in workers - rising)
        return room // len(workers & rising)

    level = highest(everyone)
    for k in sorted(rising):
        held = rates[k]
        while (held := held + assignment.draw(k, level + slack - held)) < level + slack:
            level = highest(assignment.dependents([k]))
            for other in rising:
                if rates[other] > level:
                    assignment.release(other, rates[other] - level)
                    rates[other] = level
            if held > level + slack:
                assignment.release(k, held - level - slack)
                held = level + slack
        assignment.release(k, slack)
        rates[k] = level


@dataclass(frozen=True)
class WeightedOptimum:
    """The least weighted cost of the uplink, rates that reach it, and the proof that no less will do.

    Attributes
    ----------
    cost : Fraction
        `Σ_k c_k R_k`.
    rates : tuple of K Fractions
        `R_k`, in vectors; they violate no cut.
    certificate : tuple of (cut, multiplier) pairs
        Cuts `S` (ascending tuples of workers) and multipliers `y_S > 0`, whose `cost_bound` is `cost`.
    """

    cost: Fraction
    rates: tuple[Fraction, ...]
    certificate: tuple[tuple[tuple[int, ...], Fraction], ...]


def cheapest_rates(placement: Placement, costs: Sequence[Fraction | int]) -> WeightedOptimum:
    """The rates of least cost `Σ_k c_k R_k` that violate no cut.

    Parameters
    ----------
    costs : sequence of K non-negative rationals
        `c_k`, for every vector that worker `k` sends.

    Raises
    ------
    UsageError
        As many costs as workers are needed, none of them negative.

    Notes
    -----
    For a fixed sum of the rates, serving the workers from the cheapest to the dearest is optimal (Edmonds).
    The cost is a convex, piecewise linear function of the sum, and the blocks that stopped the greedy
    algorithm give the piece; the minimum is where a falling piece meets one that rises.
    """
    c = rationals("costs", costs, placement)
    K = len(placement.workers)
    if K == 1:
        return WeightedOptimum(Fraction(0), (Fraction(0),), ())
    order = sorted(range(K), key=lambda k: c[k])
    merged = MergedPartitions.of(placement, order)
    optimum = uplink_optimum(placement)
    everyone = frozenset(range(K))

    def serve_cheapest_first(load: Fraction) -> tuple[tuple[Fraction, ...], _Piece]:
        packets = load.denominator
        served = serve(merged, packets, int(packets * (merged.total - load)), order)
        rates = tuple(Fraction(rate, packets) for rate in served.rates)
        return rates, _Piece.of(merged, c, order, served.chain)

    rates, falling = serve_cheapest_first(optimum.load)
    if falling.slope >= 0:
        # Sending more than R_CO in all does not pay: what proves R_CO makes up for the slope.
        least = {
            everyone.difference(block): Fraction(1, optimum.denominator) for block in optimum.certificate
        }
        return _weighted(c, rates, [(Fraction(1), falling.multipliers), (falling.slope, least)])
    rising = _Piece.of(merged, c, order, [[frozenset(order[: i + 1])] for i in range(K)])
    while True:
        load = (rising.intercept - falling.intercept) / (falling.slope - rising.slope)
        rates, piece = serve_cheapest_first(load)
        if piece.at(load) == falling.at(load):
            break
        if piece.slope < 0:
            falling = piece
        else:
            rising = piece
    weight = rising.slope / (rising.slope - falling.slope)
    return _weighted(c, rates, [(weight, falling.multipliers), (1 - weight, rising.multipliers)])


@dataclass(frozen=True)
class _Piece:
    """A lower bound on the cost, linear in the sum of the rates: `intercept + slope·R_up`.

    With multipliers `y_S` on cuts, `Σ_k c_k R_k = Σ_S y_S R(S) + slope·R_up` and `intercept = Σ_S y_S ex(S)`.
    """

    slope: Fraction
    intercept: Fraction
    multipliers: dict[frozenset[int], Fraction]

    def at(self, load: Fraction) -> Fraction:
        return self.intercept + self.slope * load

    @classmethod
    def of(
        cls, merged: MergedPartitions, c: Sequence[Fraction], order: Sequence[int], chain: Sequence[Blocks]
    ) -> _Piece:
        """The piece that the blocks found after each worker in `order` (ascending cost) prove.

        By Abel's summation `Σ_k c_k R_k = c_last·R_up − Σ_i (c_{i+1} − c_i)·R(first i workers)`, and the
        blocks split the last factor: `R(C) = R_up − R(complement of C)`.
        """
        everyone = frozenset(order)
        slope = c[order[-1]]
        multipliers: dict[frozenset[int], Fraction] = {}
        for i, blocks in enumerate(chain[:-1]):
            if rise := c[order[i + 1]] - c[order[i]]:
                slope -= rise * len(blocks)
                for block in blocks:
                    cut = everyone - block
                    multipliers[cut] = multipliers.get(cut, Fraction(0)) + rise
        intercept = sum(
            (y * (merged.total - merged.covered(everyone - cut)) for cut, y in multipliers.items()),
            Fraction(0),
        )
        return cls(slope, intercept, multipliers)


def _weighted(
    c: Sequence[Fraction],
    rates: tuple[Fraction, ...],
    proofs: Sequence[tuple[Fraction, dict[frozenset[int], Fraction]]],
) -> WeightedOptimum:
    """The optimum, proven by a weighted sum of multipliers."""
    proof: dict[frozenset[int], Fraction] = {}
    for weight, multipliers in proofs:
        for cut, y in multipliers.items():
            proof[cut] = proof.get(cut, Fraction(0)) + weight * y
    cost = sum((cost * rate for cost, rate in zip(c, rates, strict=True)), Fraction(0))
    return WeightedOptimum(
        cost, rates, tuple(sorted((tuple(sorted(cut)), y) for cut, y in proof.items() if y))
    )


@dataclass(frozen=True)
class MakespanOptimum:
    """The least time of the uplink, rates that reach it, and the proof that no less will do.

    Attributes
    ----------
    time : Fraction
        `max_k R_k / b_k`.
    rates : tuple of K Fractions
        `R_k`, in vectors; they violate no cut, and of all that take no longer none has a smaller sum.
    certificate : tuple of int
        A cut whose `time_bound` is `time`, ascending; empty with one worker, who has no cut.
    """

    time: Fraction
    rates: tuple[Fraction, ...]
    certificate: tuple[int, ...]


def fastest_rates(placement: Placement, speeds: Sequence[Fraction | int]) -> MakespanOptimum:
    """The rates of least makespan `max_k R_k / b_k` that violate no cut.

    Parameters
    ----------
    speeds : sequence of K positive rationals
        `b_k`, in vectors per unit of time.

    Raises
    ------
    UsageError
        As many speeds as workers are needed, all of them positive.

    Notes
    -----
    Rates `τ·b_k` violate no cut iff `τ >= ex(S)/b(S)` for every cut `S`; a violated cut gives the next `τ`
    (Dinkelbach 1967), beginning with the cuts of one worker and of all but one.
    """
    b = rationals("speeds", speeds, placement, positive=True)
    K = len(placement.workers)
    if K == 1:
        return MakespanOptimum(Fraction(0), (Fraction(0),), ())
    singles = [(k,) for k in range(K)]
    others = [tuple(i for i in range(K) if i != k) for k in range(K)]
    cut = max([*singles, *others], key=lambda cut: time_bound(placement, b, cut))
    while True:
        time = time_bound(placement, b, cut)
        limits = [time * speed for speed in b]
        violated = violated_cut(placement, limits)
        if violated is None:
            break
        cut = violated
    blocks = [frozenset(block) for block in uplink_optimum(placement).certificate]
    rates = _least_sum(MergedPartitions.of(placement), blocks, limits)[2]
    return MakespanOptimum(time, rates, cut)


def _promising_blocks(merged: MergedPartitions) -> Blocks:
    """All workers apart, or one against the others, whichever proves more: where Newton's method starts."""
    everyone = frozenset(range(merged.workers))
    apart: Blocks = [frozenset({k}) for k in everyone]
    poorest = min(everyone, key=lambda k: merged.covered({k}))
    against: Blocks = [frozenset({poorest}), everyone - {poorest}]

    def proven(blocks: Blocks) -> Fraction:
        return Fraction(sum(merged.total - merged.covered(block) for block in blocks), len(blocks) - 1)

    return max(apart, against, key=proven)


def _least_sum(
    merged: MergedPartitions, blocks: Blocks, limits: Sequence[Fraction] | None
) -> tuple[Fraction, Blocks, tuple[Fraction, ...]]:
    """The least sum of rates that violate no cut and exceed no limit (there must be some).

    Newton's method, from `blocks` on; returns the sum, the finest blocks that prove it, and the rates.
    """
    K = merged.workers
    while True:
        lacked = sum(merged.total - merged.covered(block) for block in blocks)
        beside: Fraction | int = 0
        if limits is not None:
            beside = sum(limits[k] for k in set(range(K)).difference(*blocks))
        total = Fraction(lacked - beside, len(blocks) - 1)
        packets = lcm(total.denominator, *(limit.denominator for limit in limits or ()))
        served = serve(
            merged,
            packets,
            int(packets * (merged.total - total)),
            range(K),
            None if limits is None else [int(packets * limit) for limit in limits],
        )
        blocks = served.chain[-1]
        if sum(served.rates) == packets * total:
            return total, blocks, tuple(Fraction(rate, packets) for rate in served.rates)
