"""Whole runs whose server is blind: their models in spite of faults, and what such runs refuse."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.blind_runs import OWN, PARTITIONS, SECRET, SETTINGS, blind_run, check, options
from support.clusters import Cluster
from support.groups import LOOPBACK, free_group
from support.placements import HOMOGENEOUS
from support.problems import make_partitions
from support.raw_partitions import raw_partition

from asyncdmtl.errors import DataError, IntegrityError, PeerError, UsageError, WaitError
from asyncdmtl.exchange.blind_worker import BlindWorkerSide
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.learning.training import train
from asyncdmtl.server import replanning
from asyncdmtl.server.events import Left, Planned, Refused, Resumed
from asyncdmtl.server.records import MulticastOptions, RoundRecord
from asyncdmtl.server.server import Server
from asyncdmtl.worker.participation import Participation

# The messages of rounds, and those after the last one.
KINDS = "uplink", "downlink", "more-rows", "done", "finish"


@pytest.mark.parametrize(("strategy", "coupling"), [("uncoded", "mean"), ("relay", "l21")])
async def test_the_server_receives_and_sends_as_many_bytes_as_if_it_were_not_blind(
    strategy: Any, coupling: Any
) -> None:
    settings, seen = replace(SETTINGS, coupling=coupling), []
    for secret in (SECRET, None):
        async with blind_run(secret, blind=secret is not None, strategy=strategy, settings=settings) as run:
            for name, own in OWN.items():
                await run.join(name, own)
            record, models = await run.end()
        check(record, models, train(PARTITIONS, settings))
        # Messages, bytes of rows and of heads, of each worker in each direction and round, and at the end.
        seen.append({entry for entry in record.ledger.entries() if entry.kind in KINDS})
    assert len(seen[0]) >= 2 * len(OWN) * settings.rounds
    assert seen[0] == seen[1]


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
async def test_a_worker_whose_connection_is_cut_comes_back(tolerance: float) -> None:
    settings = replace(SETTINGS, rounds=16, tolerance=tolerance)
    twin = train(PARTITIONS, settings)
    rounds = len(twin.objectives)
    assert rounds == 16 if not tolerance else 4 < rounds < 16
    async with blind_run(settings=settings) as run:
        for name, own in OWN.items():
            await run.join(name, own)
        await run.cluster.event(RoundRecord, round=2)
        run.taps["w1"].cut()
        # At the end of a run that the workers end, the server knows nothing of the end yet.
        await run.cluster.event(RoundRecord, round=rounds - 1)
        run.taps["w2"].cut()
        record, models = await run.end()
    check(record, models, twin)
    assert {"w1", "w2"} >= {incident.worker for incident in record.incidents} >= {"w1"}


async def test_all_workers_may_be_cut_off_when_they_alone_know_that_training_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SETTINGS, rounds=16, tolerance=0.2)
    twin = train(PARTITIONS, settings)
    async with blind_run(settings=settings) as run:
        leave, cut = Participation._leave, list[bool]()

        async def cut_first(part: Participation) -> None:
            if not cut:
                cut.append(True)
                for tap in run.taps.values():
                    tap.cut()
            await leave(part)

        monkeypatch.setattr(Participation, "_leave", cut_first)
        for name, own in OWN.items():
            await run.join(name, own)
        record, models = await run.end()
    assert cut
    check(record, models, twin)


async def test_a_resumed_server_goes_on_with_new_workers_from_a_sealed_state(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, checkpoint_every=3, settings=replace(SETTINGS, rounds=16))
    async with Cluster(chosen) as cluster:
        for name, own in OWN.items():
            cluster.join(name, own, group_secret=SECRET)
        await cluster.event(RoundRecord, round=9)
    with pytest.raises(UsageError, match="--resume needs --blind if, and only if, the run that is resumed"):
        Server(replace(chosen, resume=True, blind=False), print)
    async with Cluster(replace(chosen, resume=True)) as again:
        resumed = await again.event(Resumed)
        assert resumed.round >= 6
        workers = [again.join(name, own, group_secret=SECRET) for name, own in OWN.items()]
        record = await again.server
        check(record, await asyncio.gather(*workers), train(PARTITIONS, chosen.settings))


async def test_workers_wait_for_a_blind_server_that_will_be_resumed(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, settings=replace(SETTINGS, rounds=16, tolerance=0.2))
    async with Cluster(chosen) as cluster:
        workers = [cluster.join(name, own, group_secret=SECRET) for name, own in OWN.items()]
        await cluster.event(RoundRecord, round=3)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        again = Cluster(replace(chosen, resume=True))
        again.server = asyncio.create_task(again.instance.run(*cluster.address))
        record = await again.server
        check(record, await asyncio.gather(*workers), train(PARTITIONS, chosen.settings))


async def test_a_holder_that_computes_other_bits_is_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = make_partitions(4, "squared")
    compute, own = CodedWorkerSide._fill_units, dict.fromkeys(("w0", "w1", "w2"), partitions)

    def other_bits(side: CodedWorkerSide) -> Any:
        if side.plan.placement.workers[side.worker] == "w1":
            side._own_updates[0, 0] += 1.0
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "_fill_units", other_bits)
    own = {**own, "w3": partitions[:1]}
    async with blind_run(workers=4) as run:
        for name, parts in own.items():
            await run.join(name, parts)
        record = await run.cluster.server
        with pytest.raises(PeerError, match="holders computed other bits"):
            await run.workers.pop("w1")
        _, models = await run.end()
    check(record, models, train(partitions, SETTINGS))
    assert {incident.worker for incident in record.incidents} == {"w1"}


async def test_a_run_whose_workers_find_wrong_what_the_server_finds_right_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish = BlindWorkerSide._finish_decoding

    def wrong(side: BlindWorkerSide) -> None:
        finish(side)
        if side.place[1] == 2:
            side._wanted[0, 0] ^= 1

    monkeypatch.setattr(BlindWorkerSide, "_finish_decoding", wrong)
    monkeypatch.setattr(replanning, "MOST_MISLED_PLANS", 2)
    async with blind_run() as run:
        for name, own in OWN.items():
            await run.join(name, own)
        with pytest.raises(IntegrityError, match=r"under 2 plans of one round: .* blind server cannot tell"):
            await run.cluster.server
        first, *others = [event.strategy for event in run.cluster.events if isinstance(event, Planned)]
        assert first == "relay"
        assert set(others) == {"uncoded"}


async def test_a_group_carries_masked_rows() -> None:
    fast = MulticastOptions(free_group(), LOOPBACK, 1e10)
    async with blind_run(multicast=fast) as run:
        for name, own in OWN.items():
            await run.join(name, own)
        record, models = await run.end()
    check(record, models, train(PARTITIONS, SETTINGS))
    assert record.multicast is not None
    assert record.multicast.listeners == HOMOGENEOUS.workers


@pytest.mark.parametrize(
    ("blind", "secret", "complaint"),
    [
        (True, None, "--group-secret-file must be given, the same to all workers"),
        (False, SECRET, "--group-secret-file is for a server with --blind"),
    ],
)
async def test_server_and_worker_must_agree_whether_the_run_is_blind(
    blind: bool, secret: bytes | None, complaint: str
) -> None:
    async with Cluster(options(blind=blind)) as cluster:
        with pytest.raises(UsageError, match=complaint):
            await cluster.join("w0", OWN["w0"], group_secret=secret)
        await cluster.event(Refused, worker="w0")


async def test_a_worker_with_another_secret_is_left_out_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Cluster(options(workers=2, join_timeout=5.0)) as cluster:
        one = cluster.join("w0", OWN["w0"], group_secret=SECRET)
        other = cluster.join("w1", OWN["w1"], group_secret=b"another secret of a group")
        for worker in (one, other):
            with pytest.raises((IntegrityError, PeerError, WaitError)):
                await worker


async def test_errors_of_workers_are_told_without_their_values() -> None:
    odd = [raw_partition("p0", {"dose": np.array([1.5, 2.5])}, np.array(["well", "sick"], object))]
    async with Cluster(options(workers=1)) as cluster:
        with pytest.raises(DataError, match="sick"):
            await cluster.join("w0", odd, group_secret=SECRET)
        left = await cluster.event(Left, worker="w0")
        assert "DataError; the worker's own log has the reason" in left.reason
        assert "sick" not in repr(cluster.events)


async def test_rows_for_tests_are_refused() -> None:
    async with Cluster(options(workers=1)) as cluster:
        with pytest.raises(UsageError, match="--test-fraction must be 0 in a blind run"):
            await cluster.join("w0", PARTITIONS, group_secret=SECRET, test_fraction=0.3)
