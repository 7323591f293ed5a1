from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from support.clusters import LIMIT, Cluster
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.errors import AuthenticationError, PeerError
from asyncdmtl.net.authentication import UNSECURED_WORKER, ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.protocol.messages.registry import JobEnded
from asyncdmtl.server.jobs import Job
from asyncdmtl.worker.jobs import StreamOver
from asyncdmtl.worker.submission import SubmitOptions, submit

OPTIONS = run_options(settings=make_settings(rounds=2), workers=1)
PARTITIONS = make_partitions(2, "squared")
SECRET = b"a secret of all workers"


def read_job(table: Mapping[str, Any]) -> Job:
    return Job(str(table["name"]), OPTIONS)


async def test_jobs_are_made_and_their_ends_told() -> None:
    security = ServerSecurity(Credentials(SECRET, {}, "the test"))
    ends: list[JobEnded] = []
    async with asyncio.timeout(LIMIT), JobCluster(security, read_job) as cluster:
        worker = cluster.join("w0", PARTITIONS, SECRET)
        jobs = [json.dumps({"name": name}) for name in ("a", "b")]
        own = SubmitOptions("program")
        with pytest.raises((AuthenticationError, PeerError)):
            await submit(cluster.address, jobs, own, WorkerSecurity(b"another secret"), ends.append)
        await submit(cluster.address, jobs, own, WorkerSecurity(SECRET), ends.append)
        last = SubmitOptions("program", ends=True)
        await submit(cluster.address, [], last, WorkerSecurity(SECRET), ends.append)
        await cluster.server
        with pytest.raises(StreamOver):
            await worker
    assert [(ended.job, ended.error, ended.exit_code) for ended in ends] == [("a", "", 0), ("b", "", 0)]
    assert json.loads(ends[0].report) == {"rounds": 1}
    assert cluster.models.keys() == {("a", "w0"), ("b", "w0")}


async def test_other_servers_take_no_jobs() -> None:
    own = SubmitOptions("program")
    async with asyncio.timeout(LIMIT):
        async with JobCluster() as stream:
            with pytest.raises(PeerError, match="--submissions must be given to the server"):
                await submit(stream.address, [], own, UNSECURED_WORKER, print)
        async with Cluster(OPTIONS) as single:
            with pytest.raises(PeerError, match="--submissions must be given to the server"):
                await submit(single.address, [], own, UNSECURED_WORKER, print)
