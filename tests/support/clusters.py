"""A server and workers in one process, over real TCP on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from asyncdmtl.data.stored import Stored
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import UNSECURED_SERVER, UNSECURED_WORKER, ServerSecurity, WorkerSecurity
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import Listening, ServerEvent
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

Kept = TypeVar("Kept", bound=Stored)
Wanted = TypeVar("Wanted", bound=ServerEvent)
Made = TypeVar("Made", covariant=True)

LIMIT = 60.0


class Listener(Protocol[Made]):
    """A `Server` or a `JobServer`."""

    async def run(self, host: str, port: int) -> Made:
        """Listen on an address until the end."""


class ServerHere(Generic[Made]):
    """A server that is listening, with its events so far; it and `_tasks` are cancelled in the end."""

    instance: Listener[Made]
    server: asyncio.Task[Made]

    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.address = ("127.0.0.1", 0)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self.server = asyncio.create_task(self.instance.run("127.0.0.1", 0))
        listening = await self.event(Listening)
        self.address = (listening.host, listening.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self.server, *self._tasks):
            task.cancel()
        await asyncio.gather(self.server, *self._tasks, return_exceptions=True)

    def _started(self, worker: Worker) -> asyncio.Task[TaskModels]:
        task = asyncio.create_task(worker.run(*self.address))
        self._tasks.append(task)
        return task

    async def event(self, kind: type[Wanted], **facts: Any) -> Wanted:
        """Wait for an event of this kind with these facts, or raise the error that ended the server."""
        async with asyncio.timeout(LIMIT):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and facts.items() <= vars(event).items():
                        return event
                if self.server.done():
                    self.server.result()
                    raise AssertionError(f"the server ended without the event {kind.name}")
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait([changed, self.server], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()

    def _note(self, event: ServerEvent) -> None:
        self.events.append(event)
        self._changed.set()


class Cluster(ServerHere[RunRecord]):
    """A server that makes a run; workers join one by one."""

    def __init__(self, options: RunOptions, security: ServerSecurity = UNSECURED_SERVER) -> None:
        super().__init__()
        self.instance: Server = Server(options, self._note, security)

    def join(
        self,
        name: str,
        partitions: Sequence[Stored],
        security: WorkerSecurity = UNSECURED_WORKER,
        **options: Any,
    ) -> asyncio.Task[TaskModels]:
        """Start a worker."""
        return self._started(Worker(WorkerOptions(name, **options), partitions, security))


def stored_at(placement: Placement, partitions: Sequence[Kept]) -> Mapping[str, list[Kept]]:
    """A mapping of workers to their partitions; `partitions` are in the order of the placement."""
    by_name = {partition.id: partition for partition in partitions}
    return {worker: [by_name[name] for name in names] for worker, names in placement.as_dict().items()}


async def run_cluster(
    options: RunOptions,
    placement: Placement,
    partitions: Sequence[Stored],
    security: ServerSecurity = UNSECURED_SERVER,
    securities: Mapping[str, WorkerSecurity] | None = None,
    wants: Mapping[str, str] | None = None,
) -> tuple[RunRecord, list[TaskModels]]:
    """A whole run; the server's record and every worker's models."""
    async with asyncio.timeout(LIMIT), Cluster(options, security) as cluster:
        workers = [
            cluster.join(
                name, own, (securities or {}).get(name, UNSECURED_WORKER), wants=(wants or {}).get(name, "")
            )
            for name, own in stored_at(placement, partitions).items()
        ]
        record = await cluster.server
        return record, list(await asyncio.gather(*workers))
