"""The fastest uplink rates of `relay`, if the links of workers have different speeds.

The polyhedron of rates is that of `asyncdmtl.plan.rates.optimum` (docs/theory.md, section 3, "Costs").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import exclusive, rationals, time_bound, violated_cut
from asyncdmtl.plan.rates.cuts import MergedPartitions
from asyncdmtl.plan.rates.optimum import least_sum, uplink_optimum
from asyncdmtl.plan.rates.stragglers import check_copies, responder_sets


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


def tolerant_time(placement: Placement, speeds: Sequence[Fraction | int], silent: int) -> Fraction:
    """The least time `τ` such that with the rates `τ·b_k` the rows of any K − `silent` workers suffice.

    Every cut `S` must get its `ex(S)` vectors from the responders `A` in it (docs/theory.md, section 6).
    Rates `τ·b_k` do that iff `τ >= ex(S) / b(S∩A)` for every cut and every set of responders; the largest of
    these is found as in `fastest_rates`.

    Raises
    ------
    UsageError
        A speed is not positive, or `silent` is not a whole number from 0 to K − 1, or leaves too many sets of
        responders to check.
    PlacementError
        A partition has at most `silent` holders.
    """
    b = rationals("speeds", speeds, placement, positive=True)
    check_copies(placement, silent)
    time = fastest_rates(placement, b).time
    for responders in responder_sets(len(b), silent):
        present = [b[k] if k in responders else Fraction(0) for k in range(len(b))]
        while (cut := violated_cut(placement, [time * speed for speed in present])) is not None:
            time = exclusive(placement, cut) / sum((present[k] for k in cut), Fraction(0))
    return time
