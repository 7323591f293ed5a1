"""Failed proofs of identity: each is answered late, and delays nothing but its own connection.

A worker with the right secret is never delayed, wherever proofs in its name or from its address have failed:
many sites share one address, and everybody can claim a name.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from asyncdmtl.net.sites import site_of

log = logging.getLogger(__name__)

# Failed proofs from one site that are answered at once: people mistype secrets.
FREE_FAILURES = 5

# Seconds by which the first answer after these is delayed; each further one is delayed twice as long.
FIRST_DELAY = 0.1

# Seconds of the longest delay. With as many connections as a server takes from one site, a site can try some
# fifty secrets a second: none of 128 bits is found.
LONGEST_DELAY = 5.0

# Seconds after the last failure of a site until its failures are forgotten.
FORGET_SECONDS = 900.0

# Sites whose failures are remembered: memory is bounded.
MAX_SITES = 4096


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0


class FailedProofs:
    """Counts failed proofs of each site, and says by how much the answer to one is delayed.

    Parameters
    ----------
    clock : callable
        Seconds that never run backwards.

    Attributes
    ----------
    on_delay : callable or None
        Called with "address", the site, and the seconds by which the answer to its failed proof is delayed.
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
        # The exponent is limited before the power is: a float holds no larger one.
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
