"""Ways to split the uplink of a round between workers, and the mean time of each worker under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import exclusive, rationals, violated_cut
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.rates.stragglers import check_copies, responder_sets


@dataclass(frozen=True)
class Split:
    """The mean time of each worker for its rows of a round.

    Attributes
    ----------
    times : tuple of K Fractions
        `R_k / b_k`; 0 for a worker that sends nothing.
    silent : int
        Workers, whichever, for whose rows a round need not wait.
    """

    times: tuple[Fraction, ...]
    silent: int = 0

    @property
    def needed(self) -> int:
        """The number of workers whose rows end a round, among those that send some."""
        return sum(time > 0 for time in self.times) - self.silent


def uniform_split(placement: Placement, speeds: Sequence[Fraction | int]) -> Split:
    """Every worker sends as much as every other, and no more than a relay needs then."""
    b = rationals("speeds", speeds, placement, positive=True)
    load = fastest_rates(placement, [1] * len(b)).time
    return Split(tuple(load / speed for speed in b))


def split_by_speeds(placement: Placement, speeds: Sequence[Fraction | int]) -> Split:
    """The rates of a relay with the shortest uplink (`fastest_rates`)."""
    b = rationals("speeds", speeds, placement, positive=True)
    rates = fastest_rates(placement, b).rates
    return Split(tuple(rate / speed for rate, speed in zip(rates, b, strict=True)))


def split_for_silent(placement: Placement, speeds: Sequence[Fraction | int], silent: int) -> Split:
    """The shortest uplink of a relay that ends without the rows of any `silent` workers.

    Every cut `S` must get its `ex(S)` vectors from the responders `A` in it (docs/theory.md, section 6).
    Rates `τ·b_k` do that iff `τ >= ex(S) / b(S∩A)` for every cut and every set of responders; the largest of
    these is found as in `fastest_rates`.

    Raises
    ------
    UsageError
        A speed is not positive, or `silent` is not a whole number from 0 to K − 1, or leaves too many sets of
        responders to check.
    PlanError
        A partition has at most `silent` holders.
    """
    b = rationals("speeds", speeds, placement, positive=True)
    check_copies(placement, silent)
    time = fastest_rates(placement, b).time
    for responders in responder_sets(len(b), silent):
        present = [b[k] if k in responders else Fraction(0) for k in range(len(b))]
        while (cut := violated_cut(placement, [time * speed for speed in present])) is not None:
            time = exclusive(placement, cut) / sum((present[k] for k in cut), Fraction(0))
    return Split((time,) * len(b), silent)


def least_time(placement: Placement, speeds: Sequence[Fraction | int]) -> Fraction:
    """The time of the smallest load of a relay if it could be divided at will: `R_CO / Σ b_k`."""
    b = rationals("speeds", speeds, placement, positive=True)
    if len(b) == 1:
        raise UsageError("workers", "must be at least 2 for a stream: one alone exchanges nothing", 1)
    return uplink_optimum(placement).load / sum(b, Fraction(0))
