"""A stream of jobs on this machine: the server in this process, and workers that take part in all jobs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from asyncdmtl.launch.threads import ENDING_SECONDS, LOOPBACK, TakePart, best_told, failures
from asyncdmtl.net.authentication import ServerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.server.events import JobEvent, Listening, OnEvent, Planned, ServerEvent
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, StreamOptions


async def serve_stream(
    jobs: Sequence[Job], options: StreamOptions, workers: Mapping[str, TakePart], on_event: OnEvent
) -> list[JobOutcome]:
    """Make jobs with `workers` on the loopback interface, and return their outcomes.

    If a worker fails before any job has begun its training, the stream ends with the worker's error, and so
    it does if all workers have failed. A worker that fails otherwise is missed by the jobs in progress only.

    Raises
    ------
    AsyncDMTLError
        The stream could not be made.
    """
    outcomes: list[JobOutcome] = []
    address = asyncio.get_running_loop().create_future()
    training = False

    def note(event: ServerEvent) -> None:
        nonlocal training
        training = training or (isinstance(event, JobEvent) and isinstance(event.event, Planned))
        if isinstance(event, Listening):
            address.set_result((event.host, event.port))
        on_event(event)

    # Hexadecimal text, since worker processes get the secret in an environment variable.
    secret = secrets.token_hex(32).encode()
    made = JobServer(options, note, outcomes.append, ServerSecurity(Credentials(secret, {}, "this stream")))
    server = asyncio.create_task(made.make_all(jobs, LOOPBACK, 0))
    tasks: list[asyncio.Task[Any]] = []
    try:
        await asyncio.wait([server, address], return_when=asyncio.FIRST_COMPLETED)
        if address.done():
            host, port = address.result()
            tasks = [asyncio.create_task(join(host, port, secret)) for join in workers.values()]
        pending: set[asyncio.Task[Any]] = {server, *tasks}
        while not server.done() and _may_go_on(tasks, training=training):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if not server.done():
            raise best_told(tasks)
        server.result()
        await asyncio.wait(tasks, timeout=ENDING_SECONDS)
    finally:
        for task in (server, *tasks):
            task.cancel()
        await asyncio.gather(server, *tasks, return_exceptions=True)
    return outcomes


def _may_go_on(tasks: Sequence[asyncio.Task[Any]], *, training: bool) -> bool:
    """Whether the workers that have failed, if any, leave a stream that may go on."""
    failed = failures(tasks)
    return not failed or (training and len(failed) < len(tasks))
