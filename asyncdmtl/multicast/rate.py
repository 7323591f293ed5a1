"""The rate at which datagrams are sent to a group, which adapts to the loss."""

from __future__ import annotations

from asyncdmtl.errors import UsageError

# Bytes that may be sent at once after a pause. With less, every block of datagrams would have to wait.
BURST_BYTES = 1 << 16

# Seconds' worth of bytes that may be sent at once after a pause: event loops cannot sleep for less than this.
BURST_SECONDS = 0.003

# The fewest datagrams from which a worker's loss is estimated. With fewer, chance dominates.
JUDGED_DATAGRAMS = 2000

# The excess of the loss over the usual loss that does not lower the rate, as a share of all datagrams.
TOLERATED_LOSS = 0.05

# The same excess as a share of the usual loss. The larger of the two limits applies.
TOLERATED_EXCESS = 0.5

# The lowest rate, as a share of the limit: below it a round would take longer than over TCP.
LOWEST_SHARE = 1 / 16

# The factor by which the rate rises after usual loss.
RISE = 1.25

# If at least this share of the loss remains at a lower rate, the loss does not depend on the rate: it is
# usual.
UNCURED_SHARE = 0.75


class RateControl:
    """Decides when the next datagrams may be sent.

    A queue that is too short for the rate loses datagrams until the rate is lower; a radio link loses them at
    any rate. So loss lowers the rate, and loss that remains at a lower rate counts as usual from then on. The
    class reads no clock: times are seconds of any monotonic clock.

    Parameters
    ----------
    limit : float
        The highest rate, in bytes per second, headers included.

    Attributes
    ----------
    rate : float
        The current rate, in bytes per second.
    lost : float
        The last estimate of the loss: the share of datagrams that the worker with the largest loss missed.
    usual : float
        The share of datagrams that are lost at any rate.
    """

    def __init__(self, limit: float) -> None:
        if not limit > 0:
            raise UsageError("limit", "must be more than 0 bytes in a second", limit)
        self.limit = self.rate = limit
        self.lost = self.usual = 0.0
        self._free_at = 0.0
        self._before: float | None = None
        self._counts: dict[str, list[int]] = {}

    def wait(self, now: float, size: int) -> float:
        """Seconds to wait before `size` bytes are sent; they count as sent."""
        begin = max(self._free_at, now - max(BURST_SECONDS, BURST_BYTES / self.rate))
        self._free_at = begin + size / self.rate
        return max(0.0, begin - now)

    def report_loss(self, worker: str, sent: int, lost: int) -> None:
        """Take in that a worker did not receive `lost` of `sent` datagrams."""
        counts = self._counts.setdefault(worker, [0, 0])
        counts[0] += sent
        counts[1] += lost
        if counts[0] >= JUDGED_DATAGRAMS:
            self.lost = max(lost / sent for sent, lost in self._counts.values() if sent)
            self._counts.clear()
            self._judge(self.lost)

    def _judge(self, lost: float) -> None:
        """Raise the rate, lower it, or count this loss as usual."""
        if lost <= self.usual + max(TOLERATED_LOSS, TOLERATED_EXCESS * self.usual):
            self.rate = min(self.limit, self.rate * RISE)
            self.usual, self._before = min(self.usual, (self.usual + lost) / 2), None
        elif self._before is not None and lost > UNCURED_SHARE * self._before:
            self.usual, self._before = lost, None
        else:
            self._before = lost
            self.rate = max(self.limit * LOWEST_SHARE, self.rate * max(0.5, 1 - lost))
