"""The pace at which newcomers are taken into a run, so that most of the time is left to rounds."""

from __future__ import annotations

from collections.abc import Callable

# The number of plans in quick succession after which newcomers wait: some three workers may come, or leave
# and come back, one after the other without a wait.
FREE_PLANS = 6.0

# The seconds of a run for each second that further plans take: they take at most a tenth of its time.
SECONDS_PER_SECOND = 10.0

# The most seconds that a newcomer waits. A worker that has left may have changed its address, and must not
# wait for the whole run.
LONGEST_WAIT = 300.0


class Pace:
    """Says when a newcomer takes part, whatever its name.

    Each newcomer costs all others a new plan, and its loss another one and a round that is made again. So
    plans are counted, and the count falls with time, by one in `SECONDS_PER_SECOND` times the time that a
    plan and a round take. While the count is high newcomers wait, and are then taken in together.

    Parameters
    ----------
    clock : callable
        A monotonic clock, in seconds.

    Attributes
    ----------
    round_seconds, plan_seconds : float
        The times of the last round and of the last plan.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.round_seconds = self.plan_seconds = 0.0
        self._clock = clock
        self._count = 0.0
        self._counted = self._moved = clock()

    @property
    def stood_still(self) -> float:
        """Seconds since a round was made, or a plan was begun or made."""
        return self._clock() - self._moved

    def begin_plan(self) -> None:
        """Note that all workers are here for a new plan."""
        self._moved = self._clock()

    def note_plan(self) -> None:
        """Note that a plan was made and handed out, or given up."""
        self._settle()
        self._count += 1.0
        self.plan_seconds = self.stood_still
        self._moved = self._clock()

    def note_round(self, seconds: float) -> None:
        """Note that a round was made in so many seconds."""
        self.round_seconds = seconds
        self._moved = self._clock()

    def due(self) -> float:
        """The time from which a worker that joins now takes part."""
        self._settle()
        return self._counted + min(LONGEST_WAIT, max(0.0, self._count - FREE_PLANS) * self._interval)

    @property
    def _interval(self) -> float:
        """Seconds in which the count falls by one."""
        return SECONDS_PER_SECOND * (self.plan_seconds + self.round_seconds)

    def _settle(self) -> None:
        """Let the count fall for the time since it was last changed."""
        now = self._clock()
        passed, self._counted = now - self._counted, now
        fallen = passed / self._interval if self._interval > 0.0 else self._count
        self._count = max(0.0, self._count - fallen)
