from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.clusters import LIMIT, Cluster
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.data.prepared_rows import PreparedRows
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.training import train
from asyncdmtl.net.authentication import UNSECURED_WORKER
from asyncdmtl.server.jobs import Job
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker import stream_worker as module
from asyncdmtl.worker.jobs import JobPlace, StreamOver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.stream_worker import stream_worker
from asyncdmtl.worker.worker import Worker

PARTITIONS = make_partitions(2, "squared")
SETTINGS = make_settings(dtype="float64")
OPTIONS = run_options(settings=SETTINGS, workers=1)


async def test_it_takes_part_in_a_single_run_as_any_worker() -> None:
    async with asyncio.timeout(LIMIT), Cluster(OPTIONS) as cluster:
        worker = stream_worker(
            WorkerOptions("w0"), lambda target: PARTITIONS, UNSECURED_WORKER, [cluster.address]
        )
        models = await worker.run(*cluster.address)
        await cluster.server
    assert models.coef_.tobytes() == train(PARTITIONS, SETTINGS).models.coef_.tobytes()


async def test_a_worker_of_a_single_run_takes_no_part_in_a_stream() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        with pytest.raises(UsageError, match="server must make one run, not a stream of jobs"):
            await Worker(WorkerOptions("w0"), PARTITIONS).run(*cluster.address)


async def test_rows_are_loaded_once_for_jobs_that_begin_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Double:
        def __init__(self, options: Any, stored: Any, *_: Any, jobs: Any = None) -> None:
            self.stored, self.jobs = stored, jobs

        async def run(self, host: str, port: int) -> None:
            used.append(self.stored)

    def load(target: str) -> Sequence[Stored]:
        loaded.append(target)
        return PARTITIONS[:1] if target else PARTITIONS

    loaded: list[str] = []
    used: list[PreparedRows] = []
    monkeypatch.setattr(module, "Worker", Double)
    worker: Any = stream_worker(WorkerOptions("w0"), load, UNSECURED_WORKER, [("127.0.0.1", 1)])
    places = [JobPlace(f"r{i}", f"j{i}", "dose") for i in range(3)]
    await asyncio.gather(*(worker.jobs._take_part(place) for place in places))
    assert loaded == ["", "dose"]
    assert used == used[:1] * 3
    assert used[0].stored == tuple(PARTITIONS[:1])


async def test_jobs_go_on_while_the_worker_no_longer_stands_by() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        worker = cluster.join("w0", PARTITIONS)
        await cluster.submit(Job("a", run_options(settings=make_settings(rounds=30), workers=1)))
        while not any(isinstance(event, RoundRecord) for event in cluster.of_job("a")):
            await cluster.change()
        for connection in list(cluster.instance._standby._workers.values()):
            connection.abort()
        await cluster.server
        with pytest.raises(StreamOver) as over:
            await worker
    assert (over.value.made, over.value.failed) == (1, {})
    assert cluster.outcomes[0].record is not None
    assert not cluster.outcomes[0].record.incidents
