"""A run in this process: server and workers share an event loop in a thread of its own, over real TCP.

They share a secret, so that no other process on this machine can take part.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import LinkError, PeerError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.server.events import Listening, OnEvent, Planned, ServerEvent
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")

# A worker for `serve`: a function of host, port and secret of the server, which takes part in the run and
# returns the models, or None if it wants none.
TakePart = Callable[[str, int, bytes], Coroutine[Any, Any, TaskModels | None]]

# The address at which the server of a run on this machine listens.
LOOPBACK = "127.0.0.1"

# A function that shows a run to others while a context lasts: of its server and the function for events that
# it causes itself. The context gives the function that is called with all events of the run.
Watch = Callable[[Server, OnEvent], AbstractAsyncContextManager[OnEvent]]


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and its TLS; port 0 takes a free port."""

    host: str = LOOPBACK
    port: int = 0
    tls: ssl.SSLContext | None = None


# Seconds that server and workers in one process wait for each other at most: a week. Threads cannot vanish as
# machines can, but may compute for days, or sleep with a laptop.
THREAD_PATIENCE = 7 * 86400.0

# Seconds after the end of the server in which workers may end by themselves; after that they are stopped.
ENDING_SECONDS = 5.0


def run_in_threads(
    options: RunOptions, stored: Mapping[str, Sequence[Stored]], on_event: OnEvent | None = None
) -> tuple[RunRecord, TaskModels]:
    """Make a run in this process and return when it is over.

    It may be called from a thread with a running event loop, as in a notebook; that loop is blocked until
    then. Ctrl-C ends the run.

    Parameters
    ----------
    options : RunOptions
        The options of the run; its limits on waits are ignored.
    stored : mapping of worker to sequence of Stored
        The workers and the partitions that each of them stores.
    on_event : callable, optional
        Called with every event of the server, in the thread of the run.

    Returns
    -------
    record : RunRecord
    models : TaskModels
        The models of all tasks, in the order of `record.problem.tasks`.

    Raises
    ------
    AsyncDMTLError
        The run failed. If several sides failed, this is the error of the side that caused it.
    """
    options = replace(
        options,
        join_timeout=THREAD_PATIENCE,
        round_timeout=THREAD_PATIENCE,
        silence_timeout=THREAD_PATIENCE,
        rejoin_timeout=0.0,
    )
    workers = {name: _worker_here(name, partitions) for name, partitions in stored.items()}
    return run_apart(serve(options, workers, on_event))


async def serve(
    options: RunOptions,
    workers: Mapping[str, TakePart],
    on_event: OnEvent | None = None,
    *,
    endpoint: Endpoint | None = None,
    watch: Watch | None = None,
) -> tuple[RunRecord, TaskModels]:
    """Serve a run, by default on the loopback interface, in which `workers` take part.

    If a worker fails before training has begun, the run ends. Later, the server goes on without the worker if
    it can. Returns and raises as `run_in_threads`.
    """
    endpoint = Endpoint() if endpoint is None else endpoint
    address = asyncio.get_running_loop().create_future()
    training = False
    notes = [] if on_event is None else [on_event]

    def note(event: ServerEvent) -> None:
        nonlocal training
        training = training or isinstance(event, Planned)
        if isinstance(event, Listening):
            address.set_result((event.host, event.port))
        for each in notes:
            each(event)

    # Hexadecimal text, since worker processes get the secret in an environment variable.
    secret = secrets.token_hex(32).encode()
    security = ServerSecurity(Credentials(secret, {}, "this run"), endpoint.tls)
    made = Server(options, note, security)

    async def watched() -> RunRecord:
        async with contextlib.AsyncExitStack() as stack:
            if watch is not None:
                notes.append(await stack.enter_async_context(watch(made, note)))
            return await made.run(endpoint.host, endpoint.port)

    server = asyncio.create_task(watched())
    tasks: dict[str, asyncio.Task[TaskModels | None]] = {}
    try:
        await asyncio.wait([server, address], return_when=asyncio.FIRST_COMPLETED)
        if address.done():
            where = address.result()
            joining = {name: join(where[0], where[1], secret) for name, join in workers.items()}
            tasks = {name: asyncio.create_task(part) for name, part in joining.items()}
        pending: set[asyncio.Task[Any]] = {server, *tasks.values()}
        while not server.done() and (training or not failures(tasks.values())):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await _let_end(server, tasks)
        if not server.done() or server.exception():
            raise _cause(server, tasks.values(), training)
    finally:
        for task in (server, *tasks.values()):
            task.cancel()
        await asyncio.gather(server, *tasks.values(), return_exceptions=True)
    record = server.result()
    return record, merged(map(_result, tasks.values()), record.problem.tasks)


def merged(models: Iterable[TaskModels | None], tasks: Sequence[str]) -> TaskModels:
    """The models of `tasks`, each from the first item that has it.

    Under the strategy `personal`, a worker has the models of its own tasks only. An item that is None stands
    for a worker without models.
    """
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

    An exception that interrupts the wait, such as Ctrl-C, cancels `main`, and is raised again after `main`
    has cleaned up.
    """
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None)
    loop = runner.get_loop()
    task = loop.create_task(main)

    ended = Event()

    def work() -> None:
        try:
            with runner, contextlib.suppress(BaseException):  # the task keeps the error for the caller
                loop.run_until_complete(task)
        finally:
            ended.set()

    # Server and workers each limit BLAS to one thread while they run, and restore the former limit, in any
    # order. The limit around all of them makes sure that the caller's limit is restored in the end.
    with single_threaded():
        thread = Thread(target=work, name="asyncdmtl")
        thread.start()
        try:
            # Not `join`: until Python 3.13, a thread counts as ended once its `join` was interrupted.
            ended.wait()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(task.cancel)
            ended.wait()
            raise
        finally:
            thread.join()
    return task.result()


def failures(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException]:
    """The errors of those tasks that have failed."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception()) is not None]


def best_told(tasks: Iterable[asyncio.Task[Any]]) -> BaseException:
    """The most informative error: first one with a cause, then one from a peer, then a lost connection."""
    return min(
        failures(tasks), key=lambda error: isinstance(error, PeerError) + 2 * isinstance(error, LinkError)
    )


def _cause(server: asyncio.Task[Any], workers: Iterable[asyncio.Task[Any]], training: bool) -> BaseException:
    """The error of a failed run: the error of the worker that caused it, else the server's.

    If the server gives up in training, its workers repeat the server's error. Before training, the server
    repeats the error of a worker.
    """
    own, others = failures([server]), failures(workers)
    if training and own and all(isinstance(error, PeerError | LinkError) for error in others):
        return own[0]
    return best_told([server, *workers])


async def _let_end(
    server: asyncio.Task[RunRecord], tasks: Mapping[str, asyncio.Task[TaskModels | None]]
) -> None:
    """Wait until the workers of the server's last plan have ended, or all workers if the server failed."""
    staying = tasks if server.exception() else server.result().plan.placement.workers
    if waited := [tasks[name] for name in staying]:
        await asyncio.wait(waited, timeout=ENDING_SECONDS)


def _worker_here(name: str, partitions: Sequence[Stored]) -> TakePart:
    options = WorkerOptions(
        name,
        start_timeout=THREAD_PATIENCE,
        round_timeout=THREAD_PATIENCE,
        silence_timeout=THREAD_PATIENCE,
    )

    async def take_part(host: str, port: int, secret: bytes) -> TaskModels:
        return await Worker(options, partitions, WorkerSecurity(secret)).run(host, port)

    return take_part


def _result(task: asyncio.Task[TaskModels | None]) -> TaskModels | None:
    return None if task.cancelled() or task.exception() else task.result()
