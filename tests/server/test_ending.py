"""The end of a run, after which workers may be gone when another server continues from its checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clusters import Cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import PeerError
from asyncdmtl.learning.training import train
from asyncdmtl.protocol.messages.registry import Finish, Message
from asyncdmtl.server import server as servers
from asyncdmtl.server.ending import Ending
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import Peers
from asyncdmtl.server.server import Server

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(dtype="float64", rounds=3)

options = partial(run_options, settings=SETTINGS, workers=2, checkpoint_every=100)


@pytest.fixture(autouse=True)
def _killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server vanishes, as by SIGKILL, once it has told one worker that the run is over."""
    send_all = Peers.send_all

    async def send_one(peers: Peers, messages: Mapping[Member, Message]) -> None:
        if all(isinstance(message, Finish) for message in messages.values()):
            first, *others = messages
            await send_all(peers, {first: messages[first]})
            for member in others:
                member.connection.abort()
            monkeypatch.setattr(Peers, "send_all", send_all)
            raise asyncio.CancelledError
        await send_all(peers, messages)

    async def nothing(server: Server) -> None:
        """Write no last checkpoint."""

    monkeypatch.setattr(Peers, "send_all", send_one)
    monkeypatch.setattr(Server, "_write_last_checkpoint", nothing)
    monkeypatch.setattr(servers, "RETURN_SECONDS", 0.3)


@pytest.mark.parametrize("strategy", ["relay", "personal", "linear"])
@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_run_whose_workers_are_done_ends_as_it_would_have(
    tmp_path: Path, strategy: str, comes_back: bool
) -> None:
    settings = replace(SETTINGS, coupling="mean") if strategy == "linear" else SETTINGS
    chosen = options(settings=settings, strategy=strategy, checkpoint=tmp_path)
    async with Cluster(chosen) as cluster:
        done = cluster.join("w0", PARTITIONS[:4])
        other = cluster.join("w1", PARTITIONS[4:])
        await done
        await asyncio.wait([cluster.server])
        if not comes_back:
            other.cancel()
        again = Cluster(replace(chosen, resume=True))
        record = await again.instance.run(*cluster.address)
        if comes_back:
            found = await other
            twin = train(PARTITIONS, settings).models
            expected = twin.of([twin.tasks.index(task) for task in found.tasks])
            assert found.coef_ == pytest.approx(expected.coef_)
    assert [entry.round for entry in record.rounds] == [0, 1, 2]
    assert record.plan.placement.workers == ("w0", "w1")


async def test_a_worker_that_lacks_models_which_nobody_has_is_told_so(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path)
    async with Cluster(chosen) as cluster:
        done, other = cluster.join("w0", PARTITIONS[:4]), cluster.join("w1", PARTITIONS[4:])
        await done
        await asyncio.wait([cluster.server])
        other.cancel()
    async with Cluster(replace(chosen, resume=True)) as again:
        # Started anew, it has no state of the training.
        with pytest.raises(PeerError, match="no worker is left that has its final models"):
            await again.join("w1", PARTITIONS[4:])
        assert len((await again.server).rounds) == 3


def test_an_ending_is_read_as_it_was_written() -> None:
    ending = Ending(b"x" * 16, None, 0.5, {}, {"w0": (("p0", "p1"), "all")})
    assert vars(Ending.unpack(ending.pack(), "squared")) == vars(ending)


@pytest.mark.parametrize(
    "change", [{"check": "text"}, {"workers": [1]}, {"workers": {"w0": 3}}, {"outcome": 1}]
)
def test_a_malformed_ending_is_an_error(change: dict[str, Any]) -> None:
    ending = Ending(b"", None, None, {}, {})
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        Ending.unpack(ending.pack() | change, "squared")
