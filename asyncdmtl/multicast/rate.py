"""How fast rows are sent: to a group at a rate that loss lowers, and up not far ahead of what comes down."""

from __future__ import annotations

import math

from asyncdmtl.errors import UsageError

# What may be sent at once: bytes, or as much as the rate makes of some milliseconds, below which nobody
# sleeps.
BURST, NAP = 1 << 16, 0.003

# Datagrams after which loss is judged: fewer tell chance rather than the network.
WINDOW = 2000

# Loss above the usual, as a share of what was sent, before the rate is lowered, at the least and as a share
# of the usual; how far the rate goes down in all; and how fast it rises again.
TOLERATED, TOLERATED_SHARE, LOWEST, RISE = 0.05, 0.5, 1 / 16, 1.25

# Loss that a lower rate leaves at more than this share of what it was is not for the rate to cure.
UNCURED = 0.75


class Pace:
    """When the next datagrams may be sent. Knows no clock: times are seconds of any clock that goes on.

    Queues that are too short for the rate lose datagrams until it is lower; radio loses them at any rate. So
    loss lowers the rate, and loss that stays as it was is taken as usual from then on.

    Parameters
    ----------
    limit : float
        Bytes in a second, headers included, that are never exceeded.

    Attributes
    ----------
    rate : float
        Bytes in a second.
    lost : float
        The share of datagrams that was lost lately, by who lost most.
    usual : float
        The share that is lost at any rate.
    """

    def __init__(self, limit: float) -> None:
        if not limit > 0:
            raise UsageError("limit", "must be more than 0 bytes in a second", limit)
        self.limit = self.rate = limit
        self.lost = self.usual = 0.0
        self._free = 0.0
        self._before: float | None = None
        self._window: dict[str, list[int]] = {}

    def wait(self, now: float, size: int) -> float:
        """Seconds to wait before so many bytes are sent, which count as sent."""
        begin = max(self._free, now - max(NAP, BURST / self.rate))
        self._free = begin + size / self.rate
        return max(0.0, begin - now)

    def heard(self, worker: str, sent: int, lost: int) -> None:
        """Take in how many datagrams a worker lost of so many."""
        counts = self._window.setdefault(worker, [0, 0])
        counts[0] += sent
        counts[1] += lost
        if counts[0] >= WINDOW:
            self.lost = max(lost / sent for sent, lost in self._window.values() if sent)
            self._window.clear()
            self._judge(self.lost)

    def _judge(self, lost: float) -> None:
        if lost <= self.usual + max(TOLERATED, TOLERATED_SHARE * self.usual):
            self.rate = min(self.limit, self.rate * RISE)
            self.usual, self._before = min(self.usual, (self.usual + lost) / 2), None
        elif self._before is not None and lost > UNCURED * self._before:
            self.usual, self._before = lost, None
        else:
            self._before = lost
            self.rate = max(self.limit * LOWEST, self.rate * max(0.5, 1 - lost))


# Ranges that are sent at first before any came down, and seconds of them that may wait in queues.
FIRST_LEAD, SLACK = 3, 0.05

# By how much the shortest time on the way is believed less from one round to the next.
FORGETTING = 1.1


class Lead:
    """How far ahead of what came down a worker may send the ranges of a round. Knows no clock, as `Pace`.

    What is sent further ahead than keeps the network busy only waits in its queues, where it delays what
    other workers send and the acknowledgements of what they receive. As in TCP Vegas (Brakmo and Peterson,
    IEEE JSAC 13(8), 1995), the lead follows from the shortest time that a range took to go up and what came
    of it to come down, and from the time between two ranges.

    Attributes
    ----------
    ranges : int
        How many ranges ahead.
    """

    def __init__(self) -> None:
        self.ranges = FIRST_LEAD
        self._shortest = math.inf
        self._sent: list[float] = []
        self._came: list[float] = []

    def begin(self) -> None:
        """Begin a round, with what the last one taught."""
        there = [came - sent for came, sent in zip(self._came, self._sent, strict=False)]
        if len(there) > 1 and (apart := (self._came[-1] - self._came[0]) / (len(self._came) - 1)) > 0.0:
            self._shortest = min(*there, FORGETTING * self._shortest)
            self.ranges = 1 + math.ceil(max(0.0, self._shortest + SLACK) / apart)
        self._sent, self._came = [], []

    def sent(self, now: float) -> None:
        """Take note that a range is sent; each is, one after the other."""
        self._sent.append(now)

    def received(self, now: float) -> None:
        """Take note that what came of a range is there; of each it is, one after the other."""
        self._came.append(now)
