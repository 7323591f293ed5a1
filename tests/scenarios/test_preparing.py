"""Columns of text and numbers become features through the protocol; and a run may end early."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.clusters import Cluster, run_cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import DataError, LinkError, PeerError
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.server.events import Left, Planned

SETTINGS = make_settings(standardise=True, dtype="float64")


def raw_partitions() -> list[RawPartition]:
    """Six partitions of three tasks, with missing numbers, and a category that only one of them has."""
    rng = np.random.default_rng(5)
    made = []
    for n in range(6):
        rows = 5 + n
        ages = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(40, 10, rows))
        sites = np.array([f"site {i % (2 + (n == 4))}" for i in range(rows)], dtype=object)
        columns = {"age": ages, "site": sites, "dose": rng.normal(size=rows)}
        made.append(
            RawPartition(f"p{n}", f"t{n // 2}", columns, rng.normal(size=rows), rng.random(rows) + 0.5)
        )
    return made


RAW = raw_partitions()


options = partial(run_options, settings=SETTINGS)


def encoded() -> tuple[Encoding, list[Partition]]:
    surveys = {part.id: Survey.from_dict(part.declaration().survey) for part in RAW}
    encoding = pool(surveys, SETTINGS.loss, standardise=True, centre=SETTINGS.centred)
    return encoding, [part.encoded(encoding) for part in RAW]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_columns_are_encoded_with_what_all_sites_declare(strategy: Any) -> None:
    encoding, partitions = encoded()
    twin = train(partitions, SETTINGS).models
    record, models = await run_cluster(options(strategy=strategy), HOMOGENEOUS, RAW)
    assert record.encoding == encoding
    assert [info.weight for info in record.problem.infos] == [part.weight for part in partitions]
    for found in models:
        expected = twin.of([twin.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()


class Forgetful:
    """A partition whose file has disappeared before it is encoded."""

    def __init__(self, stored: RawPartition) -> None:
        self.id, self.task, self.rows = stored.id, stored.task, stored.rows
        self.targets, self.take, self.declaration = stored.targets, stored.take, stored.declaration

    def encoded(self, encoding: Encoding) -> Partition:
        raise DataError("file", "must be readable (no such file or directory)", self.id)


async def test_the_others_go_on_without_a_worker_that_cannot_encode() -> None:
    own = stored_at(HOMOGENEOUS, RAW)
    twin = train(encoded()[1], SETTINGS).models
    async with Cluster(options()) as cluster:
        workers = [cluster.join(name, parts) for name, parts in own.items() if name != "w1"]
        unable = cluster.join("w1", [Forgetful(part) for part in own["w1"]])
        left = await cluster.event(Left, worker="w1")
        assert "must be readable" in left.reason
        with pytest.raises(DataError, match="must be readable"):
            await unable
        record = await cluster.server
        models = await asyncio.gather(*workers)
    assert record.plan.placement.workers == ("w0", "w2", "w3", "w4", "w5")
    assert models[0].coef_.tobytes() == twin.coef_.tobytes()


async def test_a_worker_that_could_not_encode_may_be_started_again() -> None:
    lasting = options(workers=2, settings=replace(SETTINGS, rounds=10**6))
    async with Cluster(lasting) as cluster:
        cluster.join("w0", RAW)
        cluster.join("w1", [Forgetful(part) for part in RAW])
        await cluster.event(Left, worker="w1")
        cluster.join("w1", RAW)
        await cluster.event(Planned, workers=("w0", "w1"))


async def test_a_partition_that_no_holder_can_encode_ends_the_run_with_its_name() -> None:
    async with Cluster(options(workers=2)) as cluster:
        able = cluster.join("w0", RAW[:5])
        unable = cluster.join("w1", [Forgetful(RAW[5])])
        with pytest.raises(LinkError, match=r"\['p5'\]: worker 'w1' held \['p5'\] .*must be readable"):
            await cluster.server
        for worker, error in ((able, PeerError), (unable, DataError)):
            with pytest.raises(error):
                await worker


async def test_columns_that_do_not_fit_each_other_end_the_run() -> None:
    odd = replace(RAW[5], columns={"age": RAW[5].columns["age"]})
    async with Cluster(options(workers=2)) as cluster:
        workers = [cluster.join("w0", RAW[:5]), cluster.join("w1", [odd])]
        with pytest.raises(DataError, match="p5"):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match="p5"):
                await worker


@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
async def test_a_run_ends_when_the_models_have_converged(strategy: Any) -> None:
    partitions = make_partitions(6, "squared")
    settings = make_settings(rounds=500, tolerance=1e-2, dtype="float64", strength=0.3)
    twin = train(partitions, settings)
    record, models = await run_cluster(options(strategy=strategy, settings=settings), HOMOGENEOUS, partitions)
    assert record.converged
    assert len(record.rounds) == len(twin.objectives) < 500
    last = record.rounds[-1]
    assert last.residual <= 1e-2 * abs(last.objective)
    assert record.rounds[0].residual == float("inf")
    for found in models:
        expected = twin.models.of([twin.models.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()
