"""A worker's end of a multicast group: it receives the rows of each round, and reports losses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError, UsageError
from asyncdmtl.multicast.datagrams import OVERHEAD, Layout, Stream
from asyncdmtl.multicast.receiving import DatagramCounts, Reassembly
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.udp import Group, GroupReceiver
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.plan import Plan
from asyncdmtl.protocol.messages.multicast import Fallback, JoinGroup, LossQuery, LossReport, MulticastControl
from asyncdmtl.worker.multicast_receiver import MulticastReceiver

# Seconds within which a probe of the group must arrive; otherwise the worker is served over TCP. The server
# sends probes for 2.4 s in all, and switches learn about a new member in less.
PROBE_SECONDS = 2.0

# Seconds by which datagrams may arrive after a query about them, although they were sent before it, because
# they take another path through the network.
LATE_DATAGRAM_SECONDS = 0.005

# If no datagram of a round arrives for this number of seconds, rows go up without waiting for the group.
SILENT_GROUP_SECONDS = 0.25


class GroupSide(Protocol):
    """What a worker or relay knows of a plan under which its rows may come from the group."""

    @property
    def worker(self) -> int:
        """Its index in the plan."""

    @property
    def group_plan(self) -> Plan | None:
        """The plan; None if no rows may come from the group."""

    @property
    def down_ranges(self) -> tuple[slice, ...]:
        """The bytes of a row that comes down, range by range."""

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets from which it decodes a multicast, (packets, bytes)."""


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The facts about the plan in force by which a worker receives its rows from the group.

    Attributes
    ----------
    side : GroupSide
    plan : Plan
    solver : Solver
    layout : Layout
    """

    side: GroupSide
    plan: Plan
    solver: Solver
    layout: Layout

    @property
    def rows(self) -> tuple[int, ...]:
        """The numbers of the rows that this worker decodes from."""
        return self.plan.deliveries[self.side.worker].rows

    @property
    def places(self) -> list[int]:
        """The positions of these rows among the rows that the worker receives from the group."""
        return [self.solver.own.index(number) for number in self.rows]


class MulticastClient:
    """A worker's end of the run's multicast group, for the time of one connection.

    Parameters
    ----------
    connection : Connection
        The connection, which carries the server's loss queries and the reports.
    message : JoinGroup
    interface : str
        The interface on which datagrams arrive; if empty, the interface of the connection.

    Raises
    ------
    LinkError, UsageError
        The group cannot be joined.
    RemoteProtocolError
        The server named an address that is no multicast group.
    """

    def __init__(self, connection: Connection, message: JoinGroup, interface: str) -> None:
        try:
            group = Group(message.address, message.port)
        except UsageError as error:
            raise RemoteProtocolError(f"{connection.peer} named a group that is none: {error}") from error
        self._connection = connection
        self._key = message.key
        self._piece_bytes = message.piece_bytes
        self._probe = Stream.of_probe(message.key, message.nonce)
        self._receiver = MulticastReceiver(GroupReceiver(group, interface or connection.link.local))
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._silent = False
        self._plan = -1
        self._round = -1
        self._followed: GroupPlan | None = None
        # The round before this one, about which the server may still send queries.
        self._before: tuple[int, Reassembly] | None = None
        connection.on_multicast_control = self._on_multicast_control

    @property
    def counts(self) -> DatagramCounts:
        """The counts of all datagrams so far."""
        return self._receiver.receiver.counts

    @property
    def follows_plan(self) -> bool:
        """Whether rows under the plan in force may come from the group."""
        return self._followed is not None

    @property
    def brings_rows(self) -> bool:
        """Whether rows under the plan in force may come from the group, and this worker needs some."""
        return self._followed is not None and bool(self._followed.solver.own)

    async def receives_probe(self) -> bool:
        """Whether the server's probe arrives within `PROBE_SECONDS`."""
        probed = asyncio.Event()
        content = memoryview(bytearray(self._piece_bytes))

        def take(datagram: memoryview) -> None:
            if len(datagram) == len(content) + OVERHEAD and self._probe.open(datagram, content):
                probed.set()

        self._receiver.receiver.listen(self._probe.name, take)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await probed.wait()
        except TimeoutError:
            return False
        finally:
            self._receiver.receiver.forget(self._probe.name)
        return True

    async def follow(self, number: int, side: GroupSide, *, grouped: bool) -> None:
        """Receive rounds under plan `number` from now on, if it is `grouped`: rows come from the group."""
        self._receiver.end()
        self._before, self._followed = None, None
        if side.group_plan is None or not grouped:
            return
        solver = await asyncio.to_thread(Solver.of, side.group_plan, side.worker)
        layout = Layout(side.down_ranges[-1].stop, side.down_ranges[0].stop, self._piece_bytes)
        self._plan, self._round = number, -1
        self._followed = GroupPlan(side, side.group_plan, solver, layout)

    def begin(self, round_: int) -> None:
        """Begin to receive a round. It must be called before the server can send the round."""
        if (followed := self._followed) is None:
            return
        if self._receiver.round is not None:
            self._before = self._round, self._receiver.round
        self._round, self._silent = round_, False
        stream = Stream.of_round(self._key, self._plan, followed.plan.digest, round_)
        self._receiver.begin(stream, followed.layout, followed.solver, self._changed.set)

    def has(self, index: int) -> bool:
        """Whether all rows of a range have arrived."""
        return self._received.complete(index)

    async def reached(self, index: int) -> None:
        """Wait until a row of a range, or of a later one, has arrived, unless the group falls silent."""
        while index >= 0 and self._received.reached < index and not self._silent:
            self._changed.clear()
            try:
                async with asyncio.timeout(SILENT_GROUP_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                self._silent = True

    async def complete(self, index: int) -> None:
        """Wait until all rows of a range have arrived."""
        while not self.has(index):
            self._changed.clear()
            await self._changed.wait()

    def hand_out(self, index: int) -> Bytes:
        """The rows of a complete range, one after the other, as the side's `receive` takes them."""
        assert self._followed is not None
        followed = self._followed
        rows = self._received.hand_out(index, followed.side.side_information(index))
        if followed.rows != followed.solver.own:
            rows = rows[followed.places]
        return rows.reshape(-1)

    def close(self) -> None:
        """Leave the group."""
        self._connection.on_multicast_control = None
        self._receiver.end()
        self._receiver.receiver.close()

    @property
    def _received(self) -> Reassembly:
        """The rows of the current round that have arrived."""
        assert self._receiver.round is not None
        return self._receiver.round

    def _on_multicast_control(self, message: MulticastControl) -> None:
        if self._followed is None or message.plan != self._plan:
            raise RemoteProtocolError(f"{message.kind} of plan {message.plan} came under plan {self._plan}")
        layout = self._followed.layout
        last = message.index + (message.count if isinstance(message, LossQuery) else 1)
        if last > layout.ranges or message.round > self._round:
            raise RemoteProtocolError(
                f"{message.kind} of ranges to {last} of round {message.round} came, of {layout.ranges} "
                f"in round {self._round}"
            )
        if isinstance(message, LossQuery):
            self._on_query(message)
        elif isinstance(message, Fallback) and message.round == self._round:
            start, stop = layout.span(message.index)
            self._on_fallback(message, stop - start)

    def _on_fallback(self, message: Fallback, width: int) -> None:
        """Take the rows of a range that the server sent over TCP."""
        assert self._followed is not None
        rows, own = self._followed.rows, self._followed.solver.own
        if message.body.nbytes != len(rows) * width:
            raise RemoteProtocolError(f"{message.body.nbytes} bytes of rows came for range {message.index}")
        whole = np.zeros((len(own), width), np.uint8)
        whole[self._followed.places] = message.body.reshape(len(rows), width)
        self._received.fill(message.index, whole)
        self._changed.set()

    def _on_query(self, query: LossQuery) -> None:
        """Report lacking rows: at once if there are none, else after a delay for late datagrams."""
        asked = range(query.index, query.index + query.count)
        if any(self._lacks(query.round, index)[0] for index in asked):
            self._loop.call_later(LATE_DATAGRAM_SECONDS, self._report, query, asked)
        else:
            self._report(query, asked)

    def _report(self, query: LossQuery, asked: range) -> None:
        for index in asked:
            # If a new plan or the end of the run has come since, the server does not expect the report.
            session = self._connection.session
            if not self._connection.lost and session.heartbeats_due and query.plan == session.plan:
                report = LossReport(query.plan, query.round, index, *self._lacks(query.round, index))
                self._connection.write(report)

    def _lacks(self, round_: int, index: int) -> tuple[bytes, int]:
        """The lacking rows of a range, and the count of its datagrams; an earlier round lacks nothing."""
        if round_ == self._round:
            return self._receiver.lacks(index)
        seen = 0
        if self._before is not None and self._before[0] == round_:
            seen = self._before[1].seen(index)
        return b"", seen
