from __future__ import annotations

import asyncio
import math

import pytest
from support.clusters import Cluster, stored_at
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import AuthenticationError, UsageError
from asyncdmtl.launch.joining import join_server
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.run_report import report_run

PARTITIONS = make_partitions(6, "squared")
STORED = dict(stored_at(Placement.cyclic(3, 6, 2), PARTITIONS))


@pytest.mark.parametrize("strategy", ["relay", "linear", "personal"])
async def test_workers_know_what_the_server_knows(strategy: str) -> None:
    settings = make_settings(accelerated=strategy != "linear", rounds=4)
    async with Cluster(run_options(settings=settings, strategy=strategy, workers=3)) as cluster:
        record, models = await asyncio.to_thread(
            join_server, *cluster.address, make_settings(rounds=4), STORED
        )
        served = await cluster.server
    if strategy != "linear":
        assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()
    for seen, known in zip(record.rounds, served.rounds, strict=True):
        assert (seen.up_bytes, seen.down_bytes) == (known.up_bytes, known.down_bytes)
        assert seen.seconds > 0.0
        if strategy == "personal":
            assert math.isnan(seen.objective)
        else:
            assert (seen.objective, seen.residual) == (known.objective, known.residual)
    ours, theirs = report_run(record), report_run(served)
    for key in (
        "run",
        "strategy",
        "strategies",
        "placement",
        "vector",
        "uplink",
        "downlink_wire",
        "certificate",
    ):
        assert ours[key] == theirs[key]


async def test_settings_must_be_those_of_the_server() -> None:
    async with Cluster(run_options(settings=make_settings(), workers=3)) as cluster:
        with pytest.raises(UsageError, match=r"strength must be that of the server, 0.05, got 0.5"):
            await asyncio.to_thread(join_server, *cluster.address, make_settings(strength=0.5), STORED)


async def test_others_may_take_part() -> None:
    settings = make_settings()
    async with Cluster(run_options(settings=settings, workers=3)) as cluster:
        other = cluster.join("w0", STORED["w0"])
        ours = {name: STORED[name] for name in ("w1", "w2")}
        record, models = await asyncio.to_thread(join_server, *cluster.address, settings, ours)
        await other
    assert models.tasks == ("t0", "t1", "t2")
    assert math.isnan(record.rounds[0].objective)
    assert record.rounds[0].up_bytes > 0


async def test_the_environment_says_what_must_be_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings()
    monkeypatch.setenv("ASYNCDMTL_SECRET", "a secret of this test")
    async with Cluster(run_options(settings=settings, workers=3)) as cluster:
        with pytest.raises(AuthenticationError, match="does not ask for the secret"):
            await asyncio.to_thread(join_server, *cluster.address, settings, STORED)


def test_plaintext_across_hosts_must_be_permitted() -> None:
    with pytest.raises(UsageError, match="must be a loopback address unless"):
        join_server("192.0.2.1", 7700, make_settings(), STORED)
