"""The cheapest uplink rates of `relay`, if the cost of a vector differs between workers.

The polyhedron of rates is that of `asyncdmtl.plan.rates.optimum` (docs/theory.md, section 3, "Costs").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import rationals
from asyncdmtl.plan.rates.cuts import Blocks, MergedPartitions, serve
from asyncdmtl.plan.rates.optimum import uplink_optimum


@dataclass(frozen=True)
class WeightedOptimum:
    """The smallest weighted cost of the uplink, rates that reach it, and the proof that it is minimal.

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
    """The rates with the smallest cost `Σ_k c_k R_k` that violate no cut.

    Parameters
    ----------
    costs : sequence of K non-negative rationals
        `c_k`, the cost of each vector that worker `k` sends.

    Raises
    ------
    UsageError
        There are not as many costs as workers, or a cost is negative.

    Notes
    -----
    For a fixed sum of the rates, serving the workers from the cheapest to the dearest is optimal (Edmonds).
    The cost is a convex, piecewise linear function of that sum, and the blocks that stopped the greedy
    algorithm give the line at a sum. The minimum is where a falling line meets a rising one.
    """
    c = rationals("costs", costs, placement)
    K = len(placement.workers)
    if K == 1:
        return WeightedOptimum(Fraction(0), (Fraction(0),), ())
    order = sorted(range(K), key=lambda k: c[k])
    merged = MergedPartitions.of(placement, order)
    optimum = uplink_optimum(placement)
    everyone = frozenset(range(K))

    def serve_cheapest_first(load: Fraction) -> tuple[tuple[Fraction, ...], _CostLine]:
        packets = load.denominator
        served = serve(merged, packets, int(packets * (merged.total - load)), order)
        rates = tuple(Fraction(rate, packets) for rate in served.rates)
        return rates, _CostLine.of(merged, c, order, served.chain)

    rates, falling = serve_cheapest_first(optimum.load)
    if falling.slope >= 0:
        # A larger sum than R_CO is not cheaper: the certificate of R_CO compensates the slope.
        least = {
            everyone.difference(block): Fraction(1, optimum.denominator) for block in optimum.certificate
        }
        return _weighted(c, rates, [(Fraction(1), falling.multipliers), (falling.slope, least)])
    rising = _CostLine.of(merged, c, order, [[frozenset(order[: i + 1])] for i in range(K)])
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
class _CostLine:
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
    ) -> _CostLine:
        """The line that follows from the blocks found after each worker in `order` (ascending cost).

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
    """The optimum with its proof, a weighted sum of multipliers."""
    proof: dict[frozenset[int], Fraction] = {}
    for weight, multipliers in proofs:
        for cut, y in multipliers.items():
            proof[cut] = proof.get(cut, Fraction(0)) + weight * y
    cost = sum((cost * rate for cost, rate in zip(c, rates, strict=True)), Fraction(0))
    return WeightedOptimum(
        cost, rates, tuple(sorted((tuple(sorted(cut)), y) for cut, y in proof.items() if y))
    )
