"""The delay of workers that lose their connections again and again."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncdmtl.server.pace import SECONDS_PER_SECOND

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


@dataclass
class _Past:
    """The returns of a worker, and the seconds for which rounds stood still before its losses.

    `debt` has these seconds, of which one is forgotten in `SECONDS_PER_SECOND`; `settled` is the time of its
    value, and `last` has those of the last loss.
    """

    settled: float
    times: deque[float] = field(default_factory=lambda: deque(maxlen=FREE_RETURNS + 16))
    debt: float = 0.0
    last: float = 0.0


class Returns:
    """Says when a worker that comes back takes part again.

    Each loss of a worker, and each return, costs all others a new plan and a round that is made again, and
    one that falls silent costs them the time until it counts as lost. So each further return is delayed
    longer, and after `FREE_RETURNS` losses of some length, ten times as long as rounds stood still.

    Parameters
    ----------
    clock : callable
        A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pasts: OrderedDict[str, _Past] = OrderedDict()

    def lost(self, name: str, seconds: float) -> None:
        """Note that a worker was lost after rounds had stood still for so many seconds."""
        past = self._past(name)
        past.debt, past.last = past.debt + seconds, seconds

    def due(self, name: str) -> float:
        """Note that a worker came back; return the time from which it takes part."""
        now, past = self._clock(), self._past(name)
        times = past.times
        while times and times[0] < now - REMEMBERED_SECONDS:
            times.popleft()
        times.append(now)
        delay = max(0.0, past.debt - FREE_RETURNS * past.last) * SECONDS_PER_SECOND
        if (beyond := len(times) - FREE_RETURNS) > 0:
            delay = max(delay, min(LONGEST_DELAY, FIRST_DELAY * GROWTH ** (beyond - 1)))
        if delay > 0.0:
            log.warning(
                "worker %s came back %d times lately, and rounds stood still for %.1f s before it was lost: "
                "it takes part again in %.3g s",
                name, len(times), past.debt, delay,
                extra={"worker": name},
            )  # fmt: skip
        return now + delay

    def _past(self, name: str) -> _Past:
        """The past of a worker, as of now."""
        now = self._clock()
        past = self._pasts.setdefault(name, _Past(now))
        self._pasts.move_to_end(name)
        if len(self._pasts) > MAX_NAMES:
            self._pasts.popitem(last=False)
        past.debt = max(0.0, past.debt - (now - past.settled) / SECONDS_PER_SECOND)
        past.settled = now
        return past
