from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import DataError, PeerError
from asyncdmtl.launch.streams import serve_stream
from asyncdmtl.launch.threads import TakePart
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import JobEvent, Planned, ServerEvent
from asyncdmtl.server.jobs import Job, StreamOptions
from asyncdmtl.worker.jobs import StreamOver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.stream_worker import stream_worker

PARTITIONS = make_partitions(4, "squared")
HELD = Placement.cyclic(2, 4, 2).as_dict()
OPTIONS = run_options(settings=make_settings(rounds=2), workers=2, rejoin_timeout=0.0)


def here(name: str) -> TakePart:
    """A worker in this process that stores every partition."""

    def load(target: str) -> Sequence[Stored]:
        return PARTITIONS

    async def take_part(host: str, port: int, secret: bytes) -> None:
        worker = stream_worker(WorkerOptions(name), load, WorkerSecurity(secret), [(host, port)])
        with pytest.raises(StreamOver):
            await worker.run(host, port)

    return take_part


async def test_jobs_are_made_by_workers_here() -> None:
    events: list[ServerEvent] = []
    jobs = [Job("a", OPTIONS), Job("b", OPTIONS)]
    workers = {name: here(name) for name in HELD}
    async with asyncio.timeout(60):
        outcomes = await serve_stream(jobs, StreamOptions(), workers, events.append)
    assert [outcome.job.name for outcome in outcomes] == ["a", "b"]
    assert all(outcome.record is not None for outcome in outcomes)
    of_jobs = [event for event in events if isinstance(event, JobEvent)]
    assert sorted(event.job for event in of_jobs if isinstance(event.event, Planned)) == ["a", "b"]


async def test_a_worker_that_fails_before_the_start_ends_the_stream() -> None:
    async def failing(host: str, port: int, secret: bytes) -> Any:
        raise DataError("rows", "must be there", 0)

    workers: dict[str, TakePart] = {"w0": here("w0"), "w1": failing}
    async with asyncio.timeout(60):
        with pytest.raises(DataError, match="rows must be there"):
            await serve_stream([Job("a", OPTIONS)], StreamOptions(), workers, lambda event: None)


async def test_a_worker_that_fails_later_is_missed_by_jobs_in_progress_only() -> None:
    trained = asyncio.Event()

    def note(event: ServerEvent) -> None:
        if isinstance(event, JobEvent) and isinstance(event.event, Planned):
            trained.set()

    async def dying(host: str, port: int, secret: bytes) -> Any:
        task = asyncio.create_task(here("w1")(host, port, secret))
        await trained.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise PeerError("it died")

    long = run_options(settings=make_settings(rounds=20), workers=2, rejoin_timeout=0.0)
    workers: dict[str, TakePart] = {"w0": here("w0"), "w1": dying}
    async with asyncio.timeout(60):
        (outcome,) = await serve_stream([Job("a", long)], StreamOptions(), workers, note)
    assert outcome.record is not None
