from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.clusters import LIMIT, Cluster, stored_at
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.errors import AsyncDMTLError, PeerError, UsageError
from asyncdmtl.launch import fitting as module
from asyncdmtl.launch.fitting import Fitting, fit_with_server
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.brought_jobs import brought_job
from asyncdmtl.server.events import Planned, Refused
from asyncdmtl.server.jobs import PROGRAM_GONE

PARTITIONS = make_partitions(6, "squared")
OTHERS = make_partitions(6, "logistic")
PLACEMENT = Placement.cyclic(3, 6, 2)
OPTIONS = run_options(settings=make_settings(), workers=3)


def fitting(partitions: Any = PARTITIONS, strategy: str = "relay", **settings: Any) -> Fitting:
    return Fitting(make_settings(**settings), dict(stored_at(PLACEMENT, partitions)), strategy)


def stream() -> JobCluster:
    return JobCluster(read_job=lambda table: brought_job(table, OPTIONS))


async def fit(cluster: Any, wanted: Fitting) -> Any:
    host, port = cluster.address
    return await asyncio.to_thread(fit_with_server, host, port, wanted)


async def test_programs_fit_with_one_server_at_a_time_each_with_settings_of_its_own() -> None:
    several = [
        fitting(rounds=4, strength=0.2),
        fitting(OTHERS, "central", loss="logistic", rounds=3, seed=5),
        replace(fitting(), free=("strength",), job_settings=lambda: make_settings(rounds=2, coupling="l21")),
    ]
    async with asyncio.timeout(LIMIT), stream() as cluster:
        found = await asyncio.gather(*(fit(cluster, each) for each in several))
    for (record, models), each in zip(found, several, strict=True):
        settings = each.job_settings() if each.job_settings else each.settings
        twin = train(OTHERS if settings.loss == "logistic" else PARTITIONS, settings)
        assert models.coef_.tobytes() == twin.models.coef_.tobytes()
        assert record.plan.strategy == each.strategy
    assert [outcome.error for outcome in cluster.outcomes] == [None] * 3


async def test_a_server_that_makes_one_run_is_joined() -> None:
    settings = make_settings(rounds=3)
    async with asyncio.timeout(LIMIT), Cluster(run_options(settings=settings, workers=3)) as cluster:
        record, models = await fit(cluster, fitting(rounds=3))
        served = await cluster.server
    assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()
    assert record.run == served.run
    # The question whether it takes jobs is no worker's that was refused.
    assert not any(isinstance(event, Refused) for event in cluster.events)


async def test_a_stream_of_the_jobs_of_a_file_takes_no_others() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        with pytest.raises(PeerError, match="--submissions must be given to the server"):
            await fit(cluster, fitting())


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (fitting(strategy="best"), "--strategy must be one of"),
        (fitting(make_partitions(6, "squared"), loss="logistic"), "must be 0 or 1 for logistic loss"),
    ],
)
async def test_a_job_that_cannot_be_made_is_told_with_the_reason(wanted: Fitting, reason: str) -> None:
    async with asyncio.timeout(LIMIT), stream() as cluster:
        with pytest.raises(AsyncDMTLError, match=reason):
            await fit(cluster, wanted)


async def test_settings_that_do_not_fit_into_a_message_are_refused() -> None:
    edges = tuple((f"task number {i}", f"task number {i + 1}", 1.0) for i in range(100))
    async with asyncio.timeout(LIMIT), stream() as cluster:
        with pytest.raises(UsageError, match="edges must take at most 3000 characters"):
            await fit(cluster, fitting(coupling="graph", edges=edges))


async def test_a_job_ends_with_the_program_that_brings_its_workers() -> None:
    async with asyncio.timeout(LIMIT), stream() as cluster:
        task = asyncio.create_task(module._fit(cluster.address, fitting(rounds=100_000, tolerance=0.0)))
        while not any(isinstance(getattr(event, "event", None), Planned) for event in cluster.events):
            await cluster.change()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not cluster.outcomes:
            await cluster.change()
    (outcome,) = cluster.outcomes
    assert str(outcome.error) == PROGRAM_GONE
