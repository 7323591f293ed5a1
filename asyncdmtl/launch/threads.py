"""A whole run in this process: server and workers on an event loop in a thread of its own, over real TCP.

They share a secret, so that nobody else on this machine can take part.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np

from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import LinkError, PeerError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import single_threaded
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.server.membership import Event as ServerEvent
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server
from asyncdmtl.worker.worker import Worker, WorkerOptions

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")
OnEvent = Callable[[ServerEvent], None]

# Takes part in the run of the server at this host and port, whose secret is this.
WorkerData = Callable[[str, int, bytes], Coroutine[Any, Any, TaskModels]]

HERE = "127.0.0.1"

# Seconds. Who runs in this very process cannot vanish from it, and may compute, or be suspended, for long.
PATIENCE = 7 * 86400.0

# Seconds for workers to end once the server has.
GRACE = 5.0


def run_in_threads(
    options: RunOptions, stored: Mapping[str, Sequence[Stored]], on_event: OnEvent | None = None
) -> tuple[RunRecord, TaskModels]:
    """Make a run in this process and return when it is over.

    May be called where an event loop runs already, as in a notebook, which then waits. Ctrl-C ends the run.

    Parameters
    ----------
    options : RunOptions
        Its limits on waits do not count here.
    stored : mapping of worker to sequence of Stored
        Who takes part, and with what.
    on_event : callable, optional
        Called with every event of the server, in the thread of the run.

    Returns
    -------
    record : RunRecord
    models : TaskModels
        Of all tasks, in the order of `record.problem.tasks`.

    Raises
    ------
    AsyncDMTLError
        What ended the run, from whoever knows most of it.
    """
    options = replace(
        options,
        join_timeout=PATIENCE,
        round_timeout=PATIENCE,
        silence_timeout=PATIENCE,
        rejoin_timeout=0.0,
    )
    workers = {name: _participant(name, partitions) for name, partitions in stored.items()}
    return run_apart(serve(options, workers, on_event))


async def serve(
    options: RunOptions, workers: Mapping[str, WorkerData], on_event: OnEvent | None = None
) -> tuple[RunRecord, TaskModels]:
    """Serve a run on the loopback in which `workers` take part.

    A worker that fails before training has begun ends the run; later it is the server's affair, which goes on
    if it can. Returns and raises as `run_in_threads`.
    """
    address = asyncio.get_running_loop().create_future()
    begun = False

    def note(event: ServerEvent) -> None:
        nonlocal begun
        begun = begun or event["event"] == "planned"
        if event["event"] == "listening":
            address.set_result((event["host"], event["port"]))
        if on_event is not None:
            on_event(event)

    secret = secrets.token_bytes(32)
    security = ServerSecurity(Credentials(secret, {}, "this run"))
    server = asyncio.create_task(Server(options, note, security).run(HERE, 0))
    tasks: dict[str, asyncio.Task[TaskModels]] = {}
    try:
        await asyncio.wait([server, address], return_when=asyncio.FIRST_COMPLETED)
        if address.done():
            host, port = address.result()
            tasks = {name: asyncio.create_task(join(host, port, secret)) for name, join in workers.items()}
        pending: set[asyncio.Task[Any]] = {server, *tasks.values()}
        while not server.done() and (begun or not failed(tasks.values())):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await _end(server, tasks)
        if not server.done() or server.exception():
            raise best_told([server, *tasks.values()])
    finally:
        for task in (server, *tasks.values()):
            task.cancel()
        await asyncio.gather(server, *tasks.values(), return_exceptions=True)
    record = server.result()
    return record, merged(map(_result, tasks.values()), record.problem.tasks)


def merged(models: Iterable[TaskModels | None], tasks: Sequence[str]) -> TaskModels:
    """The models of `tasks`, each from the first who has it: under `personal` a worker has but its own."""
    first: dict[str, tuple[TaskModels, int]] = {}
    for own in models:
        for t, task in enumerate(own.tasks if own else ()):
            assert own is not None
            first.setdefault(task, (own, t))
    chosen = [first[task] for task in tasks]
    coef = np.array([own.coef_[t] for own, t in chosen])
    return TaskModels(
        tuple(tasks), coef, np.array([own.intercept_[t] for own, t in chosen]), chosen[0][0].loss
    )


def run_apart(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` on an event loop in a thread of its own, and wait for it.

    What interrupts the wait, such as Ctrl-C, cancels `main`, and is raised when that has cleaned up.
    """
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None)
    loop = runner.get_loop()
    task = loop.create_task(main)

    ended = Event()

    def work() -> None:
        try:
            with runner, contextlib.suppress(BaseException):  # the task keeps it for the caller
                loop.run_until_complete(task)
        finally:
            ended.set()

    # All who take part limit BLAS to one thread; around them, it does not matter who lets go of it first.
    with single_threaded():
        thread = Thread(target=work, name="asyncdmtl")
        thread.start()
        try:
            # Not `join`: until Python 3.13, a thread counts as ended when that was interrupted.
            ended.wait()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(task.cancel)
            ended.wait()
            raise
        finally:
            thread.join()
    return task.result()


async def _end(server: asyncio.Task[RunRecord], tasks: Mapping[str, asyncio.Task[TaskModels]]) -> None:
    """Let the workers end that the server has said goodbye to; if it failed, all who were told so."""
    staying = tasks if server.exception() else server.result().plan.placement.workers
    if waited := [tasks[name] for name in staying]:
        await asyncio.wait(waited, timeout=GRACE)


def failed(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException]:
    """The errors of tasks that have failed."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception()) is not None]


def best_told(tasks: Iterable[asyncio.Task[Any]]) -> BaseException:
    """The error of who knows most: not of who was told, or only lost somebody, if there is another."""
    return min(
        failed(tasks), key=lambda error: isinstance(error, PeerError) + 2 * isinstance(error, LinkError)
    )


def _participant(name: str, partitions: Sequence[Stored]) -> WorkerData:
    options = WorkerOptions(name, start_timeout=PATIENCE, round_timeout=PATIENCE, silence_timeout=PATIENCE)

    async def take_part(host: str, port: int, secret: bytes) -> TaskModels:
        return await Worker(options, partitions, WorkerSecurity(secret)).run(host, port)

    return take_part


def _result(task: asyncio.Task[TaskModels]) -> TaskModels | None:
    return None if task.cancelled() or task.exception() else task.result()
