"""Whole runs whose rows go to a group, on the loopback."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from support.clusters import Cluster, run_cluster, stored_at
from support.groups import LOOPBACK, free_group
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import PeerError, RemoteProtocolError, UsageError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.net.udp import GroupReceiver
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.multicast import Fallback, JoinGroup, LossQuery, LossReport, MulticastControl
from asyncdmtl.protocol.state_table import State
from asyncdmtl.report.console import make_console
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.run_tables import show_run
from asyncdmtl.server.events import IncidentNoted, Joined, Left, Planned
from asyncdmtl.server.multicast_server import GROUP, MulticastServer
from asyncdmtl.server.peers import MOST_OFFENCES
from asyncdmtl.server.records import MulticastOptions, MulticastRecord, RoundRecord, RunOptions, RunRecord
from asyncdmtl.worker.multicast_client import MulticastClient

SETTINGS = make_settings(dtype="float64", rounds=4)
PARTITIONS = make_partitions(6, "squared", features=12_000)
OWN = stored_at(HOMOGENEOUS, PARTITIONS)

# The name of an interface that does not exist.
NOWHERE = "nowhere0"


def options(**changes: Any) -> RunOptions:
    """Options of a run that sends to a group of its own, as fast as it can."""
    fast = MulticastOptions(free_group(), LOOPBACK, 1e10)
    return run_options(**{"settings": SETTINGS, "multicast": fast, **changes})


def told(record: RunRecord) -> MulticastRecord:
    assert record.multicast is not None
    return record.multicast


def check(models: Iterable[TaskModels], partitions: list[Partition] = PARTITIONS) -> None:
    """Check that these are the models of the undisturbed run."""
    twin = train(partitions, SETTINGS).models
    for own in models:
        expected = twin.of([twin.tasks.index(task) for task in own.tasks])
        assert own.coef_.tobytes() == expected.coef_.tobytes()
        assert own.intercept_.tobytes() == expected.intercept_.tobytes()


def sent_to_group(record: RunRecord, kind: str) -> int:
    return record.ledger.total(lambda entry: entry.worker == GROUP and entry.kind == kind)[0]


def losing(monkeypatch: pytest.MonkeyPatch, lost: Callable[[GroupReceiver], float]) -> None:
    """Let receivers lose a share of the datagrams that arrive."""
    hand_over, chance = GroupReceiver._hand_over, random.Random(0)

    def sometimes(receiver: GroupReceiver, datagram: memoryview) -> None:
        if chance.random() >= lost(receiver):
            hand_over(receiver, datagram)

    monkeypatch.setattr(GroupReceiver, "_hand_over", sometimes)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["homogeneous", "heterogeneous"])
async def test_a_run_over_a_group_equals_its_twin(placement: Placement, strategy: Any) -> None:
    partitions = make_partitions(len(placement.partitions), "squared", features=6000)
    record, models = await run_cluster(options(strategy=strategy), placement, partitions)
    check(models, partitions)
    assert told(record).listeners == placement.workers
    assert not told(record).served_over_tcp
    assert sent_to_group(record, "repair") == told(record).repair_bytes == 0
    made = report_run(record)
    assert made["downlink_wire"]["measured_load"] == made["downlink_wire"]["load"]
    assert made["downlink_wire"]["load"] == made["downlink_broadcast"]["load"]
    assert made["kernel_ledger_difference"] == {"up": 0, "down": 0}
    assert {row["lost"] for row in made["multicast"]["workers"].values()} == {0}


@pytest.mark.parametrize("strategy", ["relay", "central", "uncoded"])
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
async def test_lost_datagrams_change_nothing(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, loss: float
) -> None:
    losing(monkeypatch, lambda receiver: loss)
    record, models = await run_cluster(options(strategy=strategy), HETEROGENEOUS, PARTITIONS_12)
    check(models, PARTITIONS_12)
    assert sent_to_group(record, "repair") > 0
    receptions = told(record).receptions.values()
    assert 0.3 * loss < sum(r.lost for r in receptions) / sum(r.sent for r in receptions) < 3 * loss
    assert "needed repair" in report_words(record)


PARTITIONS_12 = make_partitions(12, "squared", features=12_000)


def report_words(record: RunRecord) -> str:
    console = make_console()
    with console.capture() as captured:
        show_run(report_run(record), console)
    return " ".join(captured.get().split())


@pytest.mark.parametrize("deaf", [1, 5, 6])
async def test_workers_that_cannot_hear_the_group_are_served_over_tcp(deaf: int) -> None:
    async with Cluster(options()) as cluster:
        workers = [
            cluster.join(name, own, interface=NOWHERE if k < deaf else LOOPBACK)
            for k, (name, own) in enumerate(OWN.items())
        ]
        planned = await cluster.event(Planned)
        record = await cluster.server
        check([await worker for worker in workers])
    hearing = () if deaf >= 5 else tuple(OWN)[deaf:]
    assert planned.listeners == told(record).listeners == hearing
    assert set(told(record).served_over_tcp) == set(list(OWN)[:deaf])
    made = report_run(record)
    assert made["downlink_wire"]["measured_load"] == made["downlink_wire"]["load"]
    each = record.plan.downlink_load
    copies = deaf if hearing else 6
    assert Fraction(made["downlink_wire"]["load"]) == copies * each + (each if hearing else 0)
    assert f"{next(iter(OWN))} was served over TCP: --interface must be one of" in report_words(record)
    why = {1: "2 vectors to the group instead of 10 over TCP", 5: "are no less than 2 over TCP"}
    assert why.get(deaf, "nobody hears it") in told(record).reason


async def test_a_worker_to_which_no_probe_gets_is_served_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.worker.multicast_client.PROBE_SECONDS", 0.1)
    first: dict[str, GroupReceiver] = {}
    losing(monkeypatch, lambda receiver: float(first.setdefault("deaf", receiver) is receiver))
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert len(told(record).listeners) == 5
    assert list(told(record).served_over_tcp.values()) == [
        "nothing was heard of the group 239.192.77.77 at 127.0.0.1"
    ]


async def test_a_worker_that_falls_deaf_is_served_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[GroupReceiver, int] = {}

    def lost(receiver: GroupReceiver) -> float:
        heard[receiver] = heard.get(receiver, 0) + 1
        return float(receiver is next(iter(heard)) and heard[receiver] > 20)

    losing(monkeypatch, lost)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    ((worker, why),) = told(record).served_over_tcp.items()
    assert why.startswith("heard too little of round 0")
    assert told(record).receptions[worker].ranges >= 1
    assert told(record).listeners == HOMOGENEOUS.workers
    counts = {
        e.round: e.payload for e in record.ledger.entries() if e.worker == worker and e.kind == "downlink"
    }
    assert counts[1] == counts[2] == counts[3] == record.plan.downlink_load * record.vector_bytes


async def test_nobody_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    record, models = await run_cluster(
        options(multicast=MulticastOptions(free_group(), "", 1e10), settings=SETTINGS),
        HOMOGENEOUS,
        PARTITIONS,
    )
    check(models)
    assert told(record).listeners == HOMOGENEOUS.workers

    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("asyncdmtl.net.udp._send_by", unreachable)
    unheard = options(multicast=MulticastOptions(free_group(), "", 1e10))
    record, models = await run_cluster(unheard, HOMOGENEOUS, PARTITIONS)
    check(models)
    assert told(record).listeners == ()
    assert set(told(record).served_over_tcp.values()) == {
        "nothing can be sent to the group 239.192.77.77: Network is unreachable (--interface)"
    }


async def test_an_interface_that_is_not_there_ends_the_server_at_once() -> None:
    with pytest.raises(UsageError, match="--interface must be one of the interfaces"):
        async with Cluster(options(multicast=MulticastOptions(free_group(), NOWHERE))):
            pass


async def test_a_worker_that_is_lost_does_not_keep_the_others_from_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losing(monkeypatch, lambda receiver: 0.1)
    asked, cut = MulticastClient._on_query, list[str]()

    def vanish(client: MulticastClient, query: LossQuery) -> None:
        worker = client._connection.session.worker
        if worker == "w0" and query.round == 1 and not cut:
            cut.append(worker)
            client._connection.abort()
        elif not (worker == "w0" and query.round == 1):
            asked(client, query)

    monkeypatch.setattr(MulticastClient, "_on_query", vanish)
    async with Cluster(options()) as cluster:
        workers = [cluster.join(name, own, interface=LOOPBACK) for name, own in OWN.items()]
        await cluster.event(IncidentNoted, worker="w0")
        await cluster.server
        check([await worker for worker in workers])
    assert cut == ["w0"]


async def test_a_worker_that_never_says_what_it_lacks_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losing(monkeypatch, lambda receiver: 0.1)
    asked = MulticastClient._on_query

    def mute(client: MulticastClient, query: LossQuery) -> None:
        if client._connection.session.worker != "w0":
            asked(client, query)

    monkeypatch.setattr(MulticastClient, "_on_query", mute)
    record, models = await run_cluster(options(round_timeout=8.0), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert record.incidents == ()
    assert told(record).served_over_tcp == {"w0": "did not tell what it lacked of round 0"}
    counts = {
        e.round: e.payload for e in record.ledger.entries() if e.worker == "w0" and e.kind == "downlink"
    }
    assert counts[1] == counts[3] == record.plan.downlink_load * record.vector_bytes


async def test_a_worker_that_asks_for_too_much_is_served_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.server.listeners.JUDGED_ROWS", 10)
    monkeypatch.setattr("asyncdmtl.worker.multicast_client.LATE_DATAGRAM_SECONDS", 0.0)
    lacks = MulticastClient._lacks

    def greedy(client: MulticastClient, round_: int, index: int) -> tuple[bytes, int]:
        told, seen = lacks(client, round_, index)
        if client._connection.session.worker != "w0" or client._followed is None:
            return told, seen
        solver = client._followed.solver
        first, stop = client._followed.layout.pieces_of(index)
        return bytes([len(solver.own)] * (stop - first - 1) + [len(solver.own) - 1]), 0

    monkeypatch.setattr(MulticastClient, "_lacks", greedy)
    record, models = await run_cluster(options(), HOMOGENEOUS, PARTITIONS)
    check(models)
    assert set(told(record).served_over_tcp) == {"w0"}
    assert told(record).served_over_tcp["w0"].startswith("heard too little of round")
    # In a round, at most as many repairs as a worker needs, and the last ones that were requested.
    assert told(record).repair_bytes < 2.1 * 3 * record.vector_bytes * len(record.rounds)


async def test_what_is_still_to_be_answered_when_a_new_plan_comes_is_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow, answered = MulticastClient.follow, list[int]()

    async def after_an_answer(
        client: MulticastClient, plan: int, side: CodedWorkerSide, *, grouped: bool
    ) -> None:
        if client._plan >= 0:
            answered.append(plan)
            client._report(LossQuery(client._plan, client._round, 0, 1), range(1))
        await follow(client, plan, side, grouped=grouped)

    monkeypatch.setattr(MulticastClient, "follow", after_an_answer)
    late, *others = OWN
    async with Cluster(options(settings=make_settings(dtype="float64", rounds=40), workers=5)) as cluster:
        workers = [cluster.join(name, OWN[name], interface=LOOPBACK) for name in others]
        await cluster.event(RoundRecord, round=1)
        workers.append(cluster.join(late, OWN[late], interface=LOOPBACK))
        record = await cluster.server
        models = [await worker for worker in workers]
    assert answered == [1] * 5
    assert record.incidents == ()
    assert len({own.coef_.tobytes() for own in models}) == 1


async def test_a_question_that_comes_with_the_end_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ended = MulticastClient._on_query, list[int]()

    def once_more(client: MulticastClient, query: LossQuery) -> None:
        current = client._connection.session._current
        state, current.state = current.state, State.FAILED
        client._report(query, range(query.index, query.index + query.count))
        current.state = state
        ended.append(query.round)
        asked(client, query)

    monkeypatch.setattr(MulticastClient, "_on_query", once_more)
    partitions = make_partitions(len(HOMOGENEOUS.partitions), "squared", features=6000)
    record, models = await run_cluster(options(strategy="relay"), HOMOGENEOUS, partitions)
    check(models, partitions)
    assert ended
    assert record.incidents == ()


@pytest.mark.parametrize("width", [32 << 10, 4096], ids=["one range", "five ranges"])
async def test_a_new_plan_that_comes_before_the_rows_are_decoded_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("asyncdmtl.plan.codes.codec.LEAST_RANGE", width)
    receive = CodedWorkerSide.receive

    def slowly(side: CodedWorkerSide, i: int, rows: Any) -> None:
        time.sleep(0.01)
        receive(side, i, rows)

    monkeypatch.setattr(CodedWorkerSide, "receive", slowly)
    settings = make_settings(dtype="float64", rounds=6)
    late, *others = OWN
    async with Cluster(options(settings=settings, workers=5)) as cluster:
        workers = [cluster.join(name, OWN[name], interface=LOOPBACK) for name in others]
        await cluster.event(RoundRecord, round=1)
        workers.append(cluster.join(late, OWN[late], interface=LOOPBACK))
        record = await cluster.server
        models = [await worker for worker in workers]
    assert record.plan.placement.workers == tuple(OWN)
    assert record.incidents == ()
    assert len({own.coef_.tobytes() for own in models}) == 1


async def test_linear_rounds_stay_on_tcp() -> None:
    record, _ = await run_cluster(options(strategy="linear"), HOMOGENEOUS, PARTITIONS)
    assert told(record).listeners == ()
    assert told(record).sent_bytes < 10_000 * 10 * 6


async def test_auto_takes_what_is_cheapest_over_the_group() -> None:
    record, models = await run_cluster(options(strategy="auto"), HOMOGENEOUS, PARTITIONS)
    check(models)
    chosen = report_run(record)
    costs = {name: Fraction(row["multicast_cost"]) for name, row in chosen["strategies"].items()}
    assert costs[chosen["strategy"]] == min(costs.values())


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (LossQuery(0, 0, 1000), "loss-query of ranges to 1001 of round 0"),
        (Fallback(0, 0, 0), "0 bytes of rows came for range 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.kind,
)
async def test_what_a_server_says_out_of_order_is_refused(
    monkeypatch: pytest.MonkeyPatch, message: MulticastControl, complaint: str
) -> None:
    count, said = MulticastServer.ask, list[str]()

    def ask(server: MulticastServer, worker: str, index: int, ranges: int) -> None:
        if not said:
            said.append(worker)
            assert server._round is not None
            server._round.members[worker].connection.write(message)
        count(server, worker, index, ranges)

    monkeypatch.setattr(MulticastServer, "ask", ask)
    async with Cluster(options()) as cluster:
        workers = [cluster.join(name, own, interface=LOOPBACK, max_wait=1.0) for name, own in OWN.items()]
        incident = await cluster.event(IncidentNoted)
        assert complaint in incident.reason
        await cluster.server
        check([await worker for worker in workers])


async def test_what_a_worker_says_unasked_costs_it_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, said = MulticastClient._report, list[str]()

    def twice(client: MulticastClient, query: LossQuery, asked: range) -> None:
        answer(client, query, asked)
        if client._connection.session.worker == "w0" and not said:
            said.append("w0")
            client._connection.write(LossReport(query.plan, query.round, query.index, b"", 0))

    monkeypatch.setattr(MulticastClient, "_report", twice)
    async with Cluster(options()) as cluster:
        workers = [cluster.join(name, own, interface=LOOPBACK) for name, own in OWN.items()]
        record = await cluster.server
        check([await worker for worker in workers])
    (incident,) = record.incidents
    assert "was not asked what it lacks of range 0" in incident.reason


async def test_a_worker_that_talks_nonsense_again_and_again_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = MulticastClient._report

    def nonsense(client: MulticastClient, query: LossQuery, asked: range) -> None:
        if client._connection.session.worker == "w0":
            client._connection.write(LossReport(query.plan, query.round, query.index, b"\xff", 0))
        else:
            answer(client, query, asked)

    monkeypatch.setattr(MulticastClient, "_report", nonsense)
    settings = make_settings(dtype="float64", rounds=150)
    async with Cluster(options(settings=settings)) as cluster:
        workers = {name: cluster.join(name, own, interface=LOOPBACK) for name, own in OWN.items()}
        record = await cluster.server
        models = [await workers[name] for name in list(OWN)[1:]]
        with pytest.raises(PeerError, match="may not come back"):
            await workers["w0"]
    assert [incident.worker for incident in record.incidents] == ["w0"] * MOST_OFFENCES
    assert len({own.coef_.tobytes() for own in models}) == 1


async def test_a_worker_to_which_others_send_forged_rows_is_served_over_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every worker has the key of the group, but digests reveal forged rows."""
    hand_out = MulticastClient.hand_out

    def forged(client: MulticastClient, index: int) -> Any:
        return hand_out(client, index) ^ (client._connection.session.worker == "w0")

    monkeypatch.setattr(MulticastClient, "hand_out", forged)
    settings = make_settings(dtype="float64", rounds=60)
    async with Cluster(options(settings=settings)) as cluster:
        workers = [cluster.join(name, own, interface=LOOPBACK) for name, own in OWN.items()]
        record = await cluster.server
        models = [await worker for worker in workers]
    assert len({own.coef_.tobytes() for own in models}) == 1
    assert [incident.worker for incident in record.incidents] == ["w0"] * 2
    assert told(record).served_over_tcp == {"w0": "what it heard was not what was sent"}


async def test_who_is_refused_before_the_start_is_told_so() -> None:
    right, wrong = PARTITIONS[0], replace(PARTITIONS[0], y=PARTITIONS[0].y + 1)
    async with Cluster(options(workers=3)) as cluster:
        for name in ("w0", "w1"):
            cluster.join(name, [right], interface=LOOPBACK)
        await cluster.event(Joined, worker="w1")
        odd = cluster.join("w2", [wrong], interface=LOOPBACK)
        async with asyncio.timeout(5):
            with pytest.raises(PeerError, match="must be the same data"):
                await odd


async def test_a_newcomer_finds_all_others_at_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others lost much of the round after which the newcomer gets the state, but no connection was lost."""
    losing(monkeypatch, lambda receiver: 0.3)
    settings = make_settings(dtype="float64", rounds=40)
    late, *others = OWN
    async with Cluster(options(settings=settings, workers=5)) as cluster:
        workers = [cluster.join(name, OWN[name], interface=LOOPBACK) for name in others]
        await cluster.event(RoundRecord, round=1)
        workers.append(cluster.join(late, OWN[late], interface=LOOPBACK))
        record = await cluster.server
        models = [await worker for worker in workers]
    assert record.plan.placement.workers == tuple(OWN)
    assert record.incidents == ()
    assert len({own.coef_.tobytes() for own in models}) == 1
    assert told(record).receptions[late].sent > 0


async def test_a_server_that_names_no_group_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "asyncdmtl.server.multicast_server.JoinGroup", lambda address, *rest: JoinGroup("10.0.0.1", *rest)
    )
    async with Cluster(options(workers=1)) as cluster:
        worker = cluster.join("w0", PARTITIONS, max_wait=0.5)
        left = await cluster.event(Left, worker="w0")
        assert "named a group that is none: --group must be a multicast address" in left.reason
        # It tries again until --max-wait is over, or until the server has seen enough of it.
        with pytest.raises(
            (RemoteProtocolError, PeerError), match=r"named a group that is none|may not come back"
        ):
            await worker
