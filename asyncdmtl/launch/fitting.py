"""The training of rows in this process with a server elsewhere, which makes one run or a stream of jobs.

A server with a stream gets a job, whose workers are in this process. Several programs may do so at a time,
each with settings and workers of its own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from asyncdmtl.errors import AsyncDMTLError, PeerError, RemoteProtocolError, UsageError
from asyncdmtl.launch.joining import expected_settings, join_together, security_of
from asyncdmtl.launch.threads import run_apart
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import LONGEST_WAIT
from asyncdmtl.protocol.messages.registry import JobCall, JobEnded, StreamEnd, Submit
from asyncdmtl.protocol.messages.streams import LONGEST_JOB, Then
from asyncdmtl.server.records import RunRecord
from asyncdmtl.worker.jobs import JobPlace
from asyncdmtl.worker.submission import SubmitOptions, submitting

# The name for which this program proves a secret when it submits a job, as `asyncdmtl submit` does.
PROGRAM = "submit"


@dataclass(frozen=True)
class Fitting:
    """What is trained with a server elsewhere.

    Attributes
    ----------
    settings : Settings
        Those of a server's run must equal these, but for those in `free`.
    stored : mapping of worker to sequence of Partition
    strategy : str
        The strategy of a job; a server that makes one run has its own.
    free : collection of str
        Settings that a server's run decides.
    job_settings : callable or None
        The settings of a job, in which nothing may be left to a server; default: `settings`.
    """

    settings: Settings
    stored: Mapping[str, Sequence[Partition]]
    strategy: str
    free: Collection[str] = ()
    job_settings: Callable[[], Settings] | None = None


def fit_with_server(host: str, port: int, fitting: Fitting) -> tuple[RunRecord, TaskModels]:
    """Submit a job to a server with a stream of jobs, or take part in the run of a server that makes one.

    Secrets and certificates are as for `join_server`; a job is submitted under the name "submit".

    Returns
    -------
    record, models
        As of `join_server`.

    Raises
    ------
    UsageError
        A setting differs from that of the server's run, or breaks a rule of a job.
    AsyncDMTLError
        The run failed.
    """
    return run_apart(_fit((host, port), fitting))


async def _fit(address: tuple[str, int], fitting: Fitting) -> tuple[RunRecord, TaskModels]:
    security = security_of(PROGRAM, address[0])
    async with AsyncExitStack() as stack:
        try:
            submits = submitting(address, SubmitOptions(PROGRAM), security)
            connection = await stack.enter_async_context(submits)
        except PeerError as error:
            if error.exit_code != UsageError.exit_code:
                raise
            refused = error
        else:
            return await _make_job(connection, address, fitting)
    # The server takes no jobs.
    try:
        expected = expected_settings(fitting.settings, fitting.free)
        return await join_together(*address, expected, fitting.stored)
    except UsageError as error:
        if error.argument != "server":
            raise
        # It makes jobs of a file.
        raise refused from error


async def _make_job(
    connection: Connection, address: tuple[str, int], fitting: Fitting
) -> tuple[RunRecord, TaskModels]:
    """Submit the job, and take part in it with all workers."""
    settings = await asyncio.to_thread(fitting.job_settings or (lambda: fitting.settings))
    job = f"fit-{secrets.token_hex(8)}"
    table = {
        "name": job,
        "settings": settings.as_dict(),
        "strategy": fitting.strategy,
        "workers": len(fitting.stored),
    }
    text = json.dumps(table)
    if len(text) > LONGEST_JOB:
        rule = f"must take at most {LONGEST_JOB} characters as JSON in a job of a server's stream"
        raise UsageError("edges" if settings.edges else "learner", rule, len(text))
    limit = SubmitOptions(PROGRAM).silence_timeout, "--silence-timeout"
    await connection.send(Submit(text, Then.WAIT), *limit)
    call = await _heard(connection)
    if not isinstance(call, JobCall) or call.job != job:
        raise RemoteProtocolError(f"{connection.peer} did not call to the job that was submitted")
    place = JobPlace(call.run, call.job, call.target)
    making = asyncio.create_task(
        join_together(*address, expected_settings(settings, ()), fitting.stored, place)
    )
    ended = asyncio.create_task(_heard(connection))
    try:
        await asyncio.wait((making, ended), return_when=asyncio.FIRST_COMPLETED)
        # What a worker met says more than that the job failed; it ends soon, if the server ended the job.
        await asyncio.wait((making,), timeout=None if not ended.done() else limit[0])
        if making.done() and making.exception() is None:
            # The server must not take the end of this program for that of the workers in their last round.
            await ended
            return making.result()
        raise _cause(making, ended)
    finally:
        for task in (making, ended):
            task.cancel()
        await asyncio.gather(making, ended, return_exceptions=True)


async def _heard(connection: Connection) -> JobCall | JobEnded:
    """The call to the job, or its end; AsyncDMTLError if it failed."""
    wanted = JobCall, JobEnded, StreamEnd
    message: JobCall | JobEnded | StreamEnd
    message = await connection.receive(wanted, LONGEST_WAIT, "--silence-timeout")
    if isinstance(message, StreamEnd):
        raise RemoteProtocolError(f"{connection.peer} ended the stream before the job")
    if isinstance(message, JobEnded) and message.error:
        raise PeerError(message.error, exit_code=message.exit_code)
    return message


def _cause(
    making: asyncio.Task[tuple[RunRecord, TaskModels]], ended: asyncio.Task[JobCall | JobEnded]
) -> BaseException:
    """The error that says most: that of a worker, unless the server told it, or the server was lost."""
    own = making.exception() if making.done() else None
    told = ended.exception() if ended.done() else None
    if isinstance(own, AsyncDMTLError) and not isinstance(own, PeerError):
        return own
    return told or own or AsyncDMTLError("the job ended, and its workers did not")
