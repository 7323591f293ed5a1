"""The speed of a link as its receiving end sees it, by the times at which the bytes of messages arrive."""

from __future__ import annotations

# The bytes from which on their times tell the speed of a link. Fewer tell of its latency, or arrive at once.
LEAST_BYTES = 1 << 15


class Arrivals:
    """The arrivals of bytes on one connection.

    Between messages a link may have nothing to carry. So only the time within messages counts: from the first
    bytes of each to its last ones, with the bytes that came after the first ones. What the sender knows tells
    less: the kernel's `tcpi_delivery_rate` is that of the last bytes only, which may be few, and its time of
    waiting for acknowledgements contains queues on the way back. The class reads no clock.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._bytes = 0
        self._seconds = 0.0

    def note(self, count: int, now: float, *, complete: bool) -> None:
        """Note that bytes have arrived, with which all messages so far are `complete` or not."""
        if self._last is not None:
            self._bytes += count
            self._seconds += now - self._last
        self._last = None if complete else now

    def rate(self) -> float:
        """Bits per second since the last call that told a rate; 0 if too little has come to tell one."""
        if self._bytes < LEAST_BYTES or self._seconds <= 0.0:
            return 0.0
        rate = 8.0 * self._bytes / self._seconds
        self._bytes, self._seconds = 0, 0.0
        return rate
