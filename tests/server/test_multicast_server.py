"""The server's end of the multicast group: real plans and datagrams, with lists in place of connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from support.clusters import stored_at
from support.groups import LOOPBACK, free_group
from support.members import Script
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import UsageError, WaitError
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.multicast.datagrams import OVERHEAD
from asyncdmtl.multicast.sending import DatagramBlock
from asyncdmtl.net.udp import Group, GroupSender
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.multicast import Fallback, JoinedGroup, JoinGroup, LossQuery, LossReport
from asyncdmtl.server.assignment import Assignment, make_assignment
from asyncdmtl.server.listeners import MOST_WRONG_DECODINGS
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_server import GROUP, MulticastServer
from asyncdmtl.server.records import MulticastOptions
from asyncdmtl.server.training_progress import TrainingProgress

PARTITIONS = make_partitions(6, "squared", features=600)
SETTINGS = make_settings(dtype="float64")
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
OWN = stored_at(HOMOGENEOUS, PARTITIONS)

LIMIT = 20.0


class Run:
    """A multicast server and six workers."""

    def __init__(self, patience: float = LIMIT, interface: str = LOOPBACK) -> None:
        self.ledger = Ledger()
        self.options = MulticastOptions(free_group(), interface, 1e10)
        self.server = MulticastServer(self.options, self.ledger, patience)
        self.scripts = {name: Script(name, own) for name, own in OWN.items()}
        self.members = {name: script.member for name, script in self.scripts.items()}

    def answer(self, name: str, answers: Callable[[Any], None]) -> None:
        """Let a worker answer each message as soon as it is sent."""
        script = self.scripts[name]
        connection: Any = script.member.connection

        def write(message: Any) -> None:
            script.sent.append(message)
            answers(message)

        connection.write = write

    def assignment(self) -> Assignment:
        """A plan of the whole run whose first round has come up and been combined."""
        progress = TrainingProgress("run", PROBLEM, "relay", lambda event: None)
        for member in self.members.values():
            member.hears = True
        made = make_assignment(3, list(self.members.values()), progress)
        assert made.listeners == tuple(OWN)
        indices = {part.id: n for n, part in enumerate(PARTITIONS)}
        sent: list[Upload] = []
        for k, own in enumerate(OWN.values()):
            options = SideOptions(
                grouped=True, digest=progress.digest, detailed=made.detailed, keys={k: made.keys[k]}
            )
            trainer = Trainer(PROBLEM, {indices[part.id]: part for part in own})
            side = made.strategy.worker_side(made.plan, k, trainer, options)
            sent.append(side.told(side.compute()))
        made.side.agree(made.side.completed(sent))
        for i in range(len(made.side.ranges)):
            made.side.put(i, [upload.rows[i] for upload in sent])
        return made

    async def begin(self, assignment: Assignment, names: Sequence[str] = tuple(OWN)) -> None:
        listeners = {self.members[name]: list(OWN).index(name) for name in names}
        await self.server.begin(assignment.number, 1, assignment.side, listeners)

    def reporting(self, name: str, lacks: Callable[[LossQuery], bytes] = lambda query: b"") -> None:
        """Let a worker answer loss queries; by default it lacks nothing."""

        def report(message: Any) -> None:
            if isinstance(message, LossQuery):
                for index in range(message.index, message.index + message.count):
                    told = LossReport(message.plan, message.round, index, lacks(message), 0)
                    take: Any = self.members[name].connection.on_multicast_control
                    asyncio.get_running_loop().call_soon(take, told)

        self.answer(name, report)


@contextlib.asynccontextmanager
async def running(**facts: Any) -> AsyncIterator[Run]:
    run = Run(**facts)
    try:
        async with asyncio.timeout(LIMIT):
            yield run
    finally:
        await run.server.close()


def told(run: Run, member: Member) -> str | None:
    """The reason why a worker is served over TCP; None if it is not."""
    return run.server.record((), "").served_over_tcp.get(member.name)


def joined(run: Run, name: str, reason: str = "") -> None:
    """Let a worker report at once whether the probe arrived."""
    run.answer(name, lambda message: run.scripts[name].says(JoinedGroup(reason)))


async def test_a_worker_that_receives_the_probe_hears_the_group() -> None:
    async with running() as run:
        joined(run, "w0")
        await run.server.probe(run.members["w0"])
        (message,) = run.scripts["w0"].sent
        assert isinstance(message, JoinGroup)
        group = run.options.group
        assert (message.address, message.port) == (group.address, group.port)
        assert run.members["w0"].hears
        joined(run, "w1")
        await run.server.probe(run.members["w1"])
        other = run.scripts["w1"].sent[0]
        # All probes have one key, and each has a nonce of its own.
        assert message.key == other.key
        assert message.nonce != other.nonce


async def test_probes_go_on_until_the_worker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.server.multicast_server.PROBE_PAUSES", (0.0,) * 5)
    async with running() as run:
        sent: list[bytes] = []
        all_sent = asyncio.Event()

        async def send(sender: GroupSender, block: DatagramBlock) -> None:
            sent.append(bytes(block.datagrams))
            if len(sent) == 5:
                all_sent.set()

        monkeypatch.setattr(GroupSender, "send", send)
        probing = asyncio.create_task(run.server.probe(run.members["w0"]))
        await all_sent.wait()
        assert not probing.done()
        run.scripts["w0"].says(JoinedGroup())
        await probing
        piece = run.scripts["w0"].sent[0].piece_bytes
        assert {len(datagram) for datagram in sent} == {piece + OVERHEAD}
        assert len(set(sent)) == 5  # numbered


async def test_a_worker_that_does_not_receive_the_group_is_served_over_tcp() -> None:
    async with running() as run:
        joined(run, "w0", "nothing was heard")
        await run.server.probe(run.members["w0"])
        assert not run.members["w0"].hears
        assert told(run, run.members["w0"]) == "nothing was heard"
        # A worker that comes back and then receives the group is served by it.
        joined(run, "w0")
        await run.server.probe(run.members["w0"])
        assert told(run, run.members["w0"]) is None


async def test_a_worker_that_does_not_answer_the_probe_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncdmtl.server.multicast_server.ANSWER_SECONDS", 0.02)
    async with running() as run:
        with pytest.raises(WaitError, match=r"no joined-group came from worker 'w0'"):
            await run.server.probe(run.members["w0"])
        assert len(asyncio.all_tasks()) == 1  # no probe goes on


async def test_a_worker_that_was_misled_again_and_again_is_not_probed() -> None:
    async with running() as run:
        for _ in range(MOST_WRONG_DECODINGS):
            run.server.note_misled("w0")
        await run.server.probe(run.members["w0"])
        assert run.scripts["w0"].sent == []
        assert told(run, run.members["w0"]) == "what it heard was not what was sent"


async def test_where_nothing_can_be_sent_to_the_group_all_go_on_over_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("asyncdmtl.net.udp._send_by", unreachable)
    async with running(interface="") as run:
        await run.server.probe(run.members["w0"])
        assert not run.members["w0"].hears
        reason = told(run, run.members["w0"])
        assert reason is not None
        assert reason.endswith("Network is unreachable (--interface)")
        record = run.server.record((), "")
        assert (record.sent_bytes, record.repair_bytes, record.rate, record.receptions) == (0, 0, 0.0, {})
        assert record.reason == "nobody hears it, or could decode from it"


async def test_an_interface_that_is_not_there_is_named_at_once() -> None:
    with pytest.raises(UsageError, match="--interface must be one of the interfaces"):
        Run(interface="nowhere0")


async def test_a_round_is_sent_once_and_settled_when_all_have_it() -> None:
    async with running() as run:
        assignment = run.assignment()
        side = assignment.side
        for name in OWN:
            run.reporting(name)
        await run.begin(assignment)
        run.server.ready(len(side.ranges))
        await run.server.settle(LIMIT)
        await run.server.stop()
        rows = sum(side.block(i).nbytes for i in range(len(side.ranges)))
        record = run.server.record(assignment.listeners, assignment.network)
        (entry,) = run.ledger.entries()
        assert (entry.worker, entry.kind, entry.round, entry.wire) == (
            GROUP,
            "downlink",
            1,
            record.sent_bytes,
        )
        assert rows <= entry.payload < record.sent_bytes
        assert record.repair_bytes == 0
        assert set(record.receptions) == set(OWN)
        assert (record.listeners, record.reason) == (assignment.listeners, assignment.network)
        assert record.group == f"239.192.77.77:{run.options.group.port}"
        assert 0 < record.rate <= 1e10
        for script in run.scripts.values():
            assert all(isinstance(message, LossQuery) for message in script.sent)
            assert (script.sent[0].plan, script.sent[0].round, script.sent[0].index) == (3, 1, 0)
        assert record.served_over_tcp == {}


async def test_nothing_is_sent_before_it_is_ready() -> None:
    async with running() as run:
        assignment = run.assignment()
        await run.begin(assignment)
        await run.server.settle(0.01)
        assert list(run.ledger.entries()) == []
        await run.server.stop()


async def test_a_round_without_listeners_is_not_sent() -> None:
    async with running() as run:
        assignment = run.assignment()
        await run.begin(assignment, ())
        run.server.ready(len(assignment.side.ranges))
        await run.server.settle(LIMIT)
        assert list(run.ledger.entries()) == []


async def test_what_a_worker_lacks_is_repaired() -> None:
    async with running() as run:
        assignment = run.assignment()
        asked: list[LossQuery] = []

        def lacks(query: LossQuery) -> bytes:
            asked.append(query)
            return b"\1" if len(asked) == 1 else b""

        for name in OWN:
            run.reporting(name)
        run.reporting("w2", lacks)
        await run.begin(assignment)
        run.server.ready(len(assignment.side.ranges))
        await run.server.settle(LIMIT)
        await run.server.stop()
        record = run.server.record((), "")
        (repair,) = (entry for entry in run.ledger.entries() if entry.kind == "repair")
        assert (repair.worker, repair.round) == (GROUP, 1)
        assert repair.payload > 0
        assert record.repair_bytes == repair.wire
        assert len(asked) == 2
        assert not any(isinstance(message, Fallback) for message in run.scripts["w2"].sent)


async def test_a_worker_that_does_not_answer_gets_its_rows_over_its_connection() -> None:
    async with running(patience=0.05) as run:
        assignment = run.assignment()
        for name in list(OWN)[1:]:
            run.reporting(name)
        await run.begin(assignment)
        run.server.ready(len(assignment.side.ranges))
        await run.server.settle(LIMIT)
        query, *fallbacks = run.scripts["w0"].sent
        assert isinstance(query, LossQuery)
        assert [(message.plan, message.round, message.index) for message in fallbacks] == [
            (3, 1, i) for i in range(len(assignment.side.ranges))
        ]
        for message in fallbacks:
            expected = assignment.side.rows(0, message.index)
            assert all(np.array_equal(*pair) for pair in zip(message.parts, expected, strict=True))
        assert told(run, run.members["w0"]) == "did not tell what it lacked of round 1"
        assert not run.members["w0"].hears
        await run.server.stop()
        assert set(run.server.record((), "").served_over_tcp) == {"w0"}


async def test_a_worker_that_hears_nothing_is_served_over_tcp_from_the_next_plan_on() -> None:
    async with running() as run:
        assignment = run.assignment()
        for name in OWN:
            run.reporting(name)
        side = assignment.side
        await run.begin(assignment)
        for i in range(len(side.ranges)):
            run.server.deliver("w4", i)
        run.server.ready(len(side.ranges))
        await run.server.settle(LIMIT)
        assert told(run, run.members["w4"]) is None
        await run.server.stop()
        assert told(run, run.members["w4"]) == "heard too little of round 1"


async def test_a_worker_that_is_lost_is_not_waited_for() -> None:
    async with running() as run:
        assignment = run.assignment()
        for name in list(OWN)[1:]:
            run.reporting(name)
        run.answer("w0", lambda message: run.server.drop("w0"))
        await run.begin(assignment)
        run.server.ready(len(assignment.side.ranges))
        await run.server.settle(LIMIT)
        assert told(run, run.members["w0"]) is None


async def test_nothing_is_written_to_a_connection_that_has_ended() -> None:
    async with running() as run:
        await run.begin(run.assignment())
        run.members["w0"].connection.failure = WaitError("silent", seconds=1.0, option="--silence-timeout")
        run.server.ask("w0", 0, 1)
        run.server.ask("w1", 0, 1)
        assert run.scripts["w0"].sent == []
        assert len(run.scripts["w1"].sent) == 1


async def test_reports_of_another_round_are_dropped() -> None:
    async with running() as run:
        assignment = run.assignment()
        await run.begin(assignment)
        control: Any = run.members["w0"].connection.on_multicast_control
        taken: list[Any] = []
        sender: Any = run.server._sender
        sender.take_report = lambda *report: taken.append(report)
        control(LossReport(3, 0, 0, b"", 4))
        assert taken == []
        control(LossReport(3, 1, 0, b"", 4))
        assert taken == [("w0", 0, b"", 4)]
        await run.begin(assignment)
        control(LossReport(3, 1, 0, b"", 5))  # the round was begun anew under the plan
        assert len(taken) == 1


async def test_a_defect_while_a_round_is_sent_shows_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(sender: GroupSender, block: DatagramBlock) -> None:
        raise ZeroDivisionError

    async with running() as run:
        monkeypatch.setattr(GroupSender, "send", broken)
        assignment = run.assignment()
        await run.begin(assignment)
        run.server.ready(1)
        await run.server.settle(LIMIT)
        with pytest.raises(ZeroDivisionError):
            await run.server.stop()
        await run.server.stop()


async def test_an_address_of_ipv6_is_in_brackets() -> None:
    server = MulticastServer(MulticastOptions(Group("ff02::1:2", 7701)), Ledger(), 1.0)
    assert server.record((), "").group == "[ff02::1:2]:7701"
