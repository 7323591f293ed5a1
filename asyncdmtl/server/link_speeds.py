"""The speeds of workers and of their links as a run measures them, and when a new plan should follow them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import median

from asyncdmtl.plan.links import MEGABIT
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.rates.makespan import fastest_rates, tolerant_time
from asyncdmtl.plan.round_time import count_ranges, time_of_round
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.server.events import MeasuredSpeed

# The number of rounds after which speeds are compared with the plan, and of which the median counts. A plan
# stays for at least as many rounds, and one slow round does not change it.
ROUNDS_MEASURED = 5

# The share of a round's time that a new plan must save. Measured speeds vary by some percent, and a plan
# for such a difference would be followed by another one.
LEAST_SAVED = 1 / 6

# The factor by which the speed of some link must differ from the one that the plan follows, for another plan.
# Medians of speeds that vary by a fifth from round to round differ by less.
LEAST_CHANGE = Fraction(3, 2)


class LinkSpeeds:
    """Speeds of workers and links, by the last `ROUNDS_MEASURED` rounds in which each was known."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[deque[float], ...]] = {}

    def note(self, worker: str, seconds: float, up: float, down: float) -> None:
        """Note a round of a worker: seconds of computing, and bits per second of its link up and down.

        A rate of 0 is not known, and leaves those of earlier rounds.
        """
        last = self._last.setdefault(worker, tuple(deque(maxlen=ROUNDS_MEASURED) for _ in range(3)))
        last[0].append(seconds)
        for rates, rate in zip(last[1:], (up, down), strict=True):
            if rate:
                rates.append(rate / MEGABIT)

    def measured(self) -> dict[str, MeasuredSpeed]:
        """The medians of the last rounds, by worker."""
        return {
            worker: MeasuredSpeed(*(median(values or [0.0]) for values in last))
            for worker, last in self._last.items()
        }

    def both_ways(self, workers: Sequence[str]) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None:
        """The speeds of these workers' links up and down, in Mbit/s; None if nothing is known."""
        if (speeds := speeds_both_ways(self.measured(), workers)) is None:
            return None
        up, down = (tuple(map(_rounded, each)) for each in speeds)
        return up, down

    def better(
        self,
        plan: AnyPlan,
        vector_bytes: int,
        rounds: int,
        plan_seconds: float,
        planned: Mapping[str, Fraction],
    ) -> tuple[Mapping[str, Fraction], Mapping[str, Fraction]] | None:
        """The speeds of the links up and down, in Mbit/s, if a plan for them saves time; else None.

        Both directions and computing count: where rounds take as long as links down, no other rates shorten
        them, and where computing takes most of their time, little.

        Parameters
        ----------
        plan : Plan or LinearPlan
            The plan that is followed.
        vector_bytes : int
            Bytes of a vector of the uplink.
        rounds : int
            The number of rounds that are left.
        plan_seconds : float
            The seconds that a new plan takes.
        planned : mapping of worker to Fraction
            The speeds of the links up that the plan follows, in Mbit/s; empty if it follows none.
        """
        workers = plan.placement.workers
        if (
            not isinstance(plan, Plan)
            or plan.strategy != "relay"
            or plan.helpers
            or (speeds := self.both_ways(workers)) is None
        ):
            return None
        up, down = speeds
        if planned and not _changed(dict(zip(workers, up, strict=True)), planned):
            return None
        now = time_of_round(plan, up, down, count_ranges(plan, vector_bytes))
        blocks = plan.units.blocks
        shortest = (
            tolerant_time(blocks, up, plan.silent) if plan.silent else fastest_rates(blocks, up).time
        ) * plan.merged
        unit = 8 * vector_bytes / MEGABIT
        saved = unit * float(now.total - replace(now, uplink=min(shortest, now.uplink)).total)
        computing = max(self.measured()[worker].computing for worker in workers)
        if saved < LEAST_SAVED * (unit * float(now.total) + computing) or saved * rounds < plan_seconds:
            return None
        return dict(zip(workers, up, strict=True)), dict(zip(workers, down, strict=True))


def speeds_both_ways(
    measured: Mapping[str, MeasuredSpeed], workers: Sequence[str]
) -> tuple[list[float], list[float]] | None:
    """The speeds of the links of these workers up and down, in Mbit/s; None if nothing is known.

    A link whose rows arrive at once, or that carries next to nothing, has no measured speed. It delays
    nobody, and counts as the fastest of those that are known.
    """
    if not all(name in measured for name in workers):
        return None
    up, down = [measured[name].up for name in workers], [measured[name].down for name in workers]
    fastest = max(up), max(down)
    if not all(fastest):
        return None
    return [speed or fastest[0] for speed in up], [speed or fastest[1] for speed in down]


def _changed(speeds: Mapping[str, Fraction], planned: Mapping[str, Fraction]) -> bool:
    """Whether some link is new, or its speed is another one by `LEAST_CHANGE` at least."""
    return any(
        worker not in planned or not 1 / LEAST_CHANGE < speed / planned[worker] < LEAST_CHANGE
        for worker, speed in speeds.items()
    )


def _rounded(speed: float) -> Fraction:
    """A speed with two digits, so that plans need few packets."""
    return Fraction(f"{speed:.2g}")
