"""The number of ranges that a worker may send ahead of the ranges that come down."""

from __future__ import annotations

import math

# The window, in ranges, in a run's first rounds: enough to keep both directions busy on a path with a short
# round trip, and few enough not to fill queues on a slow path.
FIRST_WINDOW = 3

# Seconds' worth of ranges that may wait in the network's queues beyond those that keep it busy, so that a
# delay at one end does not leave the other end idle.
QUEUED_SECONDS = 0.05

# The factor by which the estimate of the shortest round trip grows in each further round, so that a path that
# has become longer is noticed within some rounds.
AGEING = 1.1


class UplinkWindow:
    """The number of ranges that a worker may be ahead of the ranges that have come down.

    Ranges beyond those that keep the network busy wait in a queue, where they delay the rows of other workers
    and acknowledgements. As in TCP Vegas (Brakmo and Peterson, IEEE JSAC 13(8), 1995), the window follows
    from the shortest round trip of a range, which ends when the same range of the downlink has arrived, and
    from the time between two ranges. The class reads no clock: times are seconds of any monotonic clock.

    Attributes
    ----------
    ranges : int
        The current window.
    """

    def __init__(self) -> None:
        self.ranges = FIRST_WINDOW
        self._shortest = math.inf
        self._sent: list[float] = []
        self._received: list[float] = []

    def begin(self) -> None:
        """Begin a round: set the window from the times of the round before."""
        trips = [back - sent for back, sent in zip(self._received, self._sent, strict=False)]
        if len(trips) > 1:
            apart = (self._received[-1] - self._received[0]) / (len(self._received) - 1)
            if apart > 0.0:
                self._shortest = min(*trips, AGEING * self._shortest)
                self.ranges = 1 + math.ceil(max(0.0, self._shortest + QUEUED_SECONDS) / apart)
        self._sent, self._received = [], []

    def sent(self, now: float) -> None:
        """Note the time at which the next range was sent."""
        self._sent.append(now)

    def received(self, now: float) -> None:
        """Note the time at which the next range of the downlink was received."""
        self._received.append(now)
