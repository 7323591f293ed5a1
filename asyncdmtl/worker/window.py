"""How many ranges of a round a worker may send before what became of them comes back."""

from __future__ import annotations

import math

# Ranges that may be sent before any has come back, in a run's first rounds: enough to keep both directions
# busy on a short way, and few enough to fill no queue on a slow one.
FIRST_WINDOW = 3

# Seconds of ranges that may wait in the network's queues beyond those that keep it busy, so that a delay at
# one end does not leave the other idle.
QUEUED_SECONDS = 0.05

# The factor by which the shortest round trip is taken to be longer in each further round: a way that has
# become longer is noticed within some rounds.
AGEING = 1.1


class UplinkWindow:
    """How many ranges ahead of what has come down a worker may send the ranges of a round.

    A range that is sent earlier than it takes to keep the network busy waits in a queue, where it delays the
    rows of other workers and the acknowledgements of what comes down. As in TCP Vegas (Brakmo and Peterson,
    IEEE JSAC 13(8), 1995), the window follows from the shortest round trip of a range, which ends when the
    same range of the downlink is there, and from the time between two ranges. The class reads no clock: times
    are seconds of any clock that never runs backwards.

    Attributes
    ----------
    ranges : int
        How many ranges ahead.
    """

    def __init__(self) -> None:
        self.ranges = FIRST_WINDOW
        self._shortest = math.inf
        self._sent: list[float] = []
        self._received: list[float] = []

    def begin(self) -> None:
        """Begin a round: the times of the round before set the window."""
        trips = [back - sent for back, sent in zip(self._received, self._sent, strict=False)]
        if len(trips) > 1:
            apart = (self._received[-1] - self._received[0]) / (len(self._received) - 1)
            if apart > 0.0:
                self._shortest = min(*trips, AGEING * self._shortest)
                self.ranges = 1 + math.ceil(max(0.0, self._shortest + QUEUED_SECONDS) / apart)
        self._sent, self._received = [], []

    def sent(self, now: float) -> None:
        """Note when a range was sent; ranges are sent in their order."""
        self._sent.append(now)

    def received(self, now: float) -> None:
        """Note when a range of the downlink was received; ranges are received in their order."""
        self._received.append(now)
