"""The smallest uplink load of `relay`, computed exactly in polynomial time (docs/theory.md, section 3).

Fix the sum `α` of all rates, and write every cut-set constraint for the complement `C` of its cut:
`R(C) <= f(C) = |∪_{k∈C} M_k| − (N − α)` for every non-empty set `C` of workers. `f` is submodular on
intersecting sets, so Edmonds' greedy algorithm works: it gives one worker after the other the largest
possible rate. The sum that it reaches is the minimum of `Σ_{C∈𝒫} f(C)` over partitions `𝒫` of the worker set
(the Dilworth truncation of `f`), and rates with sum `α` exist iff that is `α`. If it is less, `𝒫` proves a
larger lower bound on `α`: this is Newton's method on `α` (Milosavljevic et al., arXiv:1502.06149).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cuts import Blocks, MergedPartitions, serve


@dataclass(frozen=True)
class UplinkOptimum:
    """The smallest uplink load, rates that reach it, and the proof that it is minimal.

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
        """`|𝒫*| − 1`: with this number of packets, integral rates with sum `load` exist. 1 for one worker."""
        return max(1, len(self.certificate) - 1)


def uplink_optimum(placement: Placement) -> UplinkOptimum:
    """`R_CO` of a placement, with rates that reach it and a certificate that proves it."""
    K = len(placement.workers)
    if K == 1:
        return UplinkOptimum(Fraction(0), ((0,),), (Fraction(0),))
    merged = MergedPartitions.of(placement)
    load, blocks, rates = least_sum(merged, _promising_blocks(merged), limits=None)
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


def _promising_blocks(merged: MergedPartitions) -> Blocks:
    """The start of Newton's method: single workers, or one worker against the others; the better bound."""
    everyone = frozenset(range(merged.workers))
    apart: Blocks = [frozenset({k}) for k in everyone]
    poorest = min(everyone, key=lambda k: merged.covered({k}))
    against: Blocks = [frozenset({poorest}), everyone - {poorest}]

    def proven(blocks: Blocks) -> Fraction:
        return Fraction(sum(merged.total - merged.covered(block) for block in blocks), len(blocks) - 1)

    return max(apart, against, key=proven)


def least_sum(
    merged: MergedPartitions, blocks: Blocks, limits: Sequence[Fraction] | None
) -> tuple[Fraction, Blocks, tuple[Fraction, ...]]:
    """The smallest sum of rates that violate no cut and exceed no limit; such rates must exist.

    It uses Newton's method, starting at `blocks`, and returns the sum, the finest blocks that prove it, and
    the rates.
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
