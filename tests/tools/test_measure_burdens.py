"""The burdens that are put on a server come over real sockets, and a run goes on under them."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from support.clusters import LIMIT, Cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.server.events import Joined
from asyncdmtl.server.records import RoundRecord

TOOLS = Path(__file__).parents[2] / "tools"
SECRET = b"as long as a secret has to be"
PARTITIONS = make_partitions(2, "squared")


@pytest.fixture
def burdens(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(TOOLS)
    # Smaller, to be quick.
    tool = importlib.import_module("burdens")
    monkeypatch.setattr(tool, "COLUMNS", 100)
    return tool


async def test_each_burden_comes_and_the_run_goes_on(burdens: Any) -> None:
    security = ServerSecurity(Credentials(SECRET, {}, "this run"))
    chosen = run_options(settings=make_settings(rounds=10**6), workers=1, silence_timeout=2.0)
    async with asyncio.timeout(LIMIT), Cluster(chosen, security) as cluster:
        cluster.join("w0", PARTITIONS, WorkerSecurity(SECRET))
        await cluster.event(RoundRecord, round=2)
        strangers = cluster.instance._admission._strangers
        silent = asyncio.create_task(burdens.strangers(cluster.address, 5, ("127.0.0.1",)))
        while len(strangers) < 5:
            await asyncio.wait([silent], timeout=0.01)
        silent.cancel()
        (refused,) = await burdens.declarations(cluster.address, SECRET, "p9", 1)
        assert "may store known partitions only" in refused
        flapping = asyncio.create_task(burdens.flap(cluster.address, SECRET, "f", PARTITIONS[:1]))
        await cluster.event(Joined, worker="f", again=True)
        flapping.cancel()
        assert await flapping >= 1
        mute = asyncio.create_task(burdens.flap(cluster.address, SECRET, "g", PARTITIONS[:1], mute=True))
        await cluster.event(Joined, worker="g", again=True)
        mute.cancel()
        assert await mute >= 1
        done = max(event.round for event in cluster.events if isinstance(event, RoundRecord))
        await cluster.event(RoundRecord, round=done + 2)


def test_every_burden_is_one_of_the_tool(burdens: Any) -> None:
    measured = importlib.import_module("measure_burdens")
    assert set(measured.BURDENS) == {
        "declarations", "flapper", "mute", "strangers", "silent", "proofs", "together",
    }  # fmt: skip
    assert measured.burdens is burdens
