"""Rounds go on without a late worker, which catches up without a new plan; models are those of its twin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.clusters import LIMIT, Cluster, stored_at
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy

from asyncdmtl.errors import PlacementError
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server import lateness
from asyncdmtl.server.events import Planned
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PLACEMENT = Placement.cyclic(4, 8, 3)
PARTITIONS = make_partitions(8, "squared")

SPEEDS = dict(zip(PLACEMENT.workers, map(Fraction, (10, 20, 50, 100)), strict=True))

# The rounds of each run.
ROUNDS = 15

# So many features that rows travel in three ranges.
THREE_RANGES = 12_000


def options(strategy: str = "relay", **changes: Any) -> Any:
    settings = make_settings(dtype="float64", rounds=ROUNDS, tolerance=0.0)
    return run_options(settings=settings, strategy=strategy, workers=4, silent=1, **changes)


@contextlib.asynccontextmanager
async def late_cluster(
    chosen: Any, partitions: Sequence[Partition] = PARTITIONS
) -> AsyncIterator[tuple[Cluster, Proxy, list[asyncio.Task[TaskModels]]]]:
    """A run whose worker w2 is connected through a proxy."""
    async with asyncio.timeout(LIMIT), Cluster(chosen) as cluster, Proxy(cluster.address).running() as proxy:
        own = stored_at(PLACEMENT, partitions)
        workers = [cluster.join(name, own[name]) for name in PLACEMENT.workers if name != "w2"]
        late = Worker(WorkerOptions("w2"), own["w2"])
        workers.append(asyncio.create_task(late.run(*proxy.address)))
        try:
            yield cluster, proxy, workers
        finally:
            workers[-1].cancel()


async def hold_back(cluster: Cluster, proxy: Proxy, rounds: int) -> None:
    """Let nothing pass to or from the late worker for some rounds, which need all of the others.

    Hence the others must be up to date then: none of them may be waiting for a state itself.
    """
    first = await up_to_date(cluster)
    proxy.passing.clear()
    await cluster.event(RoundRecord, round=min(first + rounds, ROUNDS - 1))
    proxy.passing.set()


async def up_to_date(cluster: Cluster) -> int:
    """Wait for a round at whose end nobody lags by more than one or lacks a state, and return its number."""
    number = 0
    while True:
        await cluster.event(RoundRecord, round=number)
        followed = cluster.instance.lateness
        members = cluster.instance._membership.members.values()
        if all(followed.is_sent(one) and followed.heard(one) >= max(0, number - 1) for one in members):
            return number
        number += 1


async def models_of(workers: Sequence[asyncio.Task[TaskModels]]) -> list[bytes]:
    return [models.coef_.tobytes() for models in await asyncio.gather(*workers)]


@pytest.mark.parametrize(
    ("strategy", "features", "links"),
    [("relay", THREE_RANGES, EQUAL_LINKS), ("central", 9, EQUAL_LINKS), ("relay", 9, Links(speeds=SPEEDS))],
)
async def test_a_late_worker_works_off_the_rounds_that_it_missed(
    strategy: str, features: int, links: Links
) -> None:
    partitions = make_partitions(8, "squared", features=features)
    chosen = options(strategy, links=links)
    async with late_cluster(chosen, partitions) as (cluster, proxy, workers):
        await hold_back(cluster, proxy, 5)
        record = await cluster.server
        twin = train(partitions, chosen.settings)
        assert set(await models_of(workers)) == {twin.models.coef_.tobytes()}
        assert [entry.objective for entry in record.rounds] == list(twin.objectives)
        assert sum(isinstance(event, Planned) for event in cluster.events) == 1
        assert record.incidents == ()


async def test_a_worker_that_misses_many_rounds_is_given_the_state_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "MOST_LAG", 2)
    chosen = options()
    async with late_cluster(chosen) as (cluster, proxy, workers):
        await hold_back(cluster, proxy, 5)
        await cluster.server
        assert cluster.instance.lateness.handed_over["w2"] >= 1
        assert set(await models_of(workers)) == {train(PARTITIONS, chosen.settings).models.coef_.tobytes()}
        assert sum(isinstance(event, Planned) for event in cluster.events) == 1


async def test_a_worker_that_is_late_at_the_end_is_given_the_final_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "MOST_LAG", 2)
    chosen = options()
    async with late_cluster(chosen) as (cluster, proxy, workers):
        await hold_back(cluster, proxy, ROUNDS)
        await cluster.server
        assert set(await models_of(workers)) == {train(PARTITIONS, chosen.settings).models.coef_.tobytes()}


async def test_models_under_linear_are_those_of_the_twin_up_to_rounding() -> None:
    chosen = options("linear")
    async with late_cluster(chosen) as (cluster, proxy, workers):
        await hold_back(cluster, proxy, 4)
        await cluster.server
        twin = train(PARTITIONS, chosen.settings).models.coef_
        for models in await asyncio.gather(*workers):
            np.testing.assert_allclose(models.coef_, twin, rtol=1e-9, atol=1e-12)


async def test_a_lost_worker_is_planned_without_although_none_was_waited_for() -> None:
    chosen = options(rejoin_timeout=0.0)
    async with late_cluster(chosen) as (cluster, proxy, workers):
        await cluster.event(RoundRecord, round=1)
        workers[-1].cancel()
        proxy.cut()
        record = await cluster.server
        await cluster.event(Planned, number=1, workers=("w0", "w1", "w3"))
        twin = train(PARTITIONS, chosen.settings).models.coef_.tobytes()
        assert set(await models_of(workers[:-1])) == {twin}
        assert [incident.worker for incident in record.incidents] == ["w2"]


async def test_partitions_with_too_few_holders_are_named_before_the_run() -> None:
    placement = Placement({"w0": ["p0", "p1"], "w1": ["p0"]})
    partitions = make_partitions(2, "squared")
    chosen = run_options(workers=2, silent=1)
    async with asyncio.timeout(LIMIT), Cluster(chosen) as cluster:
        for name, own in stored_at(placement, partitions).items():
            cluster.join(name, own)
        with pytest.raises(PlacementError, match="p1 would be lost"):
            await cluster.server
