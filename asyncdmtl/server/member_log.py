"""Log lines and events about workers that join, leave or are refused."""

from __future__ import annotations

import logging

from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.net.connection import Connection
from asyncdmtl.server.events import Joined, Left, LockedOut, OnEvent, Refused
from asyncdmtl.server.member import is_final

log = logging.getLogger(__name__)


class MemberLog:
    """Writes a log line and emits an event for each worker that joins, leaves or is refused.

    Parameters
    ----------
    run : str
        The run's name.
    emit : callable
        Is called with each event.
    """

    def __init__(self, run: str, emit: OnEvent) -> None:
        self._run = run
        self._emit = emit

    def joined(self, connection: Connection, partitions: int, *, again: bool) -> None:
        """A worker joined with this number of partitions; `again` if it had been a member before."""
        self._emit(Joined(connection.session.worker, partitions, again))
        log.info(
            "run %s: %s joined with %d partitions", self._run, connection.peer, partitions,
            extra=self._fields(connection),
        )  # fmt: skip

    def refused(self, connection: Connection, reason: object) -> None:
        """A connection was refused."""
        self._absent(Refused, connection, "is refused:", reason)

    def left(self, connection: Connection, what: str, reason: object) -> None:
        """A worker left before it took part in a round; `what` is a verb that describes how."""
        self._absent(Left, connection, what, reason)

    def delayed(self, kind: str, value: str, seconds: float) -> None:
        """The answer to a failed proof from the address `value` is delayed by `seconds`."""
        self._emit(LockedOut(kind, value, seconds))

    def broken(self, connection: Connection) -> None:
        """The server itself failed while it admitted a worker: log the current exception."""
        log.exception("admission of %s failed", connection.peer, extra=self._fields(connection))

    def _absent(self, event: type[Left | Refused], connection: Connection, what: str, reason: object) -> None:
        log.warning(
            "run %s: %s %s %s", self._run, connection.peer, what, reason, extra=self._fields(connection)
        )
        own = isinstance(reason, UsageError) and not connection.worker_may_return
        final = own or (isinstance(reason, AsyncDMTLError) and is_final(reason))
        self._emit(event(connection.session.worker, str(reason), final))

    def _fields(self, connection: Connection) -> dict[str, str]:
        """The fields of a log line about a worker."""
        return {"run": self._run, "worker": connection.session.worker}
