"""Failed proofs of identity: the answer to each is delayed, and no other connection is affected.

A worker with the right secret is never delayed, even if other proofs in its name or from its address have
failed: many machines can share one address, and an attacker can claim any name.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from asyncdmtl.net.sites import site_of

log = logging.getLogger(__name__)

# The number of failed proofs from one site that are answered at once, since people mistype secrets.
FREE_FAILURES = 5

# Seconds of delay of the first answer after these. The delay doubles with each further failure.
FIRST_DELAY = 0.1

# Seconds of the longest delay. With all the connections that a server accepts from one site, a site can then
# try some fifty secrets a second, far too few to find one of 128 bits.
LONGEST_DELAY = 5.0

# Seconds after the last failure of a site until its failures are forgotten.
FORGET_SECONDS = 900.0

# The most sites whose failures are remembered, which bounds memory.
MAX_SITES = 4096


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0


class FailedProofs:
    """Counts failed proofs of each site, and computes the delay of each answer.

    Parameters
    ----------
    clock : callable
        A monotonic clock, in seconds.

    Attributes
    ----------
    on_delay : callable or None
        Called with "address", the site, and the seconds of the delay.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.on_delay: Callable[[str, str, float], None] | None = None
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def failed(self, host: str) -> float:
        """Count a failed proof from an address; return the seconds by which its answer is to be delayed."""
        site, now = site_of(host), self._clock()
        record = self._records.setdefault(site, _Record())
        self._records.move_to_end(site)
        if len(self._records) > MAX_SITES:
            self._records.popitem(last=False)
        record.failures = 1 if now - record.last > FORGET_SECONDS else record.failures + 1
        record.last = now
        if record.failures < FREE_FAILURES:
            return 0.0
        # The exponent is limited, too, since a float cannot hold large powers.
        delay = min(FIRST_DELAY * 2.0 ** min(record.failures - FREE_FAILURES, 64), LONGEST_DELAY)
        log.warning(
            "address %s: %d failed proofs of identity; the answer to this one is delayed by %g s",
            site, record.failures, delay, extra={"locked_out": site},
        )  # fmt: skip
        if self.on_delay is not None:
            self.on_delay("address", site, delay)
        return delay

    def succeeded(self, host: str) -> None:
        """Forget the failed proofs of an address from which a worker has proven its name."""
        self._records.pop(site_of(host), None)
