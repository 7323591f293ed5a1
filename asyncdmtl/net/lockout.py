"""Who is let near: strangers are few, and those who failed to prove who they are wait.

Members are none of its business: nothing here ends a connection that has joined.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

# Connections that have not joined yet: all together, and from one address.
MOST_STRANGERS = 1024
MOST_FROM_ONE = 256

# So many failed attempts are borne; each one after makes the wait twice as long. The longest is shorter than
# --max-wait: who has the right secret, at the address of one who has not, gets in.
PATIENCE = 5
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0

# Seconds after the last failure until it is forgotten, and how many addresses and names are remembered.
FORGET = 900.0
MOST_REMEMBERED = 4096


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0
    until: float = 0.0


class Lockout:
    """Counts strangers and failed attempts, per address and per name; its memory is bounded.

    An address is an IPv4 address or the first 64 bits of an IPv6 address, which one site has to itself.

    Parameters
    ----------
    clock : callable
        Seconds that never run backwards.
    most_strangers, most_from_one : int
        Connections that have not joined yet: all together, and from one address.

    Attributes
    ----------
    on_lockout : callable or None
        Called with "address" or "name", which one it is, and for how many seconds it is locked out.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        most_strangers: int = MOST_STRANGERS,
        most_from_one: int = MOST_FROM_ONE,
    ) -> None:
        self.on_lockout: Callable[[str, str, float], None] | None = None
        self._clock = clock
        self._most_strangers = most_strangers
        self._most_from_one = most_from_one
        self._strangers: Counter[str] = Counter()
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._known: OrderedDict[str, str] = OrderedDict()

    def enter(self, address: str) -> bool:
        """A stranger comes from `address`: True if it may speak; then `leave` must follow."""
        site = _site(address)
        if (
            self._strangers.total() >= self._most_strangers
            or self._strangers[site] >= self._most_from_one
            or self._wait("address", site) > 0
        ):
            return False
        self._strangers[site] += 1
        return True

    def leave(self, address: str) -> None:
        """A stranger that had entered is none any more."""
        site = _site(address)
        self._strangers[site] -= 1
        if not self._strangers[site]:
            del self._strangers[site]

    def wait(self, name: str, address: str) -> float:
        """Seconds until one who says to be `name` may try; 0 where that name has come from before.

        So nobody who fails in a worker's name keeps that worker out.
        """
        return 0.0 if self._known.get(name) == _site(address) else self._wait("name", name)

    def failed(self, name: str | None, address: str) -> None:
        """One who said to be `name`, or had not said yet, could not prove who it is."""
        self._fail("address", _site(address))
        if name is not None:
            self._fail("name", name)

    def succeeded(self, name: str, address: str) -> None:
        """`name` has proven who it is."""
        self._known[name] = _site(address)
        self._known.move_to_end(name)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        for key in (("address", _site(address)), ("name", name)):
            self._records.pop(key, None)

    def _fail(self, kind: str, value: str) -> None:
        record = self._records.setdefault((kind, value), _Record())
        self._records.move_to_end((kind, value))
        if len(self._records) > MOST_REMEMBERED:
            self._records.popitem(last=False)
        now = self._clock()
        record.failures = 1 if now - record.last > FORGET else record.failures + 1
        record.last = now
        if record.failures < PATIENCE:
            return
        wait = min(FIRST_WAIT * 2.0 ** min(record.failures - PATIENCE, 64), LONGEST_WAIT)
        record.until = now + wait
        log.warning(
            "%s %s is locked out for %g s: %d failed attempts to prove an identity",
            kind, value, wait, record.failures, extra={"locked_out": value},
        )  # fmt: skip
        if self.on_lockout is not None:
            self.on_lockout(kind, value, wait)

    def _wait(self, kind: str, value: str) -> float:
        record = self._records.get((kind, value))
        return 0.0 if record is None else max(0.0, record.until - self._clock())


def _site(address: str) -> str:
    """The part of an address that one site has to itself; other text (a name, a path) as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
