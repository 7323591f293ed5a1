"""The fastest uplink rates of `relay`, if the links of workers have different speeds.

The polyhedron of rates is that of `asyncdmtl.plan.rates.optimum` (docs/theory.md, section 3, "Costs").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import rationals, time_bound, violated_cut
from asyncdmtl.plan.rates.cuts import MergedPartitions
from asyncdmtl.plan.rates.optimum import least_sum, uplink_optimum


@dataclass(frozen=True)
class MakespanOptimum:
    """The shortest time of the uplink, rates that reach it, and the proof that it is minimal.

    Attributes
    ----------
    time : Fraction
        `max_k R_k / b_k`.
    rates : tuple of K Fractions
        `R_k`, in vectors. They violate no cut, and no other rates that take this time have a smaller sum.
    certificate : tuple of int
        A cut whose `time_bound` is `time`, ascending; empty with one worker, for which there is no cut.
    """

    time: Fraction
    rates: tuple[Fraction, ...]
    certificate: tuple[int, ...]


def fastest_rates(placement: Placement, speeds: Sequence[Fraction | int]) -> MakespanOptimum:
    """The rates with the smallest makespan `max_k R_k / b_k` that violate no cut.

    Parameters
    ----------
    speeds : sequence of K positive rationals
        `b_k`, in vectors per unit of time.

    Raises
    ------
    UsageError
        There are not as many speeds as workers, or a speed is not positive.

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
    rates = least_sum(MergedPartitions.of(placement), blocks, limits)[2]
    return MakespanOptimum(time, rates, cut)
