"""A watch on the start of a job, which ends it if it cannot start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.server.events import JobEvent, Left, OnEvent, Planned, Refused, ServerEvent
from asyncdmtl.server.records import RunRecord


class StartWatch:
    """Ends a job that cannot start, since workers that it needs cannot take part in it.

    If their data or options are the reason, they would not come again, and the job would keep its place in
    the stream until --join-timeout.

    Parameters
    ----------
    job : str
        The job's name.
    needed : int or None
        The number of workers that the job needs; None if it needs holders of partitions instead.
    emit : callable
        Called with each event of the job, as a `JobEvent`.
    standing_by : callable
        Returns the number of workers that stand by.
    """

    def __init__(self, job: str, needed: int | None, emit: OnEvent, standing_by: Callable[[], int]) -> None:
        self._job = job
        self._needed = needed
        self._emit = emit
        self._standing_by = standing_by
        self._reasons: dict[str, str] = {}
        self._started = False
        self._task: asyncio.Task[RunRecord] | None = None
        self._error: AsyncDMTLError | None = None

    def note(self, event: ServerEvent) -> None:
        """Pass on an event of the job's server, and note what it says of the start."""
        self._emit(JobEvent(self._job, event))
        self._started = self._started or isinstance(event, Planned)
        if self._started or not isinstance(event, Refused | Left) or not event.final:
            return
        self._reasons[event.worker] = event.reason
        if self._needed is not None and self._standing_by() - len(self._reasons) < self._needed:
            told = "; ".join(f"worker {name!r}: {reason}" for name, reason in self._reasons.items())
            self.end(AsyncDMTLError(f"too few workers can take part: {told}"))

    async def watched(self, made: Coroutine[Any, Any, RunRecord]) -> RunRecord:
        """The record of the job; AsyncDMTLError if it failed, or cannot start."""
        self._task = asyncio.create_task(made)
        try:
            return await self._task
        except asyncio.CancelledError:
            self._task.cancel()
            if self._error is not None:
                raise self._error from None
            raise

    def end(self, error: AsyncDMTLError) -> None:
        """End the job with this error, whether it has started or not."""
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()
