"""A stream of jobs: one server and its workers make several runs at the same time.

Workers stand by over one connection each. The server calls them to every job, and for each job they greet it
over a further connection, with the name of the job's run. So the bytes of jobs stay apart, and what ends one
job does not end another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.authentication import UNSECURED_SERVER, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import check_positive, listen
from asyncdmtl.protocol.messages.registry import Hello, JobCall
from asyncdmtl.protocol.messages.streams import LONGEST_JOB_NAME, LONGEST_TARGET, is_job_name
from asyncdmtl.server.events import Listening, OnEvent
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server
from asyncdmtl.server.standby import StandbyList
from asyncdmtl.server.start_watch import StartWatch
from asyncdmtl.server.submissions import Submissions

log = logging.getLogger(__name__)

# The most jobs that are made at one time by default: enough that links and processors are busy at all times.
IN_FLIGHT = 4

# The most jobs that may be made at one time. Each worker has a connection, buffers and rows for each of them.
MOST_IN_FLIGHT = 64

# Why a job ends whose workers were in a program that has ended, or whose connection was lost.
PROGRAM_GONE = "the program that brings the workers of this job is gone"

# The most jobs that wait for a place among these; `submit` waits until one of them has begun.
MOST_WAITING = 1024


@dataclass(frozen=True)
class Job:
    """One job of a stream.

    Attributes
    ----------
    name : str
        Its name in the stream, at most 64 letters, digits, '-', '_' and '.'.
    options : RunOptions
        The options of its run, as for a run of its own; without checkpoints, and with rows
        over TCP from the server.
    target : str
        The column that is predicted; empty for that of the workers' own options.
    brought : bool
        Whether the program that submits the job brings its workers, and those that stand by have no part in
        it. The job ends with the program's connection.

    Raises
    ------
    UsageError
        The name or the target breaks a rule, or an option is not for streams.
    """

    name: str
    options: RunOptions
    target: str = ""
    brought: bool = False

    def __post_init__(self) -> None:
        if not is_job_name(self.name):
            rule = f"must be 1 to {LONGEST_JOB_NAME} letters, digits, '-', '_' and '.', the first no '.'"
            raise UsageError("name of a job", rule, self.name)
        if len(self.target) > LONGEST_TARGET:
            raise UsageError("target of a job", f"must have at most {LONGEST_TARGET} characters", self.target)
        for option, given in (
            ("--checkpoint", self.options.checkpoint is not None),
            ("--downlink", self.options.multicast is not None or self.options.peers),
        ):
            if given:
                raise UsageError(option, "is for a run of its own, not for a stream of jobs", self.name)


@dataclass(frozen=True, eq=False)
class JobOutcome:
    """The end of a job: its record, or the error that ended it. One of both is None."""

    job: Job
    record: RunRecord | None
    error: AsyncDMTLError | None = None


@dataclass(frozen=True)
class StreamOptions:
    """The options of a stream.

    Attributes
    ----------
    in_flight : int
        The most jobs that are made at one time.
    any_order : bool
        Whether outcomes are told as jobs end, instead of in the order of submission.
    silence_timeout : float
        Seconds for a sign of life from a worker that stands by.
    """

    in_flight: int = IN_FLIGHT
    any_order: bool = False
    silence_timeout: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.in_flight <= MOST_IN_FLIGHT:
            raise UsageError("--in-flight", f"must lie between 1 and {MOST_IN_FLIGHT}", self.in_flight)
        check_positive(silence_timeout=self.silence_timeout)


# Makes the job of a table that a program submitted; it raises UsageError if that breaks a rule.
ReadJob = Callable[[Mapping[str, Any]], Job]


class JobServer:
    """Makes a stream of jobs with workers that stand by.

    A job that fails ends with its error; the others go on.

    Parameters
    ----------
    options : StreamOptions
    emit : callable
        Called with each event of the server; those of a job are in a `JobEvent`.
    on_outcome : callable
        Called with the outcome of each job, in the order of submission unless `any_order` is set.
    security : ServerSecurity
    read_job : callable, optional
        Makes the job of a table that a program submits; without it, the server takes no such jobs.

    Attributes
    ----------
    submissions : Submissions or None
        The jobs of programs.
    """

    def __init__(
        self,
        options: StreamOptions,
        emit: OnEvent,
        on_outcome: Callable[[JobOutcome], None],
        security: ServerSecurity = UNSECURED_SERVER,
        read_job: ReadJob | None = None,
    ) -> None:
        self._options = options
        self._emit = emit
        self._security = security
        self._stream = secrets.token_hex(4)
        self._waiting: asyncio.Queue[tuple[int, Job] | None] = asyncio.Queue(MOST_WAITING)
        # The names of all jobs that were submitted.
        self._names: set[str] = set()
        self._running: dict[str, Server] = {}
        # The watches of jobs in progress whose workers came with a program, by the job's name.
        self._brought: dict[str, StartWatch] = {}
        self._outcomes = _InOrder(on_outcome)
        self.submissions: Submissions | None = None
        if read_job is not None:
            read = read_job

            async def add(table: Mapping[str, Any]) -> None:
                await self.submit(read(table))

            self.submissions = Submissions(add, self.end, self._abandon)
        self._standby = StandbyList(self._stream, options.silence_timeout, security, emit, self.submissions)

    async def submit(self, job: Job) -> None:
        """Add a job to the stream; waits while `MOST_WAITING` jobs wait for their beginning.

        Raises
        ------
        UsageError
            A job of the stream has this name already.
        """
        if job.name in self._names:
            raise UsageError("name of a job", "must be that of no other job in the stream", job.name)
        number = len(self._names)
        self._names.add(job.name)
        await self._waiting.put((number, job))

    async def end(self) -> None:
        """Say that no more jobs will be submitted."""
        await self._waiting.put(None)

    async def make_all(self, jobs: Sequence[Job], host: str, port: int) -> None:
        """Submit these jobs, and make them and those of programs, if it takes any.

        Raises as `submit` and `run`.
        """

        async def submit() -> None:
            for job in jobs:
                await self.submit(job)
            if self.submissions is None:
                await self.end()

        async with _tasks() as group:
            group.create_task(submit())
            await self.run(host, port)

    async def run(self, host: str, port: int) -> None:
        """Listen on an address, and make the jobs that are submitted, until `end` is called.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        Exception
            What `on_outcome` raised, which ends the stream.
        """
        socket = await listen(host, port, lambda: self._standby.accept(self._admit))
        try:
            address = socket.sockets[0].getsockname()[:2]
            self._emit(Listening(self._stream, *address))
            log.info("stream %s: listening on %s", self._stream, format_address(*address))
            await self._make_submitted()
            if self.submissions is not None:
                await self.submissions.close()
            await self._standby.dismiss()
        except BaseException:
            await self._standby.fail(AsyncDMTLError("the server was stopped"))
            raise
        finally:
            socket.close()
            await self._standby.close()

    async def _make_submitted(self) -> None:
        """Make all jobs that are submitted, as many at one time as are permitted."""
        places = asyncio.Semaphore(self._options.in_flight)
        async with _tasks() as group:
            while True:
                await places.acquire()
                if (item := await self._waiting.get()) is None:
                    return
                group.create_task(self._make(*item, places))

    async def _make(self, number: int, job: Job, places: asyncio.Semaphore) -> None:
        """Make a job, whatever becomes of it, and tell its outcome."""
        try:
            outcome = JobOutcome(job, await self._made(job))
        except AsyncDMTLError as error:
            outcome = JobOutcome(job, None, error)
        except Exception as error:
            # A bug that one job meets must not end the others.
            log.exception("job %s failed", job.name)
            outcome = JobOutcome(job, None, AsyncDMTLError(f"internal error: {error!r}"))
        finally:
            places.release()
        # A program with workers of its own waits for nothing but its job.
        self._outcomes.note(number, outcome, at_once=self._options.any_order or job.brought)

    async def _made(self, job: Job) -> RunRecord:
        here = (lambda: job.options.workers or 0) if job.brought else self._standby.__len__
        watch = StartWatch(job.name, job.options.workers, self._emit, here)
        server = Server(job.options, watch.note, self._security)
        self._running[server.name] = server
        log.info("job %s: run %s begins", job.name, server.name, extra={"run": server.name})
        call = JobCall(server.name, job.name, job.target)
        try:
            if job.brought:
                self._brought[job.name] = watch
                self._call_program(call)
            else:
                self._standby.call(call)
            return await watch.watched(server.make())
        finally:
            del self._running[server.name]
            self._brought.pop(job.name, None)
            self._standby.recall(server.name)

    def _call_program(self, call: JobCall) -> None:
        """Call the program that brings the workers of a job; AsyncDMTLError if it is gone."""
        if self.submissions is None:
            raise UsageError("brought", "is for jobs that programs submit", call.job)
        if not self.submissions.call(call):
            raise AsyncDMTLError(PROGRAM_GONE)

    def _abandon(self, job: str) -> None:
        """End a job whose workers came with a program that is gone; others go on without their program."""
        if (watch := self._brought.get(job)) is not None:
            watch.end(AsyncDMTLError(PROGRAM_GONE))

    def _admit(self, connection: Connection, hello: Hello) -> bool:
        """Let the job for which a worker comes admit it; whether there is such a job."""
        found = self._running.get(hello.run)
        if found is not None:
            found.admit(connection, hello)
        return found is not None


class _InOrder:
    """Tells outcomes in the order of submission, but for those that are told at once.

    Parameters
    ----------
    tell : callable
        Called with each outcome.
    """

    def __init__(self, tell: Callable[[JobOutcome], None]) -> None:
        self._tell = tell
        self._told = 0
        # Outcomes that wait for those of jobs before them; None for those that are told.
        self._held: dict[int, JobOutcome | None] = {}

    def note(self, number: int, outcome: JobOutcome, *, at_once: bool) -> None:
        """Tell the outcome of the job with this number, or keep it until those before it are told."""
        if at_once:
            self._tell(outcome)
        self._held[number] = None if at_once else outcome
        while self._told in self._held:
            held = self._held.pop(self._told)
            self._told += 1
            if held is not None:
                self._tell(held)


@asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of tasks. The first error of the block and of all tasks is raised as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
