"""Whole runs in which workers take rows from each other, on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.clusters import Cluster, run_cluster, stored_at
from support.peer_rows import corrupt_one_block
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options
from support.trees import PATIENCE, SITES, Tree, trees

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.net.tls import server_context, worker_context
from asyncdmtl.net.udp import Group
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.registry import AskRows
from asyncdmtl.report.console import make_console
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.run_tables import show_run
from asyncdmtl.server.events import IncidentNoted
from asyncdmtl.server.records import (
    PEER_ROWS,
    MulticastOptions,
    PeersRecord,
    RoundRecord,
    RunOptions,
    RunRecord,
)
from asyncdmtl.worker.peer_server import PeerServer

SETTINGS = make_settings(dtype="float64", coupling="l21", rounds=4)
PARTITIONS = make_partitions(6, "squared", features=200)
OWN = stored_at(HOMOGENEOUS, PARTITIONS)


def options(**changes: Any) -> RunOptions:
    return run_options(**{"settings": SETTINGS, "peers": True, **changes})


def told(record: RunRecord) -> PeersRecord:
    assert record.peers is not None
    return record.peers


def check(models: Iterable[TaskModels], partitions: list[Partition] = PARTITIONS) -> None:
    """Check that these are the models of the undisturbed run."""
    twin = train(partitions, SETTINGS).models
    for own in models:
        assert own.coef_.tobytes() == twin.coef_.tobytes()
        assert own.intercept_.tobytes() == twin.intercept_.tobytes()


def report_words(record: RunRecord) -> str:
    console = make_console()
    with console.capture() as captured:
        show_run(report_run(record), console)
    return " ".join(captured.get().split())


@pytest.mark.parametrize(
    ("placement", "strategy"), [(HOMOGENEOUS, "relay"), (HETEROGENEOUS, "auto"), (HOMOGENEOUS, "uncoded")]
)
async def test_a_run_among_peers_equals_its_twin(
    monkeypatch: pytest.MonkeyPatch, placement: Placement, strategy: str
) -> None:
    # However busy this machine is, no block is asked for twice.
    monkeypatch.setattr("asyncdmtl.exchange.blocks.LATE_SECONDS", 30.0)
    monkeypatch.setattr("asyncdmtl.exchange.blocks.FEWEST_BYTES", 500)
    partitions = make_partitions(len(placement.partitions), "squared", features=300)
    record, models = await run_cluster(options(strategy=strategy), placement, partitions)
    check(models, partitions)
    assert told(record).exchanging == placement.workers
    assert (told(record).carried, told(record).served_by_server) == (False, {})
    assert record.ledger.total(lambda e: e.kind in ("uplink", "downlink", "more-rows"))[0] == 0
    made = report_run(record)
    assert made["downlink_wire"]["measured_load"] == made["downlink_wire"]["load"]
    assert made["kernel_ledger_difference"] == {"up": 0, "down": 0}
    assert (
        sum(link["payload_bytes"] for link in made["peers"]["links"])
        == (record.ledger.total(lambda e: e.kind == PEER_ROWS)[0])
    )
    assert "6 workers take rows from others" in report_words(record)


async def test_rows_between_workers_are_measured_without_the_padding_of_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncdmtl.exchange.blocks.LATE_SECONDS", 30.0)
    # Rows of this plan are halves of vectors, and vectors of 65 numbers are padded.
    placement = Placement.cyclic(5, 20, 3)
    partitions = make_partitions(20, "squared", features=64)
    settings = make_settings(dtype="float32", rounds=2)
    record, _ = await run_cluster(
        options(settings=settings, strategy="relay", workers=5), placement, partitions
    )
    assert record.down_vector_bytes > 65 * 4
    made = report_run(record)["downlink_wire"]
    assert made["measured_load"] == made["load"]


async def test_the_server_chooses_rows_between_workers_where_a_round_is_shortest() -> None:
    group = MulticastOptions(Group("239.192.77.78", 7702), "", 90e6)
    record, models = await run_cluster(options(strategy="auto", multicast=group), HOMOGENEOUS, PARTITIONS)
    check(models)
    choice = record.downlink
    assert choice is not None
    kinds = {downlink.kind: downlink.time(choice.speeds) for downlink in choice.possible}
    assert kinds[choice.chosen.kind] == min(kinds.values())
    assert choice.chosen.kind == "peers"
    assert told(record).exchanging == HOMOGENEOUS.workers
    assert "Downlink peers: a round takes " in report_words(record)


async def test_links_between_workers_are_encrypted_as_those_to_the_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    credentials = Credentials(b"a secret of all workers", {}, "test")
    server = ServerSecurity(credentials, server_context(*authority.issue("127.0.0.1")))
    worker = WorkerSecurity(b"a secret of all workers", worker_context(authority.ca))
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS, server, dict.fromkeys(OWN, worker))
    check(models)
    plain, _ = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    assert told(record).exchanging == HOMOGENEOUS.workers
    added = [record.ledger.total(lambda e: e.kind == PEER_ROWS)[1] for record in (record, plain)]
    assert added[0] > 1.2 * added[1]


async def test_a_worker_whose_rows_none_can_take_makes_the_server_serve_those_that_need_them() -> None:
    placement = Placement({"w0": ["p0", "p1"], "w1": ["p1", "p2"], "w2": ["p2", "p1"], "w3": ["p2"]})
    partitions = make_partitions(3, "squared", features=300)
    async with Cluster(options(workers=4)) as cluster:
        workers = [
            cluster.join(name, own, peer_listen="none" if name == "w0" else "")
            for name, own in stored_at(placement, partitions).items()
        ]
        record = await cluster.server
        check([await worker for worker in workers], partitions)
    # All but w0 lack p0, which w0 alone has.
    assert told(record).exchanging == ("w0",)
    assert told(record).carried
    assert told(record).without_port == {"w0": "accepts no connections (--peer-listen none)"}
    assert record.incidents == ()


async def test_a_worker_that_cannot_reach_others_is_served_by_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = PeerServer._admit

    async def refused(server: PeerServer, connection: Any, *others: Any) -> None:
        if server._name in ("w1", "w2", "w3"):
            connection.abort()
            others[1].leave(connection)
        else:
            await opened(server, connection, *others)

    monkeypatch.setattr(PeerServer, "_admit", refused)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    served = told(record).served_by_server
    assert served
    assert all("cannot reach worker 'w" in why for why in served.values())
    assert told(record).carried
    assert 0 < len(told(record).exchanging) == 6 - len(served)
    assert "was served by the server: cannot reach worker" in report_words(record)


async def test_a_peer_that_is_lost_costs_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, cut = PeerServer._answer, list[str]()

    def vanish(server: PeerServer, connection: Any, ask: AskRows) -> None:
        if ask.round == 1 and not cut:
            cut.append(connection.session.worker)
            connection.abort()
        else:
            answer(server, connection, ask)

    monkeypatch.setattr(PeerServer, "_answer", vanish)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert cut
    assert record.incidents == ()
    assert told(record).served_by_server == {}


async def test_blocks_of_a_peer_that_gives_nothing_come_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.exchange.blocks.UNKNOWN_SECONDS", 0.05)
    answer = PeerServer._answer

    def freeze(server: PeerServer, connection: Any, ask: AskRows) -> None:
        if server._name != "w2":
            answer(server, connection, ask)

    monkeypatch.setattr(PeerServer, "_answer", freeze)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert not [link for link in told(record).links if link[0] == "w2"]


async def test_workers_that_come_late_or_leave_are_exchanged_with() -> None:
    settings = make_settings(dtype="float64", coupling="l21", rounds=30)
    late, *others = OWN
    async with Cluster(options(settings=settings, workers=5)) as cluster:
        workers = [cluster.join(name, OWN[name]) for name in others]
        await cluster.event(RoundRecord, round=1)
        workers.append(cluster.join(late, OWN[late]))
        await cluster.event(RoundRecord, round=4)
        workers.pop(1).cancel()
        await cluster.event(IncidentNoted, worker=others[1])
        record = await cluster.server
        models = [await worker for worker in workers]
    twin = train(PARTITIONS, settings).models
    assert all(own.coef_.tobytes() == twin.coef_.tobytes() for own in models)
    assert told(record).exchanging == (late, *(name for name in others if name != others[1]))
    assert (told(record).carried, told(record).served_by_server) == (False, {})


async def test_the_only_holder_of_a_vector_may_be_lost_while_others_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placement = Placement({"w0": ["p0"], "w1": ["p1"], "w2": ["p1"]})
    partitions = make_partitions(2, "squared", features=300)
    answer, left = PeerServer._answer, asyncio.Event()

    def vanish(server: PeerServer, connection: Any, ask: AskRows) -> None:
        if server._name == "w0" and ask.round == 2 and not left.is_set():
            left.set()
        elif not (server._name == "w0" and left.is_set() and not back):
            answer(server, connection, ask)

    back: list[bool] = []
    monkeypatch.setattr(PeerServer, "_answer", vanish)
    async with Cluster(options(workers=3)) as cluster:
        workers = {name: cluster.join(name, own) for name, own in stored_at(placement, partitions).items()}
        await left.wait()
        back.append(True)
        workers["w0"].cancel()
        await cluster.event(IncidentNoted, worker="w0")
        workers["w0"] = cluster.join("w0", stored_at(placement, partitions)["w0"])
        record = await cluster.server
        check([await worker for worker in workers.values()], partitions)
    assert told(record).served_by_server == {}


async def test_wrong_rows_of_a_peer_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = corrupt_one_block(monkeypatch)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert wrong
    assert any("decoded other vectors" in incident.reason for incident in record.incidents)


def test_strategies_by_which_the_server_aggregates_have_no_use_for_peers() -> None:
    with pytest.raises(UsageError, match="--downlink peers is for strategies by which workers aggregate"):
        options(strategy="central")


async def grow_one_site(tree: Tree, more: str) -> None:
    """Start a relay with two workers, and three workers beside it, the first of which stores `more`, too."""
    partitions = {part.id: part for part in PARTITIONS}
    await tree.relay("north", 2)
    for name, site in SITES.items():
        stored = [partitions[p] for p in ("p2", "p3", more)] if name == "c" else None
        tree.worker(name, "north" if site == "north" else "", stored)


@pytest.mark.parametrize(
    ("strategy", "more", "exchanging"),
    [("relay", "p1", ("c", "d", "e")), ("uncoded", "p1", ("c", "d", "e")), ("relay", "p4", ())],
)
async def test_relays_are_served_by_the_server_and_workers_beside_them_take_rows_from_each_other(
    strategy: str, more: str, exchanging: tuple[str, ...]
) -> None:
    # Without a worker that stores p1, only the relay has it, from which nobody takes rows.
    async with trees(options(strategy=strategy, workers=5), features=200) as (cluster, tree):
        await grow_one_site(tree, more)
        record = await cluster.server
        check([await tree.tasks[name] for name in SITES])
    assert told(record).exchanging == exchanging
    assert told(record).carried
    assert {name for link in told(record).links for name in link} == set(exchanging)


async def test_a_relay_beside_workers_that_take_rows_from_each_other_may_be_lost() -> None:
    async with trees(options(workers=5, rejoin_timeout=PATIENCE), features=200) as (cluster, tree):
        await grow_one_site(tree, "p1")
        await cluster.event(RoundRecord, round=1)
        await tree.stop("north")
        record = await cluster.server
        check([await tree.tasks[name] for name in SITES])
    assert {"c", "d", "e"} <= {name for link in told(record).links for name in link}
