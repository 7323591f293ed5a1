from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.registry import JobCall
from asyncdmtl.worker import jobs
from asyncdmtl.worker.jobs import ALONE, JobPlace, JobStream, StreamOver, Turns


async def test_one_job_computes_at_a_time_and_the_first_one_comes_first() -> None:
    turns, order = Turns(), []
    go_on = asyncio.Event()

    async def compute(rank: int) -> None:
        async with turns.turn(rank):
            order.append(rank)
            await go_on.wait()

    tasks = [asyncio.create_task(compute(rank)) for rank in (5, 3, 4, 1)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert order == [5]
    go_on.set()
    await asyncio.gather(*tasks)
    assert order == [5, 1, 3, 4]


async def test_a_cancelled_job_gives_its_turn_to_the_next() -> None:
    turns, order = Turns(), []

    async def compute(rank: int) -> None:
        async with turns.turn(rank):
            order.append(rank)

    async with turns.turn(0):
        waiting = [asyncio.create_task(compute(rank)) for rank in (1, 2)]
        await asyncio.sleep(0)
    # Its turn has come, but it has not begun.
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == [2]
    async with turns.turn(3):
        pass


async def test_a_run_of_its_own_needs_no_turns() -> None:
    async with ALONE.turn():
        pass
    assert ALONE.__class__() == ALONE


async def test_a_server_calls_to_so_many_jobs_at_one_time_at_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MOST_JOBS", 2)
    calls = iter([JobCall("r0", "a"), JobCall("r1", "b"), JobCall("r0", "a"), JobCall("r2", "c")])
    begun: list[str] = []

    class Calling:
        peer = "the server"

        async def receive(self, *_: Any) -> JobCall:
            await asyncio.sleep(0)
            return next(calls)

    async def take_part(place: JobPlace) -> None:
        begun.append(place.job)
        await asyncio.Event().wait()

    stream = JobStream(take_part)
    connection: Any = Calling()
    with pytest.raises(RemoteProtocolError, match="the server calls to more than 2 jobs at one time"):
        await stream.follow(connection)
    await stream.close()
    # A call that is repeated, as after a lost connection, begins nothing.
    assert begun == ["a", "b"]


def test_the_end_of_a_stream_tells_what_failed() -> None:
    with pytest.raises(StreamOver, match="3 jobs are over, of which 0 failed"):
        raise StreamOver(3, {})
