"""The participation of a worker in a run whose server a test controls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from support.groups import LOOPBACK, free_group
from support.participants import (
    ONE_RANGE,
    SETTINGS,
    THREE_RANGES,
    Run,
    participating,
)

from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, PlanError, RemoteProtocolError, WaitError
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.net.udp import GroupSender
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.multicast import JoinedGroup, JoinGroup
from asyncdmtl.protocol.messages.rounds import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    Restore,
    Snapshot,
    StateTransfer,
)
from asyncdmtl.worker import multicast_client
from asyncdmtl.worker.state import WorkerState

digest = Digest("run")


def check(models: TaskModels, partitions: Sequence[Partition]) -> None:
    """Check that these are the models of the one-process twin."""
    twin = train(partitions, SETTINGS).models
    assert models.tasks == twin.tasks
    assert models.coef_.tobytes() == twin.coef_.tobytes()
    assert models.intercept_.tobytes() == twin.intercept_.tobytes()


@pytest.mark.parametrize("features", [ONE_RANGE, THREE_RANGES], ids=["one range", "three ranges"])
async def test_a_worker_makes_all_rounds_and_has_the_models_of_the_twin(features: int) -> None:
    async with participating(features) as run:
        assert len(run.exchange.workers[0].ranges) == (1 if features == ONE_RANGE else 3)
        await run.welcome()
        await run.assign()
        for number in range(3):
            await run.round(number, AfterRound.END if number == 2 else AfterRound.GO_ON)
        done = await run.hear(Done)
        assert done.digest == run.exchange.workers[0].final_check()
        assert not run.task.done()
        await run.say(Finish())
        check(await run.task, run.partitions)
    assert run.watcher.seen == [SETTINGS, *((when, n) for n in range(3) for when in ("before", "after"))]
    assert (run.state.run, run.state.round, run.state.over) == ("run", 3, True)


async def test_a_worker_without_a_critical_strength_of_its_own_takes_the_servers() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign()
        for number in range(3):
            await run.round(number, AfterRound.END if number == 2 else AfterRound.GO_ON)
        assert (await run.hear(Done)).critical_strength is None
        await run.say(Finish(2.5))
        await run.task
    assert run.state.critical_strength == 2.5
    assert run.state.settings == SETTINGS


async def test_a_worker_gives_its_state_when_it_is_asked_to() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign(first=StateTransfer.GIVE)
        for number in range(2):
            given = await run.hear(Snapshot)
            assert (given.plan, given.round) == (0, number)
            assert given.body.tobytes() == run.exchange.workers[0].trainer.state().tobytes()
            assert given.digest == digest(given.body)
            await run.round(number, AfterRound.GIVE)


async def test_a_worker_takes_the_servers_state() -> None:
    async with participating() as run:
        for _ in range(2):
            run.exchange.down(run.exchange.combine(run.exchange.up(), False))
        await run.welcome()
        await run.assign(first=StateTransfer.TAKE, round_=2)
        assert (await run.hear(AwaitRestore)).plan == 0
        state = run.exchange.workers[0].trainer.state()
        await run.say(Restore(digest(state), state))
        await run.round(2, AfterRound.END)
        await run.hear(Done)
        await run.say(Finish())
        check(await run.task, run.partitions)


async def test_a_new_plan_replaces_the_one_that_the_worker_follows() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign()
        await run.round(0, AfterRound.GO_ON)
        await run.uplink()
        # A new plan comes instead of the rows of round 1, and the round is computed again under it.
        await run.assign(1, round_=1)
        await run.round(1, AfterRound.GO_ON, plan=1)
        await run.round(2, AfterRound.END, plan=1)
        await run.hear(Done)
        await run.say(Finish())
        check(await run.task, run.partitions)


async def test_a_new_plan_that_came_while_the_worker_computes_is_followed_at_once() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign()
        await run.assign(1)
        await run.assign(2)
        await run.round(0, AfterRound.GO_ON, plan=2)
        assert run.server.session.plan == 2


async def test_the_same_run_is_gone_on_with_and_another_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    state = WorkerState("w0")
    for name, round_ in (("run", 7), ("another", 0)):
        state.run, state.round = name, 7
        async with participating(state=state) as run:
            declared = await run.welcome()
            assert declared.round == round_
            assert state.run == "run"
    assert [record.getMessage() for record in caplog.records if "starting anew" in record.getMessage()] == [
        "worker w0: the server makes another run now, run: starting anew"
    ]


async def test_a_plan_that_is_not_for_this_worker_ends_its_part() -> None:
    async with participating() as run:
        await run.welcome()
        recipe, check = recipe_and_digest(run.exchange.plan)
        recipe = {**recipe, "workers": ["v0", "w1", "w2"]}
        infos = tuple(part.info(SETTINGS) for part in run.partitions)
        await run.say(Assign(0, 0, False, StateTransfer.KEEP, recipe, check, infos))
        with pytest.raises(PlanError, match="no worker 'w0'"):
            await run.task


@pytest.mark.parametrize(
    ("grouped", "size", "complaint"),
    [
        (False, 5, r"the server at .* sends 5 bytes of rows, the plan says \d+"),
        (True, 0, r"the server at .* sends rows to a group that is not listened to"),
    ],
)
async def test_rows_that_the_plan_does_not_say_are_refused(grouped: bool, size: int, complaint: str) -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign()
        await run.uplink()
        rows = (np.zeros(size, np.uint8),) if size else ()
        await run.say(Downlink(0, 0, AfterRound.GO_ON, bytes(16), rows, grouped=grouped))
        with pytest.raises(RemoteProtocolError, match=complaint):
            await run.task
    assert run.state.round == 0


async def test_a_round_that_was_corrupted_is_not_counted() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign()
        await run.uplink()
        size = run.exchange.workers[0].received_bytes
        await run.say(Downlink(0, 0, AfterRound.GO_ON, bytes(16), (np.zeros(size, np.uint8),)))
        with pytest.raises(IntegrityError):
            await run.task
    assert (run.state.round, run.state.over) == (0, False)


async def test_a_state_that_was_corrupted_ends_the_part() -> None:
    async with participating() as run:
        await run.welcome()
        await run.assign(first=StateTransfer.TAKE)
        await run.hear(AwaitRestore)
        state = run.exchange.workers[0].trainer.state()
        await run.say(Restore(bytes(16), state))
        with pytest.raises(IntegrityError, match="corrupted on its way"):
            await run.task


async def test_a_server_that_sends_no_rows_is_not_waited_for_for_ever() -> None:
    async with participating(round_timeout=0.3) as run:
        await run.welcome()
        await run.assign()
        await run.uplink()
        with pytest.raises(WaitError, match=r"no downlink or assign came from .* set by --round-timeout"):
            await run.task


async def test_a_worker_without_the_group_gets_its_plan_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast_client, "PROBE_SECONDS", 0.02)
    async with participating() as run:
        await run.welcome()
        await run.say(JoinGroup("239.192.77.77", 7701, bytes(32), bytes(16), 1000))
        reason = (await run.hear(JoinedGroup)).reason
        assert reason.startswith("nothing was heard of the group")
        await run.assign()
        await run.round(0, AfterRound.GO_ON)


@contextlib.asynccontextmanager
async def in_a_group(features: int = ONE_RANGE) -> AsyncIterator[tuple[Run, GroupSender]]:
    """A worker that receives a group, under plan 0."""
    async with participating(features) as run:
        await run.welcome()
        sender = GroupSender(free_group(), LOOPBACK)
        try:
            await run.join_group(sender)
            await run.assign()
            yield run, sender
        finally:
            sender.close()


@pytest.mark.parametrize("features", [ONE_RANGE, THREE_RANGES], ids=["one range", "three ranges"])
async def test_rounds_from_a_group_have_the_models_of_the_twin(
    features: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="asyncdmtl")
    async with in_a_group(features) as (run, sender):
        for number in range(2):
            agreed = await run.broadcast(sender, number)
            await run.say(Downlink(0, number, AfterRound.GO_ON, agreed, grouped=True))
        # Any round may come over TCP instead.
        await run.round(2, AfterRound.END)
        await run.hear(Done)
        await run.say(Finish())
        check(await run.task, run.partitions)
    assert any("datagrams of the group" in record.getMessage() for record in caplog.records)
    assert run.worker.on_multicast_control is None


async def test_a_round_whose_rows_are_all_here_is_applied_before_the_next_plan() -> None:
    async with in_a_group() as (run, sender):
        agreed = await run.broadcast(sender, 0)
        assert run.part._multicast is not None
        await asyncio.wait_for(run.part._multicast.complete(0), 10)
        run.server.write(Downlink(0, 0, AfterRound.GO_ON, agreed, grouped=True))
        await run.assign(1, round_=1)
        await run.round(1, AfterRound.GO_ON, plan=1)
        assert run.state.round >= 1


async def test_a_new_plan_ends_the_wait_for_rows_that_do_not_come() -> None:
    async with in_a_group() as (run, _):
        await run.uplink()
        await run.say(Downlink(0, 0, AfterRound.GO_ON, bytes(16), grouped=True))
        await run.assign(1)
        await run.round(0, AfterRound.GO_ON, plan=1)


async def test_a_plan_after_a_round_that_cannot_be_applied_is_refused() -> None:
    async with in_a_group() as (run, _):
        await run.uplink()
        await run.say(Downlink(0, 0, AfterRound.GO_ON, bytes(16), grouped=True))
        await run.assign(1, round_=1)
        with pytest.raises(RemoteProtocolError, match="the plan is for round 1, this worker is in 0"):
            await run.task
