"""Rounds go on if exactly the worker falls silent that was asked for the state of the training."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.clusters import LIMIT, Cluster, stored_at
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy

from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.registry import AfterRound
from asyncdmtl.server import lateness
from asyncdmtl.server.events import Checkpointed, Planned, ServerEvent
from asyncdmtl.server.member import Member
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.server.row_transfer import RoundTransfer
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PLACEMENT = Placement.cyclic(4, 8, 3)
PARTITIONS = make_partitions(8, "squared")


def options(rounds: int, **changes: Any) -> Any:
    settings = make_settings(dtype="float64", rounds=rounds)
    return run_options(settings=settings, strategy="relay", workers=4, silent=1, **changes)


@contextlib.asynccontextmanager
async def cluster_behind_proxies(
    chosen: Any,
) -> AsyncIterator[tuple[Cluster, dict[str, Proxy], list[asyncio.Task[TaskModels]]]]:
    """A run whose workers are connected through proxies."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(LIMIT))
        cluster = await stack.enter_async_context(Cluster(chosen))
        proxies, workers = {}, []
        for name, own in stored_at(PLACEMENT, PARTITIONS).items():
            proxy = proxies[name] = await stack.enter_async_context(Proxy(cluster.address).running())
            workers.append(asyncio.create_task(Worker(WorkerOptions(name), own).run(*proxy.address)))
            stack.callback(workers[-1].cancel)
        yield cluster, proxies, workers


def hold_giver(
    monkeypatch: pytest.MonkeyPatch, proxies: dict[str, Proxy], count: int
) -> asyncio.Future[Proxy]:
    """Let nothing pass to or from the first of so many workers that are asked for their states at once."""
    send = RoundTransfer.send
    held = asyncio.get_running_loop().create_future()

    def sent(transfer: RoundTransfer, i: int, then: Mapping[Member, AfterRound]) -> None:
        givers = [member.name for member, order in then.items() if order is AfterRound.GIVE]
        if len(givers) == count and not held.done():
            proxies[givers[0]].passing.clear()
            held.set_result(proxies[givers[0]])
        send(transfer, i, then)

    monkeypatch.setattr(RoundTransfer, "send", sent)
    return held


def count(cluster: Cluster, kind: type[ServerEvent]) -> int:
    """The number of events of a kind so far."""
    return sum(isinstance(event, kind) for event in cluster.events)


async def check(
    cluster: Cluster, chosen: Any, workers: Sequence[asyncio.Task[TaskModels]], plans: int = 1
) -> None:
    """Check that models are those of the twin, and that there were so many plans."""
    record = await cluster.server
    twin = train(PARTITIONS, chosen.settings).models.coef_.tobytes()
    assert {models.coef_.tobytes() for models in await asyncio.gather(*workers)} == {twin}
    assert [event.number for event in cluster.events if isinstance(event, Planned)] == list(range(plans))
    assert record.incidents == ()


@pytest.mark.parametrize("rounds", [3, 9], ids=["before the end", "after the last round"])
async def test_a_checkpoint_waits_for_a_silent_giver_and_rounds_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rounds: int
) -> None:
    chosen = options(10, checkpoint=tmp_path, checkpoint_every=3)
    async with cluster_behind_proxies(chosen) as (cluster, proxies, workers):
        giver = await hold_giver(monkeypatch, proxies, 1)
        made, saved = count(cluster, RoundRecord), count(cluster, Checkpointed)
        await cluster.event(RoundRecord, round=min(made + rounds, 9))
        assert count(cluster, Checkpointed) == saved
        giver.passing.set()
        await check(cluster, chosen, workers)


async def test_a_late_worker_is_given_the_state_of_another_if_one_giver_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "MOST_LAG", 2)
    chosen = options(40)
    async with cluster_behind_proxies(chosen) as (cluster, proxies, workers):
        await cluster.event(RoundRecord, round=3)
        proxies["w2"].passing.clear()
        await cluster.event(RoundRecord, round=8)
        held = hold_giver(monkeypatch, proxies, 2)
        proxies["w2"].passing.set()
        giver = await held
        await cluster.event(RoundRecord, round=count(cluster, RoundRecord) + 3)
        assert cluster.instance.lateness.handed_over["w2"] >= 1
        giver.passing.set()
        await check(cluster, chosen, workers)


async def test_a_worker_that_waits_for_a_state_gets_it_although_another_falls_silent() -> None:
    chosen = options(60)
    async with cluster_behind_proxies(chosen) as (cluster, proxies, workers):
        await cluster.event(Planned)
        proxies["w0"].passing.clear()
        await cluster.event(RoundRecord, round=1)
        proxies["w2"].passing.clear()
        proxies["w0"].passing.set()
        await cluster.event(Planned, number=1, workers=("w0", "w1", "w2", "w3"))
        await cluster.event(RoundRecord, round=count(cluster, RoundRecord) + 3)
        proxies["w2"].passing.set()
        await check(cluster, chosen, workers, plans=2)
