"""Server and workers over real TCP, in one process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from support.clusters import Cluster, run_cluster, stored_at
from support.messages import wire_bytes
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings
from support.problems import run_options as options

from asyncdmtl.errors import DataError, LinkError, PeerError, PlacementError, UsageError, WaitError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.linear import LinearWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.frame_reader import FrameReader
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import VERSION, Failure, Hello
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import Joined, Left, Planned, Refused

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["homogeneous", "heterogeneous"])
async def test_a_distributed_run_equals_its_twin_and_its_plan(placement: Placement, strategy: Any) -> None:
    partitions = make_partitions(len(placement.partitions), "squared", features=60)
    settings = make_settings(dtype="float64")
    twin = train(partitions, settings)
    record, models = await run_cluster(options(strategy=strategy, settings=settings), placement, partitions)
    for own, stored in zip(models, placement.stored, strict=True):
        hosted = {partitions[n].task for n in stored} if strategy == "personal" else twin.models.tasks
        assert set(own.tasks) == set(hosted)
        expected = twin.models.of([twin.models.tasks.index(task) for task in own.tasks])
        assert own.coef_.tobytes() == expected.coef_.tobytes()
        assert own.intercept_.tobytes() == expected.intercept_.tobytes()
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    made = report_run(record)
    for part in ("uplink", "downlink_broadcast", "downlink_wire"):
        assert made[part]["measured_load"] == made[part]["load"]
    assert Fraction(made["uplink"]["load"]) == record.plan.uplink_load
    assert made["kernel_ledger_difference"] == {"up": 0, "down": 0}
    kinds = {
        (entry.kind, entry.round): entry.messages for entry in record.ledger.entries() if entry.worker == "w0"
    }
    assert all(kinds["uplink", r] == kinds["downlink", r] == 1 for r in range(settings.rounds))


@pytest.mark.parametrize("coupling", ["nuclear", "mean", "mean-regularised", "chain"])
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["homogeneous", "heterogeneous"])
async def test_a_run_with_linear_targets_equals_its_twin_up_to_rounding(
    placement: Placement, coupling: str
) -> None:
    partitions = make_partitions(len(placement.partitions), "squared", features=20)
    intercept = "free" if coupling == "nuclear" else "none"
    settings = make_settings(
        dtype="float64", coupling=coupling, rounds=30, intercept=intercept, accelerated=False
    )
    twin = train(partitions, settings).models
    record, models = await run_cluster(options(strategy="linear", settings=settings), placement, partitions)
    for own in models:
        assert abs(own.coef_ - twin.coef_).max() <= 1e-9 * abs(twin.coef_).max()
        assert abs(own.intercept_ - twin.intercept_).max() <= 1e-9
    made = report_run(record)
    for part in ("uplink", "downlink_broadcast", "downlink_wire"):
        assert made[part]["measured_load"] == made[part]["load"]
    if coupling == "mean":
        assert made["downlink_broadcast"]["load"] == "1"


async def test_auto_takes_the_cheapest_exact_strategy() -> None:
    record, models = await run_cluster(options(strategy="auto"), HOMOGENEOUS, PARTITIONS)
    chosen = report_run(record)
    costs = {name: Fraction(row["unicast_cost"]) for name, row in chosen["strategies"].items()}
    assert costs[chosen["strategy"]] == min(costs.values())
    twin = train(PARTITIONS, SETTINGS).models
    assert (
        models[0].coef_.tobytes()
        == twin.of([twin.tasks.index(task) for task in models[0].tasks]).coef_.tobytes()
    )


def test_linear_targets_need_a_linear_aggregate() -> None:
    with pytest.raises(UsageError, match="needs --aggregate mean"):
        options(strategy="linear", settings=make_settings(aggregate="median"))


async def test_one_worker_that_stores_everything() -> None:
    record, (models,) = await run_cluster(
        options(workers=1), Placement({"w0": [part.id for part in PARTITIONS]}), PARTITIONS
    )
    assert models.coef_.tobytes() == train(PARTITIONS, SETTINGS).models.coef_.tobytes()
    assert record.ledger.total()[0] == 0


async def test_full_coverage_starts_a_run() -> None:
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options(workers=None, cover=HOMOGENEOUS.partitions)) as cluster:
        tasks = [cluster.join(name, own[name]) for name in ("w0", "w3")]
        record = await cluster.server
        await asyncio.gather(*tasks)
    assert record.plan.placement.workers == ("w0", "w3")


@pytest.mark.parametrize(
    ("name", "partitions", "complaint"),
    [
        ("w0", PARTITIONS[3:4], "--name must be unique"),
        ("w1", [replace(PARTITIONS[0], id="p9")], "unknown, got 'p9'"),
    ],
)
async def test_a_worker_that_does_not_fit_is_told_why_and_the_run_goes_on(
    name: str, partitions: list[Partition], complaint: str
) -> None:
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options(workers=2, cover=HOMOGENEOUS.partitions)) as cluster:
        first = cluster.join("w0", own["w0"])
        await cluster.event(Joined, worker="w0")
        with pytest.raises(PeerError, match=complaint) as caught:
            await cluster.join(name, partitions, max_wait=0.2)
        assert caught.value.exit_code == UsageError.exit_code
        second = cluster.join("w3", own["w3"])
        await cluster.server
        await asyncio.gather(first, second)


async def test_partitions_with_other_features_end_the_run_with_their_name() -> None:
    odd = replace(PARTITIONS[5], X=PARTITIONS[5].X[:, :5])
    async with Cluster(options(workers=2)) as cluster:
        workers = [cluster.join("w0", PARTITIONS[:5]), cluster.join("w1", [odd])]
        with pytest.raises(
            DataError, match=r"features of partition 'p5' must be as many as in 'p0' \(9\), got 5"
        ):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match="features of partition 'p5'"):
                await worker


async def test_those_who_join_must_cover_all_partitions() -> None:
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options(workers=2, cover=HOMOGENEOUS.partitions)) as cluster:
        workers = [cluster.join("w0", own["w0"]), cluster.join("w1", own["w1"])]
        with pytest.raises(PlacementError, match=r"without holder, got \['p2', 'p3'\]"):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match="without holder"):
                await worker


async def test_a_worker_that_left_before_the_start_may_come_again() -> None:
    async with Cluster(options(workers=2)) as cluster:
        first = cluster.join("w0", PARTITIONS)
        await cluster.event(Joined, worker="w0")
        first.cancel()
        await cluster.event(Left, worker="w0")
        again = [cluster.join("w0", PARTITIONS), cluster.join("w1", PARTITIONS[:2])]
        await asyncio.gather(cluster.server, *again)


async def test_waiting_for_workers_has_a_limit() -> None:
    async with Cluster(options(workers=2, join_timeout=0.2)) as cluster:
        worker = cluster.join("w0", PARTITIONS)
        with pytest.raises(WaitError, match=r"1 of 2 are here \(w0\) after 0.2 s .* --join-timeout"):
            await cluster.server
        with pytest.raises(PeerError, match="--join-timeout"):
            await worker


async def test_losing_the_only_holder_ends_the_run_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    hold_back(monkeypatch, 1, lambda: loop.call_soon_threadsafe(lost.set))
    async with Cluster(options(workers=2, rejoin_timeout=0.0)) as cluster:
        other, leaving = cluster.join("w0", PARTITIONS[:4]), cluster.join("w1", PARTITIONS[2:])
        await lost.wait()
        leaving.cancel()
        with pytest.raises(LinkError, match=r"\['p4', 'p5'\]: worker 'w1' held .* was lost"):
            await cluster.server
        with pytest.raises(PeerError, match=r"worker 'w1'.* was lost") as caught:
            await other
        assert caught.value.exit_code == LinkError.exit_code


@pytest.mark.parametrize("strategy", [*STRATEGIES, "linear"])
@pytest.mark.parametrize("round_", [0, 2])
async def test_the_others_go_on_without_a_lost_worker(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, round_: int
) -> None:
    compute, calls, leave = CodedWorkerSide.compute, [0], asyncio.Event()
    loop = asyncio.get_running_loop()
    linear_compute = LinearWorkerSide.compute

    def counted(side: Any) -> Upload:
        if side.plan.placement.workers[side.worker] == "w1":
            calls[0] += 1
            if calls[0] == round_ + 1:
                loop.call_soon_threadsafe(leave.set)
        return linear_compute(side) if isinstance(side, LinearWorkerSide) else compute(side)

    monkeypatch.setattr(CodedWorkerSide, "compute", counted)
    monkeypatch.setattr(LinearWorkerSide, "compute", counted)
    settings = make_settings(rounds=6, dtype="float64", accelerated=strategy != "linear")
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options(strategy=strategy, settings=settings)) as cluster:
        workers = {name: cluster.join(name, parts) for name, parts in own.items()}
        await leave.wait()
        workers.pop("w1").cancel()
        record = await cluster.server
        models = await asyncio.gather(*workers.values())
    assert [incident.worker for incident in record.incidents] == ["w1"]
    assert record.plan.placement.workers == ("w0", "w2", "w3", "w4", "w5")
    twin = train(PARTITIONS, settings).models
    for found in models:
        expected = twin.of([twin.tasks.index(task) for task in found.tasks])
        if strategy == "linear":
            assert abs(found.coef_ - expected.coef_).max() < 1e-9
        else:
            assert found.coef_.tobytes() == expected.coef_.tobytes()
            assert found.intercept_.tobytes() == expected.intercept_.tobytes()


def hold_back(monkeypatch: pytest.MonkeyPatch, worker: int, before: Callable[[], object]) -> None:
    """Call `before` in one worker's thread before it computes."""
    compute = CodedWorkerSide.compute

    def held(side: CodedWorkerSide) -> Upload:
        if side.worker == worker:
            before()
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "compute", held)


@pytest.mark.parametrize(("server", "own"), [(0.4, 0.4), (0.4, 60.0), (60.0, 0.4)])
async def test_heartbeats_go_on_while_a_worker_computes(
    monkeypatch: pytest.MonkeyPatch, server: float, own: float
) -> None:
    release = threading.Event()
    hold_back(monkeypatch, 0, release.wait)
    async with Cluster(options(workers=1, silence_timeout=server)) as cluster:
        worker = cluster.join("w0", PARTITIONS, silence_timeout=own)
        await cluster.event(Planned)
        # This is four times the shorter limit: without heartbeats, that side would have given up.
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(1.6, passed.set)
        await passed.wait()
        release.set()
        await asyncio.gather(cluster.server, worker)


async def test_a_peer_that_falls_silent_is_lost() -> None:
    async with Cluster(options(workers=1, silence_timeout=0.2, join_timeout=30)) as cluster:
        reader, writer = await asyncio.open_connection(*cluster.address)
        writer.write(wire_bytes(Hello(VERSION, "mute")))
        await reader.read()
        refused = await cluster.event(Refused, worker="mute")
        assert "--silence-timeout" in refused.reason
        writer.close()


async def test_the_slowest_worker_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    hold_back(monkeypatch, 1, release.wait)
    try:
        async with Cluster(options(workers=2, round_timeout=0.3)) as cluster:
            quick = cluster.join("w0", PARTITIONS)
            slow = cluster.join("w1", PARTITIONS[2:])
            record = await cluster.server
            release.set()
            with pytest.raises(PeerError, match="--round-timeout"):
                await slow
            models = await quick
    finally:
        release.set()
    assert "no uplink came from worker 'w1'" in record.incidents[0].reason
    assert models.coef_.tobytes() == train(PARTITIONS, SETTINGS).models.coef_.tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_holder_that_computes_other_updates_is_outvoted(
    monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    packed_updates = Trainer.packed_updates

    def disturbed(trainer: Trainer, out: Any) -> Any:
        losses = packed_updates(trainer, out)
        # w2 is the one that holds p0, p1 and p2: its first update of the run is a little off.
        if trainer.own == (0, 1, 2):
            out[0, 0] += 1
        return losses

    monkeypatch.setattr(Trainer, "packed_updates", disturbed)
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options(strategy=strategy)) as cluster:
        workers = [cluster.join(name, parts) for name, parts in own.items()]
        record = await cluster.server
        models = await asyncio.gather(*workers)
    assert [(incident.round, incident.worker) for incident in record.incidents] == [(0, "w2")]
    assert "other bits of ['p0']" in record.incidents[0].reason
    assert record.plan.placement.stored[2] == (1, 2)
    monkeypatch.undo()
    twin = train(PARTITIONS, SETTINGS).models
    for found in models:
        expected = twin.of([twin.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()


async def test_a_worker_that_always_differs_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = CodedWorkerSide.compute

    def disagree(side: CodedWorkerSide) -> Upload:
        sent = compute(side)
        odd = side.plan.placement.workers[side.worker] == "w2"
        return replace(sent, digests=(bytes(16), *sent.digests[1:])) if odd and sent.digests else sent

    monkeypatch.setattr(CodedWorkerSide, "compute", disagree)
    own = stored_at(HOMOGENEOUS, PARTITIONS)
    async with Cluster(options()) as cluster:
        workers = {name: cluster.join(name, parts) for name, parts in own.items()}
        record = await cluster.server
        with pytest.raises(PeerError, match="'p2': w2 against w3, w4"):
            await workers.pop("w2")
        await asyncio.gather(*workers.values())
    assert "w2" not in record.plan.placement.workers


async def answer_to(address: tuple[str, int], data: bytes) -> Failure:
    """The server's answer to a stranger before it closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    reply = await reader.read()
    writer.close()
    session_reader = FrameReader(1 << 16, 0)
    (frame,) = session_reader.feed(reply)
    failure = registry.unpack(frame.head, frame.body)
    assert isinstance(failure, Failure)
    return failure


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (wire_bytes(Hello(99, "w0")), "protocol version 99"),
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "does not match its check"),
        (framing.frame_start(b"\xc1\xc1\xc1", 0), "head is not msgpack"),
        (framing.pack_prefix(8, 0) + b"\xc1\xc1\xc1\xce1234", "does not match its check"),
        (framing.pack_prefix(2**32 - 1, 2**64 - 1), "frame announces a head"),
    ],
    ids=["version", "http", "garbage", "check", "lengths"],
)
async def test_strangers_are_told_off_and_nobody_else_notices(data: bytes, complaint: str) -> None:
    async with Cluster(options(workers=1)) as cluster:
        failure = await answer_to(cluster.address, data)
        assert complaint in failure.reason
        worker = cluster.join("w0", PARTITIONS)
        await asyncio.gather(cluster.server, worker)


async def test_a_port_in_use_is_named() -> None:
    async with Cluster(options()) as cluster:
        second = Cluster(options())
        with pytest.raises(
            LinkError, match=rf"cannot listen on 127.0.0.1:{cluster.address[1]}: address already in use"
        ):
            await second.instance.run(*cluster.address)


async def test_a_server_that_is_not_there_is_waited_for_and_given_up() -> None:
    async with Cluster(options()) as cluster:
        host, port = cluster.address
    cluster.address = (host, port)
    with pytest.raises(
        LinkError, match=rf"cannot reach a server at {host}:{port}: connection refused.*--max-wait"
    ):
        await cluster.join("w0", PARTITIONS, max_wait=0.1)


async def test_a_server_that_comes_late_is_found() -> None:
    async with Cluster(options()) as cluster:
        address = cluster.address
    late = Cluster(options(workers=1))
    late.address = address
    worker = late.join("w0", PARTITIONS, max_wait=30.0)
    late.server = asyncio.create_task(late.instance.run(*address))
    await asyncio.gather(late.server, worker)
