from __future__ import annotations

import asyncio

import pytest
from support.clusters import LIMIT
from support.peers import Peer
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.errors import AuthenticationError, PeerError
from asyncdmtl.net.authentication import ServerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    Failure,
    Hello,
    JobCall,
    Message,
    Standby,
    StreamEnd,
)
from asyncdmtl.server.events import Refused
from asyncdmtl.server.jobs import Job
from asyncdmtl.worker.jobs import StreamOver

PARTITIONS = make_partitions(2, "squared")
OPTIONS = run_options(settings=make_settings(dtype="float64"), workers=1)


async def test_workers_prove_who_they_are_before_they_stand_by_and_for_each_job() -> None:
    security = ServerSecurity(Credentials(b"a secret of all workers", {}, "the test"))
    async with asyncio.timeout(LIMIT), JobCluster(security) as cluster:
        with pytest.raises((PeerError, AuthenticationError)):
            await cluster.join("wrong", PARTITIONS, b"another secret of one")
        right = cluster.join("right", PARTITIONS, b"a secret of all workers")
        await cluster.submit(Job("a", OPTIONS))
        await cluster.server
        with pytest.raises(StreamOver):
            await right
    assert cluster.outcomes[0].record is not None
    assert cluster.models.keys() == {("a", "right")}


async def test_nobody_is_admitted_to_a_run_that_is_not_in_progress() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster, Peer.connected("w0", cluster.address) as peer:
        peer.say(Hello(VERSION, "w0", LIMIT, "deadbeef"))
        failure = await peer.hear(Failure)
        assert "run must be that of a job in progress, got 'deadbeef'" in failure.reason
        assert any(isinstance(event, Refused) for event in cluster.events)


async def test_a_name_stands_by_once_and_again_after_it_is_lost() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        async with Peer.connected("w0", cluster.address) as first:
            first.say(Hello(VERSION, "w0", LIMIT))
            await first.hear(Standby)
            async with Peer.connected("w0", cluster.address) as second:
                second.say(Hello(VERSION, "w0", LIMIT))
                failure = await second.hear(Failure)
                assert "must be unique; already standing by" in failure.reason
                assert failure.worker_may_return
        await cluster.submit(Job("a", OPTIONS), end=False)
        # The server may notice the lost connection a moment later.
        while True:
            async with Peer.connected("w0", cluster.address) as again:
                again.say(Hello(VERSION, "w0", LIMIT))
                if isinstance(await again.hear(Message), Standby):
                    assert (await again.hear(JobCall)).job == "a"
                    break


async def test_workers_that_stand_by_learn_that_no_more_jobs_will_follow() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster, Peer.connected("w0", cluster.address) as peer:
        peer.say(Hello(VERSION, "w0", LIMIT))
        await peer.hear(Standby)
        await cluster.submit()
        await peer.hear(StreamEnd)
        await cluster.server
