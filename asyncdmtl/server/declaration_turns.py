"""Turns in which the server reads large declarations, so that many of them do not fill its memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from asyncdmtl.net.connection import Connection

# The most bytes of large heads that are read and checked at one time, beside one whole declaration: two heads
# of the greatest length. Read and checked, they take some 12 times as much memory.
MOST_BYTES = 1 << 24

# The number of times, within the permitted silence, that a piece is read of a worker that waits for its turn:
# so it does not count as silent, and the end of its connection is noticed.
PIECES_PER_SILENCE = 4


class DeclarationTurns:
    """Lets workers send large declarations as far as there is room; others wait for their turn.

    Parameters
    ----------
    silence : float
        Seconds for which a worker may be silent.
    """

    def __init__(self, silence: float) -> None:
        self._checking = asyncio.Lock()
        self._pause = silence / PIECES_PER_SILENCE
        # Bytes by connection, in the order in which they came.
        self._taken: dict[Connection, int] = {}
        self._waiting: dict[Connection, int] = {}

    @contextlib.contextmanager
    def turn(self, connection: Connection) -> Iterator[None]:
        """Count the large heads that come over a connection until its worker has joined."""
        connection.session.watch_heads(lambda size: self._announced(connection, size))
        try:
            yield
        finally:
            connection.session.watch_heads(None)
            self._taken.pop(connection, None)
            if self._waiting.pop(connection, None) is not None:
                connection.link.hold(held=False)
            for other, size in list(self._waiting.items()):
                if self._has_room(other, size):
                    del self._waiting[other]
                    self._take(other, size)
                    other.link.hold(held=False)

    def checking(self, connection: Connection) -> contextlib.AbstractAsyncContextManager[None]:
        """Large declarations are checked one at a time, so that the event loop waits for one thread only.

        Others are checked at once.
        """
        return self._checking if connection in self._taken else contextlib.nullcontext()

    def _announced(self, connection: Connection, size: int) -> None:
        """Called when a large head begins to arrive."""
        if self._has_room(connection, size):
            self._take(connection, size)
        else:
            self._waiting[connection] = size
            connection.link.hold(held=True)
            asyncio.get_running_loop().call_later(self._pause, self._let_send, connection)

    def _has_room(self, connection: Connection, size: int) -> bool:
        """Whether a head may be read now. The worker that came first may always go on."""
        first = next(iter(self._taken), connection)
        return first is connection or sum(self._taken.values()) + size <= MOST_BYTES

    def _take(self, connection: Connection, size: int) -> None:
        self._taken[connection] = self._taken.get(connection, 0) + size

    def _let_send(self, connection: Connection) -> None:
        """Let a waiting worker send another piece."""
        if connection in self._waiting:
            connection.link.read_once()
            asyncio.get_running_loop().call_later(self._pause, self._let_send, connection)
