"""Whole runs whose workers agree on their key through the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.blind_runs import (
    OWN,
    PARTITIONS,
    SECRET,
    SETTINGS,
    BlindRun,
    blind_run,
    check,
    hold_rounds,
    options,
)
from support.certificates import Authority
from support.clusters import Cluster
from support.problems import make_partitions
from support.streams import JobCluster

from asyncdmtl.blinding.agreement import SecretProofs
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.errors import AuthenticationError, PeerError, UsageError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.learning.training import train
from asyncdmtl.net.member_certificates import CertificateProofs
from asyncdmtl.server.events import Joined, Refused, Resumed
from asyncdmtl.server.jobs import Job
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.jobs import StreamOver
from asyncdmtl.worker.state import WorkerState


class Keys:
    """The keys that workers have adopted, by worker, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, list[tuple[bytes, ...]]] = {}
        adopt = WorkerState.adopt

        def noting(state: WorkerState, group: GroupKey) -> None:
            self.of.setdefault(state.name, []).append(group.secrets)
            adopt(state, group)

        monkeypatch.setattr(WorkerState, "adopt", noting)


async def join_all(run: BlindRun, *names: str) -> None:
    for name in names or OWN:
        await run.join(name, OWN[name])


async def test_workers_agree_on_one_key_that_never_reaches_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = Keys(monkeypatch)
    async with blind_run(agree=True) as run:
        await join_all(run)
        record, models = await run.end()
        sent = b"".join(b"".join(tap.sent) for tap in run.taps.values())
    check(record, models, train(PARTITIONS, SETTINGS))
    ((key,),) = {found for each in keys.of.values() for found in each}
    assert keys.of.keys() == OWN.keys()
    assert key not in sent
    assert SECRET not in sent
    assert key != SECRET


async def test_a_late_worker_and_one_that_was_cut_off_get_the_key_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, settings = Keys(monkeypatch), replace(SETTINGS, rounds=8)
    *first, last = OWN
    async with blind_run(agree=True, settings=settings, workers=len(first)) as run:
        hold_rounds(monkeypatch, run, last, 3)
        await join_all(run, *first)
        await run.cluster.event(RoundRecord, round=1)
        run.taps["w1"].cut()
        await run.join(last, OWN[last])
        record, models = await run.end()
    check(record, models, train(PARTITIONS, settings))
    assert len({found for each in keys.of.values() for found in each}) == 1
    assert last in keys.of


async def test_a_new_key_shuts_out_a_worker_that_is_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, partitions = Keys(monkeypatch), make_partitions(4, "squared")
    fill, settings = CodedWorkerSide._fill_units, replace(SETTINGS, rounds=8)

    def other_bits(side: CodedWorkerSide) -> Any:
        if side.plan.placement.workers[side.worker] == "w1" and side.place[1] == 2:
            side._own_updates[0, 0] += 1.0
        return fill(side)

    monkeypatch.setattr(CodedWorkerSide, "_fill_units", other_bits)
    async with blind_run(agree=True, settings=settings, workers=4) as run:
        hold_rounds(monkeypatch, run, "w4", 5)
        for name in ("w0", "w1", "w2"):
            await run.join(name, partitions)
        await run.join("w3", partitions[:1])
        await run.cluster.event(RoundRecord, round=4)
        # It is given the keys of the whole run, since surveys were sealed with the first.
        await run.join("w4", partitions[1:2])
        with pytest.raises(PeerError, match="holders computed other bits"):
            await run.workers.pop("w1")
        record, models = await run.end()
    check(record, models, train(partitions, settings))
    assert {incident.worker for incident in record.incidents} == {"w1"}
    (first,) = keys.of["w1"][-1]
    for name in ("w0", "w2", "w3", "w4"):
        assert keys.of[name][-1][0] == first
        assert len(keys.of[name][-1]) == 2
    assert len({keys.of[name][-1] for name in ("w0", "w2", "w3", "w4")}) == 1


async def test_a_resumed_server_gives_new_workers_the_key_of_one_that_stayed(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, settings=replace(SETTINGS, rounds=16, tolerance=0.2))
    proofs = SecretProofs(SECRET)
    async with Cluster(chosen) as cluster:
        workers = {name: cluster.join(name, own, group_proofs=proofs) for name, own in OWN.items()}
        await cluster.event(RoundRecord, round=3)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        gone = workers.pop("w1")
        gone.cancel()
        await asyncio.wait([gone])
        again = Cluster(replace(chosen, resume=True))
        again.address = cluster.address
        again.server = asyncio.create_task(again.instance.run(*cluster.address))
        await again.event(Resumed)
        workers["w1"] = again.join("w1", OWN["w1"], group_proofs=proofs)
        record = await again.server
        check(record, await asyncio.gather(*workers.values()), train(PARTITIONS, chosen.settings))


async def test_certificates_prove_members_and_no_server_or_stranger_is_given_the_key(tmp_path: Path) -> None:
    group, other = Authority(tmp_path / "group"), Authority(tmp_path / "other")
    async with Cluster(options()) as cluster:
        workers = [
            cluster.join(name, own, group_proofs=CertificateProofs(group.ca, *group.issue(name)))
            for name, own in OWN.items()
            if name != "w1"
        ]
        stranger = CertificateProofs(other.ca, *other.issue("w1"))
        with pytest.raises(PeerError, match=r"'w1' did not prove to 'w\d' that it is a member") as refused:
            await cluster.join("w1", OWN["w1"], group_proofs=stranger)
        assert refused.value.exit_code == AuthenticationError.exit_code
        # The server has no certificate of the group, whatever name it takes.
        workers.append(
            cluster.join("w1", OWN["w1"], group_proofs=CertificateProofs(group.ca, *group.issue("w1")))
        )
        record = await cluster.server
        check(record, await asyncio.gather(*workers), train(PARTITIONS, SETTINGS))


async def test_workers_must_come_by_their_key_in_the_same_way() -> None:
    async with Cluster(options(workers=2)) as cluster:
        worker = cluster.join("w0", OWN["w0"], group_secret=SECRET)
        await cluster.event(Joined, worker="w0")
        with pytest.raises(PeerError, match="'w1' has it, and 'w0' has not"):
            await cluster.join("w1", OWN["w1"], group_proofs=SecretProofs(SECRET))
        await cluster.event(Refused, worker="w1")
        worker.cancel()


async def test_a_server_that_is_not_blind_is_refused() -> None:
    async with Cluster(options(blind=False)) as cluster:
        with pytest.raises(UsageError, match="--group-agree is for a server with --blind"):
            await cluster.join("w0", OWN["w0"], group_proofs=SecretProofs(SECRET))


async def test_each_job_of_a_stream_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, partitions = Keys(monkeypatch), make_partitions(2, "squared")
    jobs = {name: replace(SETTINGS, rounds=rounds) for name, rounds in (("one", 2), ("two", 3))}
    async with JobCluster() as cluster:
        workers = [cluster.join(f"w{k}", partitions, group_proofs=SecretProofs(SECRET)) for k in range(2)]
        await cluster.submit(*(Job(name, options(settings=s, workers=2)) for name, s in jobs.items()))
        for worker in workers:
            with pytest.raises(StreamOver):
                await worker
        await cluster.server
    for (job, _), models in cluster.models.items():
        assert models.coef_.tobytes() == train(partitions, jobs[job]).models.coef_.tobytes()
    assert len(cluster.models) == 4
    assert sorted(keys.of["w0"]) == sorted(keys.of["w1"])
    assert len(set(keys.of["w0"])) == 2
