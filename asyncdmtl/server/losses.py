"""Workers whose connections are lost again and again in one round, so that it is never made."""

from __future__ import annotations

# A worker may lose its connection this number of times in one round, and as often as it likes within
# `LOSING_SECONDS`: a link that fails for some seconds may cut connections as soon as they are made.
MOST_LOSSES = 20
LOSING_SECONDS = 30.0


class Losses:
    """Counts how often each worker was lost in one round.

    Each loss makes the round void. If the worker alone stores a partition, the others wait for it each time,
    and a run would never end.
    """

    def __init__(self) -> None:
        self._round = 0
        # By worker that was lost in this round: the time of its first loss, and their number.
        self._found: dict[str, tuple[float, int]] = {}

    def too_many(self, worker: str, round: int, now: float) -> bool:
        """Note the loss of a worker at a time in seconds; whether the run does better without it."""
        if round != self._round:
            self._round, self._found = round, {}
        since, count = self._found.get(worker, (now, 0))
        self._found[worker] = since, count + 1
        return count + 1 >= MOST_LOSSES and now - since >= LOSING_SECONDS
