"""The speeds of workers and of their links as a run measures them, and when a new plan should follow them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import astuple
from fractions import Fraction
from statistics import median

from asyncdmtl.plan.links import MEGABIT
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.rounding import longest
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.server.events import MeasuredSpeed

# The number of rounds after which speeds are compared with the plan, and of which the median counts. A plan
# stays for at least as many rounds, and one slow round does not change it.
ROUNDS_MEASURED = 5

# The share of the uplink's time that a new plan must save. Measured speeds vary by some percent, and a plan
# for such a difference would be followed by another one.
LEAST_SAVED = Fraction(1, 6)


class LinkSpeeds:
    """Speeds of workers and links, by the last `ROUNDS_MEASURED` rounds of each worker."""

    def __init__(self) -> None:
        self._rounds: dict[str, deque[MeasuredSpeed]] = {}

    def note(self, worker: str, seconds: float, up: float, down: float) -> None:
        """Note a round of a worker: seconds of computing, and bits per second of its link up and down."""
        rounds = self._rounds.setdefault(worker, deque(maxlen=ROUNDS_MEASURED))
        rounds.append(MeasuredSpeed(seconds, up / MEGABIT, down / MEGABIT))

    def measured(self) -> dict[str, MeasuredSpeed]:
        """The medians of the last rounds, by worker."""
        return {
            worker: MeasuredSpeed(*map(median, zip(*map(astuple, rounds), strict=True)))
            for worker, rounds in self._rounds.items()
        }

    def better(
        self, plan: AnyPlan, vector_bytes: int, rounds: int, plan_seconds: float
    ) -> Mapping[str, Fraction] | None:
        """The speeds of the links up, in Mbit/s, if a plan for them saves time; else None.

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
        """
        known = {worker: _rounded(speed.up) for worker, speed in self.measured().items() if speed.up > 0.0}
        workers = plan.placement.workers
        if (
            not isinstance(plan, Plan)
            or plan.strategy != "relay"
            or plan.helpers
            or not known.keys() >= set(workers)
        ):
            return None
        speeds = [known[worker] for worker in workers]
        now = longest([rows * plan.packet_load for rows in plan.uplink_rows], speeds)
        least = fastest_rates(plan.units.blocks, speeds).time * plan.merged
        saved = float((now - least) * Fraction(8 * vector_bytes, MEGABIT))
        if now - least < LEAST_SAVED * now or saved * rounds < plan_seconds:
            return None
        return {worker: known[worker] for worker in workers}


def _rounded(speed: float) -> Fraction:
    """A speed with two digits, so that plans need few packets."""
    return Fraction(f"{speed:.2g}")
