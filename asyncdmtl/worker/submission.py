"""The submission of jobs to a server's stream, and the wait for their ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError
from asyncdmtl.net.authentication import StandbyOrdered, WorkerSecurity, greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import LONGEST_WAIT, check_positive, connect
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.joining import SUBMITS
from asyncdmtl.protocol.messages.registry import VERSION, Hello, JobEnded, StreamEnd, Submit
from asyncdmtl.protocol.messages.streams import Then


@dataclass(frozen=True)
class SubmitOptions:
    """How a program submits jobs.

    Attributes
    ----------
    name : str
        The program's name, whose secret it proves to know.
    ends : bool
        Whether the server takes no more jobs after these.
    max_wait : float
        Seconds to wait for the server to be up.
    silence_timeout : float
        Seconds for a sign of life from the server.
    """

    name: str
    ends: bool = False
    max_wait: float = 60.0
    silence_timeout: float = 10.0

    def __post_init__(self) -> None:
        check_positive(silence_timeout=self.silence_timeout)


async def submit(
    address: tuple[str, int],
    jobs: Sequence[str],
    options: SubmitOptions,
    security: WorkerSecurity,
    on_end: Callable[[JobEnded], None],
) -> None:
    """Submit jobs to a server, and wait until all of them have ended.

    Parameters
    ----------
    address : tuple of host and port
    jobs : sequence of str
        The table of each job as JSON, with its name.
    options : SubmitOptions
    security : WorkerSecurity
    on_end : callable
        Called with the end of each job.

    Raises
    ------
    PeerError
        The server takes no jobs from programs, or no more.
    AuthenticationError, LinkError, WaitError, RemoteProtocolError
        As for a worker.
    """
    silence = options.silence_timeout
    async with submitting(address, options, security) as connection:
        last = Then.END if options.ends else Then.WAIT
        for job in jobs[:-1]:
            await connection.send(Submit(job, Then.MORE), silence, "--silence-timeout")
        await connection.send(Submit(jobs[-1] if jobs else "", last), silence, "--silence-timeout")
        while True:
            message: JobEnded | StreamEnd
            message = await connection.receive((JobEnded, StreamEnd), LONGEST_WAIT, "--silence-timeout")
            if isinstance(message, StreamEnd):
                return
            on_end(message)


@asynccontextmanager
async def submitting(
    address: tuple[str, int], options: SubmitOptions, security: WorkerSecurity
) -> AsyncIterator[Connection]:
    """A connection over which jobs are submitted; the server learns of an error that ends the block.

    Raises as `submit`; PeerError with the exit code of UsageError if the server makes one run.
    """
    silence, tls = options.silence_timeout, security.channels(address[0])
    connection = await connect(
        *address, lambda: Connection("worker", Ledger(), silence, options.name, tls=tls), options.max_wait
    )
    try:
        await _greet(connection, options, security)
        yield connection
    except AsyncDMTLError as error:
        await connection.fail(error)
        raise
    finally:
        await connection.close()


async def _greet(connection: Connection, options: SubmitOptions, security: WorkerSecurity) -> None:
    """Greet the server; RemoteProtocolError if it takes the program for a worker."""
    hello = Hello(VERSION, options.name, options.silence_timeout, SUBMITS)
    try:
        await greet_server(connection, hello, security.secret, options.silence_timeout)
    except StandbyOrdered:
        return
    raise RemoteProtocolError(f"{connection.peer} takes a program that submits jobs for a worker")
