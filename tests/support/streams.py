"""A stream of jobs and its workers in one process, over real TCP on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from support.clusters import LIMIT, ServerHere

from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import UNSECURED_SERVER, ServerSecurity, WorkerSecurity
from asyncdmtl.server.events import JobEvent, ServerEvent
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, ReadJob, StreamOptions
from asyncdmtl.worker.jobs import JobPlace
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.stream_worker import stream_worker
from asyncdmtl.worker.worker import Worker


class JobCluster(ServerHere[None]):
    """A server with a stream of jobs; workers stand by one by one.

    Attributes
    ----------
    outcomes : list of JobOutcome
    models : dict of (job, worker) to TaskModels
    """

    def __init__(
        self,
        security: ServerSecurity = UNSECURED_SERVER,
        read_job: ReadJob | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.outcomes: list[JobOutcome] = []
        self.models: dict[tuple[str, str], TaskModels] = {}
        self.instance: JobServer = JobServer(
            StreamOptions(**options), self._note, self._tell, security, read_job
        )

    def join(
        self,
        name: str,
        partitions: Sequence[Stored],
        secret: bytes | None = None,
        targets: Mapping[str, Sequence[Stored]] | None = None,
        **options: Any,
    ) -> asyncio.Task[TaskModels]:
        """Start a worker; `targets` are its partitions for other columns."""

        def load(target: str) -> Sequence[Stored]:
            if target and target not in (targets or {}):
                raise UsageError("target", "must be a column", target)
            return (targets or {})[target] if target else partitions

        def keep(place: JobPlace, worker: Worker, models: TaskModels) -> None:
            self.models[place.job, name] = models

        security = WorkerSecurity(secret)
        return self._started(
            stream_worker(WorkerOptions(name, **options), load, security, [self.address], keep)
        )

    async def submit(self, *jobs: Job, end: bool = True) -> None:
        """Submit jobs, and with `end` say that they are all."""
        for job in jobs:
            await self.instance.submit(job)
        if end:
            await self.instance.end()

    async def change(self) -> None:
        """Wait for the next event or outcome."""
        async with asyncio.timeout(LIMIT):
            self._changed.clear()
            await self._changed.wait()

    def of_job(self, job: str) -> list[ServerEvent]:
        """The events of a job so far."""
        return [event.event for event in self.events if isinstance(event, JobEvent) and event.job == job]

    def _tell(self, outcome: JobOutcome) -> None:
        self.outcomes.append(outcome)
        if (submissions := self.instance.submissions) is not None:
            name, error = outcome.job.name, outcome.error
            ended: dict[str, Any] = {"job": name, "report": {"rounds": 1}}
            if error is not None:
                ended = {"job": name, "error": str(error), "exit_code": error.exit_code}
            submissions.tell(ended)
        self._changed.set()
