"""Peers that send no complete message, or accept nothing, are disconnected, and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import numpy as np
import pytest
from support.clusters import Cluster
from support.peers import Peer
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.learning.training import train
from asyncdmtl.protocol.messages.registry import AwaitRestore, Heartbeat, StateTransfer, Uplink
from asyncdmtl.server.events import IncidentNoted, Planned
from asyncdmtl.server.records import RoundRecord

PARTITIONS = make_partitions(4, "squared")
SETTINGS = make_settings()
SILENCE = 1.5


options = partial(run_options, workers=2, silence_timeout=SILENCE, round_timeout=50.0)


async def repeated(peer: Peer, what: bytes | None) -> None:
    """Send some bytes, or else heartbeats, repeatedly at short intervals."""
    while not peer.writer.transport.is_closing():
        peer.writer.write(peer.packed(Heartbeat()) if what is None else what)
        await asyncio.sleep(SILENCE / 10)


@pytest.mark.parametrize("trickle", [b"", b"\0"], ids=["half a frame", "byte by byte"])
async def test_a_message_that_comes_to_no_end_costs_no_more_than_a_silent_worker(trickle: bytes) -> None:
    async with Cluster(options()) as cluster, Peer.connected("w1", cluster.address) as peer:
        honest = cluster.join("w0", PARTITIONS)
        assign = await peer.join(PARTITIONS[:2], 60.0)
        rows = np.zeros(100, np.uint8)
        peer.writer.write(peer.packed(Uplink(assign.plan, 0, bytes(16), rows))[:100])
        stalling = asyncio.create_task(repeated(peer, trickle))
        incident = await cluster.event(IncidentNoted, worker="w1")
        assert "nothing more was heard" in incident.reason
        assert (
            "in the middle of a message, after 1.5 s (the limit is set by --silence-timeout)"
            in incident.reason
        )
        await cluster.server
        models = await honest
        stalling.cancel()
    assert models.coef_.tobytes() == train(PARTITIONS, SETTINGS).models.coef_.tobytes()


async def test_who_takes_nothing_is_cut_off_and_the_rounds_go_on() -> None:
    partitions = make_partitions(4, "squared", features=600_000)
    settings = make_settings(coupling="l21", rounds=10**6)
    async with Cluster(options(workers=1, settings=settings)) as cluster:
        cluster.join("w0", partitions)
        await cluster.event(RoundRecord)
        async with Peer.connected("late", cluster.address) as peer:
            # It is told to take the state of the training, 9.6 MB, agrees, and reads nothing of it.
            assign = await peer.join(partitions[:2], 60.0)
            assert assign.first == StateTransfer.TAKE
            peer.say(AwaitRestore(assign.plan))
            alive = asyncio.create_task(repeated(peer, None))
            incident = await cluster.event(IncidentNoted, worker="late")
            assert "took nothing of what it was sent after 1.5 s" in incident.reason
            alive.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await alive
        await cluster.event(Planned, number=2, workers=("w0",))
        done = max(event.round for event in cluster.events if isinstance(event, RoundRecord))
        await cluster.event(RoundRecord, round=done + 1)
