"""A worker for servers that make one run, and for those that make a stream of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from asyncdmtl.data.prepared_rows import PreparedRows
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.route import Address
from asyncdmtl.worker.jobs import JobPlace, JobStream
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

# The partitions that are stored here, for a column that is predicted: by its name, or empty for that of the
# worker's own options. It raises AsyncDMTLError if there is no such column.
Load = Callable[[str], Sequence[Stored]]

# Called at the end of a job in which the worker took part: with the place of the job, the worker of that job
# and its final models.
OnModels = Callable[[JobPlace, Worker, TaskModels], None]


class _Declining(WorkerObserver):
    """Ends the worker's part in a job, so that the server learns the reason."""

    def __init__(self, error: AsyncDMTLError) -> None:
        self._error = error

    def on_settings(self, settings: Settings) -> None:
        raise self._error


def stream_worker(
    options: WorkerOptions,
    load: Load,
    security: WorkerSecurity,
    addresses: Sequence[Address],
    on_models: OnModels | None = None,
) -> Worker:
    """A worker that also takes part in a stream of jobs; its `run` then ends with `StreamOver`.

    Rows are loaded once for each column that is predicted. All jobs share them, and what others prepared.

    Parameters
    ----------
    options : WorkerOptions
    load : callable
        As `Load`. It is called here for the worker's own column, and in threads for others.
    security : WorkerSecurity
    addresses : sequence of host and port
        The server's, tried in this order.
    on_models : callable, optional
        As `OnModels`.
    """
    loaded = {"": PreparedRows(load(""))}
    loading = asyncio.Lock()

    async def stored_for(target: str) -> PreparedRows:
        if target not in loaded:
            async with loading:
                # Another job may have loaded them while this one waited.
                if target not in loaded:
                    loaded[target] = PreparedRows(await asyncio.to_thread(load, target))
        return loaded[target]

    async def take_part(place: JobPlace) -> None:
        stored = PreparedRows(())
        observer = WorkerObserver()
        try:
            stored = await stored_for(place.target)
        except AsyncDMTLError as error:
            observer = _Declining(error)
        worker = Worker(replace(options, place=place), stored, security, observer)
        models = await worker.run(*addresses[0], *addresses[1:])
        if on_models is not None:
            on_models(place, worker, models)

    return Worker(options, loaded[""], security, jobs=JobStream(take_part))
