"""Ways to split the uplink of a round between workers, and the mean time of each worker under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import rationals
from asyncdmtl.plan.rates.makespan import fastest_rates, tolerant_time
from asyncdmtl.plan.rates.optimum import uplink_optimum


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
    """The shortest uplink of a relay that ends without the rows of any `silent` workers (`tolerant_time`)."""
    return Split((tolerant_time(placement, speeds, silent),) * len(placement.workers), silent)


def least_time(placement: Placement, speeds: Sequence[Fraction | int]) -> Fraction:
    """The time of the smallest load of a relay if it could be divided at will: `R_CO / Σ b_k`."""
    b = rationals("speeds", speeds, placement, positive=True)
    if len(b) == 1:
        raise UsageError("workers", "must be at least 2 for a stream: one alone exchanges nothing", 1)
    return uplink_optimum(placement).load / sum(b, Fraction(0))
