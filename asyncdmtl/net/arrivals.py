"""The speed of a link as its receiving end sees it, by the times at which the bytes of messages arrive."""

from __future__ import annotations

import math
from fractions import Fraction

# The bytes from which on their times tell the speed of a link. Fewer tell of its latency, or arrive at once.
LEAST_BYTES = 1 << 15

# The classes of speeds, for each factor of two, by which arrivals are sorted: speeds in one class differ by a
# tenth at most.
CLASSES_PER_OCTAVE = 8

# The class of bytes that arrived at the same moment as those before.
_AT_ONCE = 1 << 16

# The share of the bytes, those with the lowest and those with the highest speeds, that do not count.
ASIDE = Fraction(1, 4)


class Arrivals:
    """The arrivals of bytes on one connection.

    Between messages a link may have nothing to carry. So only the time within messages counts: from the first
    bytes of each to its last ones, with the bytes that came after the first ones. Within a message, too, the
    sender may wait, for acknowledgements that queue on the way back; and bytes that waited in a buffer arrive
    at once. Both are few of the bytes on a link that is busy, so that the speed is that of the middle half of
    all bytes, sorted by the speed at which each of them came.

    What the sender knows tells less: the kernel's `tcpi_delivery_rate` is that of the last bytes only, which
    may be few, and its time of waiting for acknowledgements contains queues on the way back. The class reads
    no clock.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._bytes = 0
        # Bytes and seconds of the arrivals in each class of speeds.
        self._classes: dict[int, tuple[int, float]] = {}

    def note(self, count: int, now: float, *, complete: bool) -> None:
        """Note that bytes have arrived, with which all messages so far are `complete` or not."""
        if self._last is not None:
            seconds = now - self._last
            class_ = math.floor(CLASSES_PER_OCTAVE * math.log2(count / seconds)) if seconds > 0 else _AT_ONCE
            bytes_before, seconds_before = self._classes.get(class_, (0, 0.0))
            self._classes[class_] = bytes_before + count, seconds_before + seconds
            self._bytes += count
        self._last = None if complete else now

    def rate(self) -> float:
        """Bits per second since the last call that told a rate; 0 if too little has come to tell one."""
        if self._bytes < LEAST_BYTES:
            return 0.0
        first, last = float(ASIDE * self._bytes), float((1 - ASIDE) * self._bytes)
        passed, counted, time = 0, 0.0, 0.0
        for _, (count, seconds) in sorted(self._classes.items()):
            among = max(0.0, min(last, passed + count) - max(first, passed))
            counted += among
            time += seconds * among / count
            passed += count
        if time <= 0.0:
            return 0.0
        self._bytes, self._classes = 0, {}
        return 8.0 * counted / time
