from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.server.events import JobEvent, Left, Refused, ServerEvent
from asyncdmtl.server.start_watch import StartWatch


async def endless() -> Any:
    await asyncio.Event().wait()


def watch(events: list[ServerEvent], needed: int | None = 2, standing_by: int = 3) -> StartWatch:
    return StartWatch("a", needed, events.append, lambda: standing_by)


async def test_a_job_ends_when_too_few_workers_are_left() -> None:
    events: list[ServerEvent] = []
    watched = watch(events)
    task = asyncio.create_task(watched.watched(endless()))
    await asyncio.sleep(0)
    watched.note(Refused("w0", "no data", final=True))
    await asyncio.sleep(0)
    assert not task.done()
    watched.note(Left("w1", "no rows", final=True))
    with pytest.raises(AsyncDMTLError, match="too few workers can take part: worker 'w0': no data; worker"):
        await task
    assert events == [
        JobEvent("a", Refused("w0", "no data", final=True)),
        JobEvent("a", Left("w1", "no rows", final=True)),
    ]
    assert events[0].as_json() == {
        "event": "refused",
        "worker": "w0",
        "reason": "no data",
        "final": True,
        "job": "a",
    }


async def test_lost_connections_and_jobs_without_a_number_of_workers_end_nothing() -> None:
    for needed, final in ((2, False), (None, True)):
        watched = watch([], needed, standing_by=1)
        task = asyncio.create_task(watched.watched(endless()))
        await asyncio.sleep(0)
        watched.note(Refused("w0", "why", final=final))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
