"""A worker's end of a group, with datagrams over the loopback and loss queries over a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.exchange import RoundExchange
from support.groups import LOOPBACK, free_group
from support.pairs import LIMIT, join, pair
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import PeerError, RemoteProtocolError, UsageError
from asyncdmtl.multicast.datagrams import OVERHEAD, Layout, Stream
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.udp import GroupSender
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.multicast import Fallback, JoinGroup, LossQuery, LossReport, MulticastControl
from asyncdmtl.protocol.messages.rounds import Assign, Downlink, Uplink
from asyncdmtl.worker import multicast_client
from asyncdmtl.worker.multicast_client import MulticastClient

KEY, NONCE, PIECE_BYTES = bytes(range(32)), bytes(16), 1000
FEATURES = 12_000  # enough for rows of two ranges


class Round:
    """One round that a server sends to a group, with one worker as a client.

    Attributes
    ----------
    exchange : RoundExchange
        The rows of the round, and both sides.
    client : MulticastClient
    server, worker : Connection
    broadcast : Broadcast
    """

    def __init__(
        self,
        exchange: RoundExchange,
        index: int,
        client: MulticastClient,
        ends: tuple[Connection, Connection],
    ) -> None:
        self.exchange, self.client = exchange, client
        self.server, self.worker = ends
        self.side = side = exchange.workers[index]
        self.replies = exchange.combine(exchange.up(), False)[index]
        plan = side.group_plan
        assert plan is not None
        layout = Layout(side.ranges[-1].stop, side.ranges[0].stop, PIECE_BYTES)
        stream = Stream.of_round(KEY, 0, plan.digest, 0)
        rows = [exchange.server.block(i).copy() for i in range(layout.ranges)]
        own = {"w0": Solver.of(plan, index).own}
        self.broadcast = Broadcast(stream, layout, rows, plan.seed, own)
        self.reports: asyncio.Queue[LossReport] = asyncio.Queue()
        self.server.on_multicast_control = self._note

    def _note(self, message: MulticastControl) -> None:
        assert isinstance(message, LossReport)
        self.reports.put_nowait(message)

    async def ask(self, index: int, count: int = 1, round_: int = 0) -> list[LossReport]:
        """The worker's reports after a loss query about some ranges."""
        self.server.write(LossQuery(0, round_, index, count))
        async with asyncio.timeout(10):
            return [await self.reports.get() for _ in range(count)]

    async def complete(self, index: int) -> Bytes:
        """The rows of a range, once they have arrived."""
        async with asyncio.timeout(10):
            await self.client.complete(index)
        return self.client.hand_out(index)


async def on_the_way(server: Connection, worker: Connection, round_: int = 0) -> None:
    """Bring both ends to the state in which the rows of a round are on their way."""
    await worker.send(Uplink(0, round_, b""), *LIMIT)
    await server.receive((Uplink,), *LIMIT)
    await server.send(Downlink(0, round_, "go on", bytes(16), grouped=True), *LIMIT)
    await worker.receive((Downlink,), *LIMIT)


@contextlib.asynccontextmanager
async def client_in_a_group() -> AsyncIterator[tuple[MulticastClient, GroupSender, Connection, Connection]]:
    group = free_group()
    message = JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES)
    async with pair() as (server, worker):
        await join(server, worker)
        client, sender = MulticastClient(worker, message, LOOPBACK), GroupSender(group, LOOPBACK)
        try:
            yield client, sender, server, worker
        finally:
            client.close()
            sender.close()


@contextlib.asynccontextmanager
async def in_round(
    placement: Placement = HOMOGENEOUS, index: int = 0, strategy: str = "relay", features: int = FEATURES
) -> AsyncIterator[tuple[Round, GroupSender]]:
    """A worker that waits for the rows of round 0."""
    partitions = make_partitions(len(placement.partitions), "squared", features=features)
    exchange = RoundExchange(placement, partitions, make_settings(), strategy)
    async with client_in_a_group() as (client, sender, server, worker):
        made = Round(exchange, index, client, (server, worker))
        await client.follow(0, made.side, grouped=True)
        client.begin(0)
        await on_the_way(server, worker)
        yield made, sender


async def send(sender: GroupSender, blocks: Iterator[DatagramBlock], lost: int = 0) -> None:
    """Send all datagrams but the first `lost` of each block."""
    for block in blocks:
        kept = block.datagrams[lost * block.size :]
        if len(kept):
            await sender.send(DatagramBlock(kept, block.size, block.count - lost))


@pytest.mark.parametrize("strategy", ["relay", "central", "uncoded"])
@pytest.mark.parametrize(
    ("placement", "index"),
    [(HOMOGENEOUS, 0), (HETEROGENEOUS, 0), (HETEROGENEOUS, 5)],
    ids=["homogeneous", "first", "last"],
)
async def test_a_round_from_the_group_is_the_round_over_tcp(
    placement: Placement, index: int, strategy: str
) -> None:
    async with in_round(placement, index, strategy) as (made, sender):
        count = len(made.side.ranges)
        assert count == made.broadcast.layout.ranges > 1
        assert made.client.follows_plan
        assert made.client.brings_rows
        for i in range(count):
            assert not made.client.has(i)
            reaching = asyncio.create_task(made.client.reached(i))
            await asyncio.sleep(0)
            assert not reaching.done()
            await send(sender, made.broadcast.next_range())
            await asyncio.wait_for(reaching, 10)
            rows = await made.complete(i)
            assert rows.tobytes() == made.replies[i].tobytes()
            made.side.receive(i, rows)
        # This checks the digest of all decoded vectors.
        made.side.apply(made.exchange.server.digest(index))
        reports = await made.ask(0, count)
    assert [report.index for report in reports] == list(range(count))
    assert {report.lacks for report in reports} == {b""}
    assert [report.seen for report in reports] == [made.broadcast.sent(i) for i in range(count)]
    counts = made.client.counts
    assert counts.taken == sum(made.broadcast.sent(i) for i in range(count))
    assert (counts.repaired, counts.forged, counts.malformed) == (0, 0, 0)


async def test_lost_datagrams_are_reported_and_repaired() -> None:
    async with in_round() as (made, sender):
        await send(sender, made.broadcast.next_range(), lost=3)
        (report,) = await made.ask(0)
        assert (report.plan, report.round, report.index) == (0, 0, 0)
        lacking = sum(report.lacks)
        assert lacking > 0
        assert report.seen == made.broadcast.sent(0) - lacking
        assert made.broadcast.take_report("w0", 0, report.lacks, report.seen)
        await send(sender, made.broadcast.repair(0))
        assert (await made.complete(0)).tobytes() == made.replies[0].tobytes()
        assert made.client.counts.repaired == lacking
        (report,) = await made.ask(0)
        assert report.lacks == b""


async def test_a_range_that_the_group_does_not_bring_comes_over_tcp() -> None:
    async with in_round() as (made, sender):
        await send(sender, made.broadcast.next_range(), lost=2)
        made.server.write(Fallback(0, 0, 0, (made.replies[0],)))
        assert (await made.complete(0)).tobytes() == made.replies[0].tobytes()
        assert not made.client.has(1)


async def test_a_wait_for_a_range_ends_when_the_group_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast_client, "SILENT_GROUP_SECONDS", 0.01)
    async with in_round() as (made, _):
        # Before the first range, there is nothing to wait for.
        await asyncio.wait_for(made.client.reached(-1), 10)
        await asyncio.wait_for(made.client.reached(0), 10)
        assert not made.client.has(0)
        # Once the group has fallen silent, the worker does not wait for it again in this round.
        monkeypatch.setattr(multicast_client, "SILENT_GROUP_SECONDS", 3600.0)
        await asyncio.wait_for(made.client.reached(1), 10)


async def test_a_round_that_is_over_lacks_nothing() -> None:
    async with in_round(features=600) as (made, sender):
        await send(sender, made.broadcast.next_range())
        await made.complete(0)
        made.client.begin(1)
        (report,) = await made.ask(0)
        assert (report.round, report.lacks, report.seen) == (0, b"", made.broadcast.sent(0))
        # Late rows of that round are ignored, too.
        made.server.write(Fallback(0, 0, 0, (made.replies[0],)))
        await on_the_way(made.server, made.worker, 1)
        (report,) = await made.ask(0, round_=1)
        assert sum(report.lacks) > 0
        assert report.seen == 0
        made.client.begin(2)
        made.client.begin(3)
        (report,) = await made.ask(0)
        assert (report.lacks, report.seen) == (b"", 0)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (LossQuery(0, 0, 1, 2), "loss-query of ranges to 3 of round 0 came, of 2 in round 0"),
        (Fallback(0, 0, 2), "fallback of ranges to 3 of round 0 came, of 2 in round 0"),
        (Fallback(0, 0, 1, (np.zeros(7, np.uint8),)), "7 bytes of rows came for range 1"),
    ],
    ids=["query", "range", "rows"],
)
async def test_a_message_that_does_not_fit_the_round_ends_the_connection(
    message: MulticastControl, complaint: str
) -> None:
    async with in_round() as (made, _):
        made.server.write(message)
        with pytest.raises(PeerError, match=complaint):
            await made.server.receive((Uplink,), *LIMIT)
        assert isinstance(made.worker.failure, RemoteProtocolError)


async def test_a_question_without_a_plan_ends_the_connection() -> None:
    async with client_in_a_group() as (client, _, server, worker):
        assert not client.follows_plan
        assert not client.brings_rows
        # Without a plan there is nothing to receive.
        client.begin(0)
        await on_the_way(server, worker)
        server.write(LossQuery(0, 0, 0))
        with pytest.raises(PeerError, match="loss-query of plan 0 came under plan -1"):
            await server.receive((Uplink,), *LIMIT)


async def test_a_question_before_the_round_ends_the_connection() -> None:
    async with in_round() as (made, _):
        await made.client.follow(0, made.side, grouped=True)
        made.server.write(LossQuery(0, 0, 0))
        with pytest.raises(PeerError, match="of round 0 came, of 2 in round -1"):
            await made.server.receive((Uplink,), *LIMIT)


async def test_a_plan_whose_rows_never_come_from_a_group_is_not_followed() -> None:
    async with in_round() as (made, _):
        side: Any = SimpleNamespace(group_plan=None)
        await made.client.follow(1, side, grouped=True)
        assert not made.client.follows_plan
        assert not made.client.brings_rows


async def test_an_answer_that_a_new_plan_makes_pointless_is_not_sent() -> None:
    loop, failed = asyncio.get_running_loop(), list[Any]()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    async with in_round() as (made, _):
        made.server.write(LossQuery(0, 0, 0))
        made.server.write(Assign(1, 1, False, "keep", {}, bytes(16), ()))
        await made.worker.receive((Assign,), *LIMIT)
        # A report that the protocol forbids now would raise an error at the time when it is due.
        due = asyncio.Event()
        loop.call_later(2 * multicast_client.LATE_DATAGRAM_SECONDS, due.set)
        await due.wait()
        assert not failed
        assert not made.worker.lost


def probe(key: bytes, nonce: bytes = NONCE, size: int = PIECE_BYTES) -> DatagramBlock:
    datagram = memoryview(bytearray(size + OVERHEAD))
    Stream.of_probe(key, nonce).seal(0, 0, memoryview(bytes(size)), datagram)
    return DatagramBlock(datagram, len(datagram), 1)


async def test_the_probe_of_this_worker_is_received() -> None:
    async with client_in_a_group() as (client, sender, _, _):
        waiting = asyncio.create_task(client.receives_probe())
        await asyncio.sleep(0)
        await sender.send(probe(KEY))
        assert await waiting


@pytest.mark.parametrize(
    "wrong",
    [probe(bytes(32)), probe(KEY, bytes(15) + b"1"), probe(KEY, size=PIECE_BYTES - 1)],
    ids=["key", "nonce", "size"],
)
async def test_no_other_datagram_is_taken_for_the_probe(
    monkeypatch: pytest.MonkeyPatch, wrong: DatagramBlock
) -> None:
    monkeypatch.setattr(multicast_client, "PROBE_SECONDS", 0.05)
    async with client_in_a_group() as (client, sender, _, _):
        waiting = asyncio.create_task(client.receives_probe())
        await asyncio.sleep(0)
        await sender.send(wrong)
        assert not await waiting


async def test_a_group_must_be_one_and_have_an_interface() -> None:
    async with pair() as (_, worker):
        with pytest.raises(
            RemoteProtocolError, match=r"the server at .* named a group that is none: .*10.0.0.1"
        ):
            MulticastClient(worker, JoinGroup("10.0.0.1", 7701, KEY, NONCE, PIECE_BYTES), "")
        group = free_group()
        message = JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES)
        with pytest.raises(UsageError, match="--interface must be one of"):
            MulticastClient(worker, message, "nowhere0")
        assert worker.on_multicast_control is None


async def test_a_client_that_has_left_the_group_hears_no_questions() -> None:
    async with pair() as (_, worker):
        group = free_group()
        client = MulticastClient(
            worker, JoinGroup(group.address, group.port, KEY, NONCE, PIECE_BYTES), LOOPBACK
        )
        assert worker.on_multicast_control is not None
        client.close()
        assert worker.on_multicast_control is None
