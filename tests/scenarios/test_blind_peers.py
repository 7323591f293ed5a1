"""Blind runs in which workers take rows from each other: masked, whoever carries them or asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.blind_runs import PARTITIONS, SETTINGS, Tap, blind_run, check
from support.clusters import stored_at
from support.peer_rows import corrupt_one_block
from support.placements import HOMOGENEOUS
from support.problems import make_partitions
from support.secrecy import WORDS, Seen, heads_and_opaque, raw

from asyncdmtl.arrays import Bytes
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import connect
from asyncdmtl.plan.plan import Plan
from asyncdmtl.protocol.messages.registry import AskRows
from asyncdmtl.server.records import PeersRecord, RunRecord
from asyncdmtl.worker import peer_server

OWN = stored_at(HOMOGENEOUS, PARTITIONS)


def told(record: RunRecord) -> PeersRecord:
    assert record.peers is not None
    return record.peers


@pytest.fixture
async def links(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[list[bytes]]]:
    """All bytes that pass between workers, in each direction of each link."""
    found = list[list[bytes]]()
    async with AsyncExitStack() as stack:

        async def tapped(host: str, port: int, make: Callable[[], Connection], seconds: float) -> Connection:
            tap, down = Tap((host, port)), list[bytes]()

            def keep(data: bytes) -> bytes:
                down.append(data)
                return data

            tap.down = keep
            await stack.enter_async_context(tap.running())
            found.extend((tap.sent, down))
            return await connect(*tap.address, make, seconds)

        monkeypatch.setattr("asyncdmtl.worker.peer_client.connect", tapped)
        yield found


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
async def test_models_are_those_of_the_twin(strategy: str, tolerance: float) -> None:
    settings = replace(SETTINGS, tolerance=tolerance, rounds=100 if tolerance else 6)
    async with blind_run(settings=settings, peers=True, strategy=strategy) as run:
        for name, partitions in OWN.items():
            await run.join(name, partitions)
        record, models = await run.end()
    check(record, models, train(PARTITIONS, settings))
    assert told(record).exchanging == HOMOGENEOUS.workers
    assert (told(record).carried, told(record).served_by_server) == (False, {})
    assert not record.incidents


async def test_rows_of_several_blocks_are_unmasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.exchange.blocks.FEWEST_BYTES", 500)
    partitions = make_partitions(6, "squared", features=301)
    async with blind_run(peers=True) as run:
        for name, own in stored_at(HOMOGENEOUS, partitions).items():
            await run.join(name, own)
        record, models = await run.end()
    check(record, models, train(partitions, SETTINGS))


async def test_a_worker_that_others_cannot_reach_has_the_server_send_masked_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Seen(monkeypatch)
    async with blind_run(peers=True) as run:
        for name, partitions in OWN.items():
            await run.join(name, partitions, peer_listen="none" if name in ("w0", "w1", "w2") else "")
        record, models = await run.end()
        sent = b"".join(b"".join(tap.sent) for tap in run.taps.values())
    check(record, models, train(PARTITIONS, SETTINGS))
    assert told(record).carried
    assert seen.found_in(sent) == set()


async def test_nothing_that_depends_on_data_passes_between_workers_or_reaches_the_server(
    monkeypatch: pytest.MonkeyPatch, links: list[list[bytes]]
) -> None:
    settings = replace(SETTINGS, loss="logistic", rounds=5, tolerance=1e-12, standardise=True)
    seen, partitions = Seen(monkeypatch), raw(0)
    async with blind_run(settings=settings, peers=True) as run:
        for name, own in stored_at(HOMOGENEOUS, partitions).items():
            await run.join(name, own)
        record, _ = await run.end()
        sent = [b"".join(tap.sent) for tap in run.taps.values()]
    assert (told(record).carried, told(record).served_by_server) == (False, {})
    seen.add_columns(partitions)
    between = [b"".join(way) for way in links]
    everything = b"".join((*sent, *between))
    assert seen.found_in(everything) == set()
    assert not [word for word in WORDS if word in everything]
    opaque = b"".join({heads_and_opaque(link)[1] for link in between})
    assert len(opaque) > 2000


async def test_what_workers_give_each_other_looks_like_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """All updates are 0, so that rows that are not masked would be 0, too."""
    partitions = [
        Partition(part.id, part.task, np.zeros((4, 900)), np.zeros(4))
        for part in make_partitions(6, "squared")
    ]
    given, blocks = peer_server._block, set[bytes]()

    def kept(vectors: Mapping[int, Bytes], ask: AskRows) -> Bytes:
        block = given(vectors, ask)
        blocks.add(block.tobytes())
        return block

    monkeypatch.setattr(peer_server, "_block", kept)
    async with blind_run(peers=True, settings=replace(SETTINGS, rounds=2)) as run:
        for name, own in stored_at(HOMOGENEOUS, partitions).items():
            await run.join(name, own)
        record, _ = await run.end()
    # Holders of a unit give the same bytes, and those of each round are others.
    assert isinstance(record.plan, Plan)
    assert len(blocks) == 2 * len(record.plan.units.holders)
    counts = np.bincount(np.frombuffer(b"".join(blocks), np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


async def test_wrong_rows_of_a_peer_are_noticed_and_the_server_compares_masked_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = corrupt_one_block(monkeypatch)
    async with blind_run(peers=True) as run:
        for name, partitions in OWN.items():
            await run.join(name, partitions)
        record, models = await run.end()
    check(record, models, train(PARTITIONS, SETTINGS))
    assert wrong
    # From then on rows pass the server, which compares them with digests of masked units.
    assert strategy_of(record.plan).name == "uncoded"
    assert told(record).carried
    assert told(record).exchanging == ()
