"""The workers that stand by for a stream of jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.net.authentication import Authenticator, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.failed_proofs import FailedProofs
from asyncdmtl.net.strangers import MadeRoomError, Strangers
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.joining import NO_RUN, SUBMITS
from asyncdmtl.protocol.messages.registry import Hello, JobCall, Standby, StreamEnd
from asyncdmtl.server.admission import make_room
from asyncdmtl.server.events import OnEvent
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import MAX_MEMBERS
from asyncdmtl.server.submissions import Submissions

log = logging.getLogger(__name__)

# Called with a connection and the greeting of a worker that comes for a run; whether that is in progress.
Admit = Callable[[Connection, Hello], bool]


class StandbyList:
    """The workers that stand by, and the jobs to which each of them is called.

    Parameters
    ----------
    stream : str
        The stream's name.
    silence : float
        Seconds for a sign of life.
    security : ServerSecurity
    emit : callable
    submissions : Submissions, optional
        Takes the jobs of programs; without it there are none.
    """

    def __init__(
        self,
        stream: str,
        silence: float,
        security: ServerSecurity,
        emit: OnEvent,
        submissions: Submissions | None = None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self._stream = stream
        self._silence = silence
        self._security = security
        self._submissions = submissions
        self._log = MemberLog(stream, emit)
        failed = FailedProofs(clock)
        failed.on_delay = self._log.delayed
        self._strangers = Strangers[Connection](make_room, clock)
        self._authenticator = Authenticator(stream, security, failed, self._strangers, silence)
        self._workers: dict[str, Connection] = {}
        self._calls: dict[str, JobCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._workers)

    def accept(self, admit: Admit) -> Connection:
        """Make the protocol object of a new connection, whose worker stands by or goes to its job."""

        def opened(connection: Connection) -> None:
            self._strangers.enter(connection, connection.link.host)
            task = asyncio.create_task(self._receive(connection, admit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return Connection("server", Ledger(), self._silence, on_open=opened, tls=self._security.channels)

    def call(self, call: JobCall) -> None:
        """Call all workers to a job: those that are here, and those that come before `recall`."""
        self._calls[call.run] = call
        for connection in list(self._workers.values()):
            _say(connection, call)

    def recall(self, run: str) -> None:
        """Call no further worker to a job, which has ended."""
        self._calls.pop(run, None)

    async def dismiss(self) -> None:
        """Tell all workers that no more jobs will follow."""
        for connection in list(self._workers.values()):
            _say(connection, StreamEnd())
        await self.close()

    async def fail(self, error: AsyncDMTLError) -> None:
        """Tell all workers that the stream failed."""
        await asyncio.gather(*(connection.fail(error) for connection in list(self._workers.values())))

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in list(self._workers.values())))

    async def _receive(self, connection: Connection, admit: Admit) -> None:
        """Receive a worker's greeting, and let it stand by or go to the job for which it comes."""
        try:
            hello = await connection.receive((Hello,), self._silence, "--silence-timeout")
            if hello.run == SUBMITS:
                await self._take_jobs(connection, hello)
                return
            if hello.run != NO_RUN:
                if not admit(connection, hello):
                    raise UsageError("run", "must be that of a job in progress", hello.run)
                return
            await self._stand_by(connection, hello)
        except AsyncDMTLError as error:
            if not (connection.link.nothing_received or isinstance(error, MadeRoomError)):
                self._log.refused(connection, error)
            await connection.fail(error.with_traceback(None))
        except asyncio.CancelledError:
            await connection.fail(AsyncDMTLError("the server ended"))
            raise
        except Exception as error:
            # A bug that one connection meets must not leave its worker waiting, nor go unseen with its task.
            self._log.broken(connection)
            await connection.fail(AsyncDMTLError(f"internal error: {error!r}"))
        finally:
            self._strangers.leave(connection)

    async def _take_jobs(self, connection: Connection, hello: Hello) -> None:
        """Verify the name of a program, and take in the jobs that it submits."""
        hello, proof = await self._authenticator.identify(connection, hello)
        if self._submissions is None:
            raise UsageError("--submissions", "must be given to the server, which takes no jobs", hello.name)
        self._strangers.leave(connection, joined=True)
        log.info("stream %s: %s submits jobs", self._stream, connection.peer, extra={"worker": hello.name})
        connection.write(Standby(self._stream, self._silence, proof, submits=True))
        await self._submissions.serve(connection)

    async def _stand_by(self, connection: Connection, hello: Hello) -> None:
        """Verify the worker's name, add it to the list, and call it to the jobs in progress."""
        hello, proof = await self._authenticator.identify(connection, hello)
        connection.worker_may_return = True
        before = self._workers.get(hello.name)
        if before is not None and not before.lost:
            # That connection may be broken although the server has not noticed it yet.
            raise UsageError("--name", "must be unique; already standing by", hello.name)
        if before is None and len(self._workers) >= MAX_MEMBERS:
            raise UsageError("workers", f"must be at most {MAX_MEMBERS} at one time", hello.name)
        self._workers[hello.name] = connection
        connection.on_lost = lambda: self._on_lost(hello.name, connection)
        self._strangers.leave(connection, joined=True)
        log.info("stream %s: %s stands by", self._stream, connection.peer, extra={"worker": hello.name})
        connection.write(Standby(self._stream, self._silence, proof))
        for call in self._calls.values():
            connection.write(call)

    def _on_lost(self, name: str, connection: Connection) -> None:
        if self._workers.get(name) is connection:
            del self._workers[name]
            log.info("stream %s: worker %r no longer stands by", self._stream, name, extra={"worker": name})


def _say(connection: Connection, message: JobCall | StreamEnd) -> None:
    """Send a message, unless the connection has ended."""
    if not connection.lost:
        connection.write(message)
