"""The reconnection of a worker that lost its server: whether, how long, and with which pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from asyncdmtl.errors import (
    AsyncDMTLError,
    IntegrityError,
    LinkError,
    PeerError,
    RemoteProtocolError,
    UsageError,
    WaitError,
)
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.route import Route
from asyncdmtl.net.transport import FIRST_RETRY_PAUSE, LONGEST_RETRY_PAUSE

Result = TypeVar("Result")

# The number of consecutive lost connections, without a round in between, each of which restarts --max-wait.
MOST_LOSSES = 20


class Reconnection:
    """Decides how long a worker tries to reconnect, and the growing pauses between attempts.

    The time of `max_wait` starts again with each round, and whenever a server is lost that had welcomed the
    worker, up to `MOST_LOSSES` times in a row.

    Parameters
    ----------
    max_wait : float
        Seconds.
    clock : callable
        A monotonic clock, in seconds.

    """

    def __init__(self, max_wait: float, clock: Callable[[], float]) -> None:
        self._refusal: PeerError | None = None
        self._max_wait = max_wait
        self._clock = clock
        self._end = clock() + max_wait
        self._pause = FIRST_RETRY_PAUSE
        self._losses = 0
        self._welcomed = False

    @property
    def seconds_left(self) -> float:
        """Seconds that are left for making a connection."""
        return max(0.0, self._end - self._clock())

    @property
    def welcomed(self) -> bool:
        """Whether the server of the current connection has welcomed the worker."""
        return self._welcomed

    def note_welcome(self) -> None:
        """Note that the server has welcomed the worker."""
        self._welcomed, self._refusal = True, None

    def note_progress(self) -> None:
        """Note that the run has moved on: a round was made, or the state of the training was received."""
        self._end = self._clock() + self._max_wait
        self._pause, self._losses = FIRST_RETRY_PAUSE, 0

    def permits(self, connection: Connection, error: AsyncDMTLError, *, joined: bool) -> bool:
        """Whether the worker connects again after `error` ended `connection`.

        Parameters
        ----------
        connection : Connection
        error : AsyncDMTLError
        joined : bool
            Whether a server has welcomed this worker before, in this connection or an earlier one, or another
            address is to be tried.
        """
        if isinstance(error, PeerError) and self._refuses(error):
            self._refusal = error
        return _may_return(connection, error, joined=joined) and not self._gives_up(error)

    def give_up(self, error: AsyncDMTLError) -> NoReturn:
        """Raise the error with which the worker gives up after `error`.

        A server that refused the worker may have ended since. Then its reason says more than that it is gone.
        """
        gone = isinstance(error, LinkError | PeerError)
        if gone and self._refusal is not None and self._refusal is not error:
            raise self._refusal from error
        raise error

    async def follow(
        self,
        route: Route,
        work: Callable[[Connection], Awaitable[Result]],
        *,
        joined: Callable[[], bool],
        note: Callable[[AsyncDMTLError], None],
        told: Callable[[AsyncDMTLError], AsyncDMTLError] = lambda error: error,
    ) -> Result:
        """The result of some work with the server, which begins anew over another connection if one is lost.

        Parameters
        ----------
        route : Route
        work : callable
            Gets each connection.
        joined : callable
            Whether the server has welcomed this worker before.
        note : callable
            Gets the error before each further attempt.
        told : callable
            Makes the error that the server is told.

        Raises
        ------
        AsyncDMTLError
            The worker may not connect again, or `max_wait` has passed.
        """
        while True:
            try:
                connection = await route.connect(self.seconds_left)
            except LinkError as error:
                # If the server is gone since it refused this worker, that was the reason.
                self.give_up(error)
            try:
                return await work(connection)
            except AsyncDMTLError as error:
                await connection.fail(told(error))
                route.note_end(
                    welcomed=self._welcomed, refused=connection.worker_may_return, silent=_is_silent(error)
                )
                if not self.permits(connection, error, joined=joined() or route.several):
                    self.give_up(error)
                note(error)
            except Exception as error:
                await connection.fail(told(AsyncDMTLError(f"internal error: {error!r}")))
                raise
            finally:
                await connection.close()
            await self.pause()

    async def pause(self) -> None:
        """Wait before the next attempt; each pause is longer than the one before."""
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_RETRY_PAUSE)

    def _refuses(self, error: PeerError) -> bool:
        """Whether `error` says why the server refuses this worker, and more than an earlier refusal said."""
        if error.exit_code == UsageError.exit_code:
            return True
        ended = error.exit_code == AsyncDMTLError.exit_code
        return not self._welcomed and not (ended and self._refusal is not None)

    def _gives_up(self, error: AsyncDMTLError) -> bool:
        """Whether no time is left for another attempt."""
        if self._welcomed and not isinstance(error, PeerError) and self._losses < MOST_LOSSES:
            self._losses += 1
            self._end = self._clock() + self._max_wait
        self._welcomed = False
        return self._clock() + self._pause > self._end


def _may_return(connection: Connection, error: AsyncDMTLError, *, joined: bool) -> bool:
    """Whether only the connection failed, or the server permits this worker to come back."""
    if isinstance(error, PeerError):
        return connection.worker_may_return
    if isinstance(error, LinkError):
        return True
    # If bytes were corrupted or the server was silent, only the connection failed. A peer that never welcomed
    # the worker may be no server at all.
    return joined and (_is_silent(error) or isinstance(error, RemoteProtocolError | IntegrityError))


def _is_silent(error: AsyncDMTLError) -> bool:
    """Whether nothing was heard from the server for too long."""
    return isinstance(error, WaitError) and error.option == "--silence-timeout"
