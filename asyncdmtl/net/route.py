"""The way of a worker to its server: one of several addresses, at which a server or relays listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import Way, connect_first

# Host and port.
Address = tuple[str, int]

# The number of times in a row that a worker is told to come back, after which it tries the next address. A
# relay that loses a worker joins the run again, and refuses the other workers meanwhile. It is ready before
# so many attempts are over, whose growing pauses take 1.5 s together.
MOST_REFUSALS = 5

# Makes a connection that is not open yet, with TLS or without.
MakeConnection = Callable[[Callable[[], TLSChannel] | None], Connection]


class Route:
    """The addresses of a worker's server, which are tried in order; each must prove its identity.

    After a server that had welcomed the worker is lost, the first address is tried first again. After one
    that did not welcome it, or answers nothing any more, the next address is.

    Parameters
    ----------
    addresses : sequence of host and port
    security : WorkerSecurity
        The proofs that the server at every address must give.
    make : callable
        As `MakeConnection`.

    Raises
    ------
    UsageError
        No certificate can be verified for a host.
    """

    def __init__(self, addresses: Sequence[Address], security: WorkerSecurity, make: MakeConnection) -> None:
        def way(host: str, port: int) -> Way:
            tls = security.channels(host)
            return Way(host, port, lambda: make(tls))

        self._ways = [way(host, port) for host, port in addresses]
        self._first = self._used = 0
        self._refusals = 0

    @property
    def several(self) -> bool:
        """Whether there are other addresses than that of the last connection."""
        return len(self._ways) > 1

    async def connect(self, max_wait: float) -> Connection:
        """Connect to the first address that can be reached; errors are those of `connect_first`."""
        order = [*range(self._first, len(self._ways)), *range(self._first)]
        i, connection = await connect_first([self._ways[k] for k in order], max_wait)
        self._used = order[i]
        return connection

    def note_end(self, *, welcomed: bool, refused: bool, silent: bool = False) -> None:
        """Note that the last connection ended.

        Parameters
        ----------
        welcomed : bool
            Whether the server had welcomed the worker.
        refused : bool
            Whether it told the worker to come back later.
        silent : bool
            Whether nothing was heard from it for too long. It may be frozen, and answer nothing again.
        """
        self._refusals = self._refusals + 1 if refused and not welcomed else 0
        if welcomed and not silent:
            self._first = 0
        elif refused and self._refusals < MOST_REFUSALS:
            self._first = self._used
        else:
            self._first, self._refusals = (self._used + 1) % len(self._ways), 0
