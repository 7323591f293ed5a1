"""Whole runs of a server over real TCP, with real workers in one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.clusters import Cluster, run_cluster, stored_at
from support.members import make_member
from support.peers import Peer
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.digests import Digest
from asyncdmtl.errors import LinkError, PeerError, UsageError, WaitError
from asyncdmtl.exchange.linear import LinearWorkerSide
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.registry import VERSION, Declare, Failure, Hello, Prepare, Welcome
from asyncdmtl.server import server
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.events import Checkpointed, Joined, Left, Listening, Resumed
from asyncdmtl.server.faults import MOST_ODD_STATES
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.server.rounds import Rounds

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(dtype="float64", rounds=6)
OWN = stored_at(HOMOGENEOUS, PARTITIONS)

options = partial(run_options, settings=SETTINGS)


async def test_a_run_ends_with_a_record_of_all_of_it() -> None:
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    twin = train(PARTITIONS, SETTINGS)
    assert models[0].coef_.tobytes() == twin.models.coef_.tobytes()
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    assert (record.settings, record.incidents, record.converged) == (SETTINGS, (), False)
    assert record.plan.placement.workers == tuple(OWN)
    assert (record.multicast, record.outcome) == (None, None)
    assert set(record.kernel) == set(OWN)
    assert record.encoding.is_empty
    assert record.seconds > 0
    # The unit of the loads: one vector as it is coded.
    up = [entry.payload for entry in record.ledger.entries() if entry.kind == "uplink" and entry.round == 0]
    assert sum(up) == record.plan.uplink_load * record.vector_bytes


async def test_the_address_is_told_once_the_server_listens() -> None:
    async with Cluster(options()) as cluster:
        listening = await cluster.event(Listening)
        assert (listening.host, len(listening.run)) == ("127.0.0.1", 8)
        assert listening.port > 0


async def test_an_address_in_use_leaves_the_checkpoints_to_others(tmp_path: Path) -> None:
    async with Cluster(options()) as cluster:
        chosen = options(checkpoint=tmp_path)
        second = Cluster(chosen)
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1:{cluster.address[1]}"):
            await second.instance.run(*cluster.address)
        Cluster(chosen)  # the directory is not locked


async def test_an_error_is_told_to_all_members() -> None:
    async with Cluster(options(workers=2, join_timeout=0.2)) as cluster:
        worker = cluster.join("w0", PARTITIONS)
        with pytest.raises(WaitError, match=r"1 of 2 are here \(w0\)"):
            await cluster.server
        with pytest.raises(PeerError, match=r"1 of 2 are here \(w0\)") as caught:
            await worker
        assert caught.value.exit_code == WaitError.exit_code


async def test_a_defect_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(rounds: Rounds, patience: float) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Rounds, "make", broken)
    async with Cluster(options(workers=1)) as cluster:
        worker = cluster.join("w0", PARTITIONS)
        with pytest.raises(PeerError, match=r"internal error: ZeroDivisionError\('a defect'\)"):
            await worker
        with pytest.raises(ZeroDivisionError):
            await cluster.server


async def test_workers_of_a_server_that_is_stopped_end_with_it() -> None:
    async with Cluster(options(settings=replace(SETTINGS, rounds=10**6), workers=1)) as cluster:
        worker = cluster.join("w0", PARTITIONS)
        await cluster.event(RoundRecord, round=1)
        cluster.server.cancel()
        with pytest.raises(PeerError, match="the server was stopped"):
            await worker
        await asyncio.wait([cluster.server])
        assert cluster.server.cancelled()


@pytest.mark.parametrize("checkpoints", [True, False])
async def test_workers_whose_admission_is_cut_off_may_come_back_to_a_run_with_checkpoints(
    tmp_path: Path, checkpoints: bool
) -> None:
    chosen = options(checkpoint=tmp_path if checkpoints else None)
    async with Cluster(chosen) as cluster, Peer.connected("w0", cluster.address) as peer:
        peer.say(Hello(VERSION, "w0", 60.0))
        await peer.hear(Welcome)
        cluster.server.cancel()
        failure = await peer.hear(Failure)
        assert (failure.reason, failure.worker_may_return) == ("the server ended", checkpoints)


@pytest.mark.parametrize("strategy", ["relay", "personal"])
async def test_a_stopped_run_is_resumed_where_it_was_stopped(tmp_path: Path, strategy: str) -> None:
    settings = replace(SETTINGS, rounds=40)
    chosen = options(
        settings=settings, strategy=strategy, checkpoint=tmp_path, checkpoint_every=100, workers=2
    )
    twin = train(PARTITIONS, settings)
    async with Cluster(chosen) as cluster:
        workers = [cluster.join("w0", PARTITIONS), cluster.join("w1", PARTITIONS[2:])]
        run = (await cluster.event(Listening)).run
        await cluster.event(RoundRecord, round=3)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        again = Cluster(replace(chosen, resume=True))
        again.server = asyncio.create_task(again.instance.run(*cluster.address))
        resumed = await again.event(Resumed)
        assert resumed.run == run
        assert resumed.round >= 4
        record = await again.server
        models = await asyncio.gather(*workers)
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    assert models[0].coef_.tobytes() == twin.models.coef_.tobytes()
    assert record.run == run
    # Bytes of the first server are in the ledger, but not in the kernel's counts for the second.
    assert {entry.round for entry in record.ledger.entries() if entry.kind == "uplink"} == set(range(40))
    assert record.kernel == {}


async def test_the_last_checkpoint_of_a_finished_run_has_its_end(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, checkpoint_every=1, workers=1)
    async with Cluster(chosen) as cluster:
        worker = cluster.join("w0", PARTITIONS)
        await asyncio.gather(cluster.server, worker)
        written = [event.round for event in cluster.events if isinstance(event, Checkpointed)]
        assert written == list(range(SETTINGS.rounds + 1))
    # For a server that is killed before its report is written.
    found = CheckpointStore(tmp_path).load()
    assert found is not None
    assert found.ending is not None


async def test_a_server_that_resumes_waits_only_so_long_for_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RETURN_SECONDS", 0.1)
    settings = replace(SETTINGS, rounds=40)
    chosen = options(settings=settings, checkpoint=tmp_path, checkpoint_every=1, workers=2)
    async with Cluster(chosen) as cluster:
        cluster.join("w0", PARTITIONS)
        cluster.join("w1", PARTITIONS[2:])
        await cluster.event(RoundRecord, round=3)
    async with Cluster(replace(chosen, resume=True)) as again:
        worker = again.join("w0", PARTITIONS)
        record = await again.server
        models = await worker
    assert record.plan.placement.workers == ("w0",)
    assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()


async def test_a_worker_that_is_back_and_prepares_its_rows_is_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that has ended would end without giving it the models."""
    monkeypatch.setattr(server, "RETURN_SECONDS", 0.0)
    membership, member = Membership(), make_member("w0", PARTITIONS)
    await server.wait_for_return(membership, ["w0", "w1"], 60.0)
    membership.add(member)
    waiting = asyncio.create_task(server.wait_for_return(membership, ["w0", "w1"], 60.0))
    for _ in range(9):
        await asyncio.sleep(0)
        membership.note_change()
    assert not waiting.done()
    member.ready = True
    membership.note_change()
    # The other one is not here.
    await waiting


async def test_options_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="--resume needs --checkpoint"):
        Cluster(options(resume=True))


@pytest.mark.parametrize("comes", [True, False])
async def test_a_worker_that_left_before_its_rows_were_encoded_is_waited_for(comes: bool) -> None:
    async with Cluster(options(workers=2, join_timeout=60.0 if comes else 2.0)) as cluster:
        async with Peer.connected("w1", cluster.address) as peer:
            peer.say(Hello(VERSION, "w1", 60.0))
            digest = Digest((await peer.hear(Welcome)).run)
            plain = [part.declaration() for part in PARTITIONS[4:]]
            declared = tuple(replace(part, digest=digest.keyed(part.digest)) for part in plain)
            peer.say(Declare(declared, machine=Machine.here(SETTINGS.arithmetic)))
            await cluster.event(Joined, worker="w1")
            first = cluster.join("w0", PARTITIONS[:4])
            # It has declared its rows, and vanishes before they are encoded.
            await peer.hear(Prepare)
        await cluster.event(Left, worker="w1")
        if comes:
            await asyncio.gather(cluster.join("w1", PARTITIONS[4:]), cluster.server, first)
            return
        with pytest.raises(WaitError, match=r"1 of 2 are here \(w0\)"):
            await cluster.server


async def test_rounding_that_grows_under_a_linear_plan_excludes_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Under the first plan, rounding in the models of w2 grows sevenfold in a round. Others are not tried.
    monkeypatch.setattr("asyncdmtl.exchange.strategies.LINEAR_SEEDS", 1)
    placement = Placement({"w0": ["p0", "p3", "p4"], "w1": ["p1", "p2", "p5"], "w2": ["p2", "p3", "p5"]})
    settings = replace(SETTINGS, rounds=45)
    chosen = options(settings=settings, strategy="linear", workers=3)
    record, models = await run_cluster(chosen, placement, PARTITIONS)
    assert sum(incident.worker == "w2" for incident in record.incidents) > MOST_ODD_STATES
    assert "rounding errors have grown" in record.incidents[0].reason
    assert [entry.round for entry in record.rounds] == list(range(45))
    twin = train(PARTITIONS, settings).models
    for found in models:
        assert found.coef_ == pytest.approx(twin.coef_, rel=1e-3)


async def test_rounding_that_moves_all_states_apart_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    # What rounding may do under a bad plan: no two workers have the same state, and all are near each other.
    apply = LinearWorkerSide.apply

    def apply_and_move(side: LinearWorkerSide, expected: bytes) -> None:
        apply(side, expected)
        if side.trainer.steps == 8:
            side.trainer.W[:] *= 1.0 + 1e-7 * (1 + side.worker)

    monkeypatch.setattr(LinearWorkerSide, "apply", apply_and_move)
    placement = Placement.cyclic(4, 8, 3)
    partitions = make_partitions(8, "squared")
    settings = make_settings(
        dtype="float64", coupling="chain", rounds=20, intercept="none", accelerated=False
    )
    chosen = options(settings=settings, strategy="linear", workers=4)
    record, models = await run_cluster(chosen, placement, partitions)
    # In one of the rounds, the three others were given the state of one worker.
    odd = Counter(incident.round for incident in record.incidents)
    assert max(odd.values()) == 3
    assert [entry.round for entry in record.rounds] == list(range(20))
    twin = train(partitions, settings).models
    for found in models:
        assert found.coef_ == pytest.approx(twin.coef_, rel=1e-6, abs=1e-6 * abs(twin.coef_).max())
