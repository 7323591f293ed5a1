"""A worker's part in a stream of jobs: it stands by, and takes part in each job to which it is called."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NoReturn

from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import LONGEST_WAIT
from asyncdmtl.protocol.messages.joining import NO_RUN
from asyncdmtl.protocol.messages.registry import JobCall, StreamEnd

log = logging.getLogger(__name__)

# The most jobs in which a worker takes part at one time; a server never calls it to more.
MOST_JOBS = 64

# A context in which a job computes.
Turn = Callable[[], contextlib.AbstractAsyncContextManager[None]]


class Turns:
    """Lets one job compute at a time, the one that was called first; others receive and send meanwhile."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @contextlib.asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        """Wait for a turn. Among those that wait, the lowest rank comes first."""
        if self._taken:
            freed = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._numbers), freed))
            try:
                await freed
            except asyncio.CancelledError:
                if not freed.cancelled():
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the turn to the next that waits."""
        while self._waiting:
            freed = heapq.heappop(self._waiting)[2]
            if not freed.done():
                freed.set_result(None)
                return
        self._taken = False


@dataclass(frozen=True)
class JobPlace:
    """What a worker's part in a job has to do with other jobs.

    Attributes
    ----------
    run : str
        The run for which the worker greets the server; `NO_RUN` outside of streams.
    job, target : str
        As in `JobCall`.
    turn : callable
        Makes the context in which the job computes.
    """

    run: str = NO_RUN
    job: str = ""
    target: str = ""
    turn: Turn = field(default=contextlib.nullcontext, compare=False)


# The place of a worker whose server makes one run only.
ALONE = JobPlace()


class StreamOver(Exception):  # noqa: N818 - no error
    """The stream of jobs is over.

    Attributes
    ----------
    made : int
        The jobs in which the worker took part.
    failed : dict of job to AsyncDMTLError
        Those of them in which its part failed.
    """

    def __init__(self, made: int, failed: dict[str, AsyncDMTLError]) -> None:
        self.made = made
        self.failed = failed
        super().__init__(f"{made} jobs are over, of which {len(failed)} failed")


class JobStream:
    """The jobs of a stream in which a worker takes part.

    Parameters
    ----------
    take_part : callable
        Takes part in the job of a `JobPlace`, until its end; it raises AsyncDMTLError if that fails.
    """

    def __init__(self, take_part: Callable[[JobPlace], Coroutine[Any, Any, None]]) -> None:
        self._take_part = take_part
        self._turns = Turns()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, AsyncDMTLError] = {}
        self._made = 0

    async def follow(self, connection: Connection) -> NoReturn:
        """Take part in all jobs to which the server calls over this connection.

        Raises
        ------
        StreamOver
            The server said so, and all jobs have ended here.
        AsyncDMTLError
            The connection has ended. Jobs go on, and another connection may be followed.
        """
        while True:
            message: JobCall | StreamEnd
            message = await connection.receive((JobCall, StreamEnd), LONGEST_WAIT, "--start-timeout")
            if isinstance(message, StreamEnd):
                if tasks := list(self._tasks.values()):
                    await asyncio.wait(tasks)
                raise StreamOver(self._made, self._failed)
            # After a lost connection, the server repeats its calls.
            if message.run not in self._tasks:
                self._begin(connection, message)

    async def close(self) -> None:
        """Stop all jobs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, connection: Connection, call: JobCall) -> None:
        if len(self._tasks) >= MOST_JOBS:
            raise RemoteProtocolError(f"{connection.peer} calls to more than {MOST_JOBS} jobs at one time")
        place = JobPlace(call.run, call.job, call.target, partial(self._turns.turn, self._made))
        self._made += 1
        self._tasks[call.run] = asyncio.create_task(self._make(place))

    async def _make(self, place: JobPlace) -> None:
        try:
            await self._take_part(place)
        except AsyncDMTLError as error:
            log.warning("job %s: %s", place.job, error, extra={"run": place.run})
            self._failed[place.job] = error
        except Exception as error:
            # A bug that one job meets must not end the others.
            log.exception("job %s failed", place.job, extra={"run": place.run})
            self._failed[place.job] = AsyncDMTLError(f"internal error: {error!r}")
        finally:
            del self._tasks[place.run]
