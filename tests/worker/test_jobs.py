from __future__ import annotations

import asyncio

import pytest

from asyncdmtl.worker.jobs import ALONE, StreamOver, Turns


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


def test_the_end_of_a_stream_tells_what_failed() -> None:
    with pytest.raises(StreamOver, match="3 jobs are over, of which 0 failed"):
        raise StreamOver(3, {})
