"""The delay of workers that lose their connections again and again."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable

log = logging.getLogger(__name__)

# The number of returns within `REMEMBERED_SECONDS` after which a worker takes part again at once.
FREE_RETURNS = 2

# Seconds of the first delay, the factor by which each further delay is longer, and seconds of the longest.
# A worker that comes back at once, whenever it may, then costs the others five plans for its returns in the
# first 30 s, and two in a minute later.
FIRST_DELAY = 2.0
GROWTH = 3.0
LONGEST_DELAY = 60.0

# Seconds for which a return counts.
REMEMBERED_SECONDS = 600.0

# The most workers whose returns are remembered, those that came back last. This bounds memory.
MAX_NAMES = 4096


class Returns:
    """Says when a worker that comes back takes part again.

    Each loss of a worker, and each return, costs all others a new plan and a round that is made again.

    Parameters
    ----------
    clock : callable
        A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._returns: OrderedDict[str, deque[float]] = OrderedDict()

    def due(self, name: str) -> float:
        """Note that a worker came back; return the time from which it takes part."""
        now = self._clock()
        times = self._returns.setdefault(name, deque(maxlen=FREE_RETURNS + 16))
        self._returns.move_to_end(name)
        if len(self._returns) > MAX_NAMES:
            self._returns.popitem(last=False)
        while times and times[0] < now - REMEMBERED_SECONDS:
            times.popleft()
        times.append(now)
        beyond = len(times) - FREE_RETURNS
        if beyond <= 0:
            return now
        delay = min(LONGEST_DELAY, FIRST_DELAY * GROWTH ** (beyond - 1))
        log.warning(
            "worker %s came back %d times lately: it takes part again in %g s",
            name, len(times), delay,
            extra={"worker": name},
        )  # fmt: skip
        return now + delay
