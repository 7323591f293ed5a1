"""A worker's side of the group: it hears the rows of a round, and says what it lacks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError, UsageError
from asyncdmtl.exchange.sides import WorkerSide
from asyncdmtl.multicast.datagrams import OVERHEAD, Layout, Stream
from asyncdmtl.multicast.receiving import DatagramCounts, Reassembly
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.udp import Group, GroupReceiver
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.plan import Plan
from asyncdmtl.protocol.messages.multicast import Fallback, JoinGroup, LossQuery, LossReport, MulticastControl
from asyncdmtl.worker.listener import Listener

log = logging.getLogger(__name__)

# Seconds in which a probe of the group must come, or this worker is served over TCP.
PROBE_PATIENCE = 2.0

# Seconds that datagrams may take longer than the question what was lost of them.
GRACE = 0.005

# Seconds without anything from the group after which rows are sent without regard to it.
STALLED = 0.25


@dataclass(frozen=True, eq=False)
class Followed:
    """The plan that a worker follows, as far as the group is concerned."""

    side: WorkerSide
    plan: Plan
    solver: Solver
    layout: Layout

    @property
    def rows(self) -> tuple[int, ...]:
        """The numbers of the rows that this worker decodes from."""
        return self.plan.deliveries[self.side.worker].rows

    @property
    def places(self) -> list[int]:
        """The places of these rows among those that the worker takes from the group."""
        return [self.solver.own.index(number) for number in self.rows]


class MulticastClient:
    """Listens to the group of a run, as long as a connection lasts.

    Parameters
    ----------
    connection : Connection
        On which questions come and answers go.
    tune : JoinGroup
    interface : str
        By which datagrams come; empty: the one that the connection uses.

    Raises
    ------
    LinkError, UsageError
        The group cannot be joined.
    RemoteProtocolError
        The server named a group that is none.
    """

    def __init__(self, connection: Connection, tune: JoinGroup, interface: str) -> None:
        try:
            group = Group(tune.address, tune.port)
        except UsageError as error:
            raise RemoteProtocolError(f"{connection.peer} named a group that is none: {error}") from error
        self._connection = connection
        self._key = tune.key
        self._piece_bytes = tune.piece_bytes
        self._probe = Stream.of_probe(tune.key, tune.nonce)
        self._listener = Listener(GroupReceiver(group, interface or connection.local))
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._silent = False
        self._plan = -1
        self._number = -1
        self._followed: Followed | None = None
        self._before: tuple[int, Reassembly] | None = None
        connection.on_multicast_control = self._on_multicast_control

    @property
    def heard(self) -> DatagramCounts:
        """What became of all datagrams so far."""
        return self._listener.receiver.heard

    @property
    def follows_plan(self) -> bool:
        """Whether the plan in force is one whose rows may come from the group."""
        return self._followed is not None

    @property
    def follows(self) -> bool:
        """Whether rows of the plan in force may come from the group, and this worker needs some."""
        return self._followed is not None and bool(self._followed.solver.own)

    async def hears(self) -> bool:
        """Whether the probe gets here."""
        probed = asyncio.Event()
        content = memoryview(bytearray(self._piece_bytes))

        def take(datagram: memoryview) -> None:
            if len(datagram) == len(content) + OVERHEAD and self._probe.open(datagram, content):
                probed.set()

        self._listener.receiver.listen(self._probe.name, take)
        try:
            async with asyncio.timeout(PROBE_PATIENCE):
                await probed.wait()
        except TimeoutError:
            return False
        finally:
            self._listener.receiver.forget(self._probe.name)
        return True

    async def follow(self, plan: int, side: WorkerSide) -> None:
        """Hear what is sent under a plan from now on."""
        self._listener.end()
        self._before, self._followed = None, None
        if side.group_plan is None:
            return
        solver = await asyncio.to_thread(Solver.of, side.group_plan, side.worker)
        layout = Layout(side.ranges[-1].stop, side.ranges[0].stop, self._piece_bytes)
        self._plan, self._number, self._followed = plan, -1, Followed(side, side.group_plan, solver, layout)

    def begin(self, round_: int) -> None:
        """Hear a round; to be called before the server can send it."""
        if self._followed is None:
            return
        if self._listener.round is not None:
            self._before = self._number, self._listener.round
        self._number, self._silent = round_, False
        followed = self._followed
        stream = Stream.of_round(self._key, self._plan, followed.plan.digest, round_)
        self._listener.begin(stream, followed.layout, followed.solver, self._changed.set)

    def has(self, index: int) -> bool:
        """Whether all rows of a range are there."""
        return self._round().complete(index)

    async def reached(self, index: int) -> None:
        """Wait until something of a range, or of a later one, is there; but not for long."""
        while index >= 0 and self._round().reached < index and not self._silent:
            self._changed.clear()
            try:
                async with asyncio.timeout(STALLED):
                    await self._changed.wait()
            except TimeoutError:
                self._silent = True

    async def complete(self, index: int) -> None:
        """Wait until all rows of a range are there."""
        while not self.has(index):
            self._changed.clear()
            await self._changed.wait()

    def hand_out(self, index: int) -> Bytes:
        """The rows of a complete range, one after the other, as `WorkerSide.receive` wants them."""
        assert self._followed is not None
        followed = self._followed
        rows = self._round().hand_out(index, followed.side.side_information(index))
        if followed.rows != followed.solver.own:
            rows = rows[followed.places]
        return rows.reshape(-1)

    def close(self) -> None:
        """Hear no more."""
        self._connection.on_multicast_control = None
        self._listener.end()
        self._listener.receiver.close()

    def _on_multicast_control(self, message: MulticastControl) -> None:
        if self._followed is None or message.plan != self._plan:
            raise RemoteProtocolError(f"{message.kind} of plan {message.plan} came under plan {self._plan}")
        layout = self._followed.layout
        last = message.index + (message.count if isinstance(message, LossQuery) else 1)
        if last > layout.ranges or message.round > self._number:
            raise RemoteProtocolError(
                f"{message.kind} of ranges to {last} of round {message.round} came, of {layout.ranges} "
                f"in round {self._number}"
            )
        if isinstance(message, LossQuery):
            self._asked(message)
        elif isinstance(message, Fallback) and message.round == self._number:
            start, stop = layout.span(message.index)
            self._given(message, stop - start)

    def _given(self, message: Fallback, width: int) -> None:
        assert self._followed is not None
        rows, own = self._followed.rows, self._followed.solver.own
        if message.body.nbytes != len(rows) * width:
            raise RemoteProtocolError(f"{message.body.nbytes} bytes of rows came for range {message.index}")
        whole = np.zeros((len(own), width), np.uint8)
        whole[self._followed.places] = message.body.reshape(len(rows), width)
        self._round().fill(message.index, whole)
        self._changed.set()

    def _asked(self, query: LossQuery) -> None:
        asked = range(query.index, query.index + query.count)
        if any(self._lacks(query.round, index)[0] for index in asked):
            self._loop.call_later(GRACE, self._answer, query, asked)
        else:
            self._answer(query, asked)

    def _answer(self, query: LossQuery, asked: range) -> None:
        for index in asked:
            # A newer plan may have come since, and not be followed yet, or the end with the question: nobody
            # waits for the answer any more.
            session = self._connection.session
            if not self._connection.lost and session.heartbeats_due and query.plan == session.plan:
                told = self._lacks(query.round, index)
                self._connection.write(LossReport(query.plan, query.round, index, *told))

    def _lacks(self, round_: int, index: int) -> tuple[bytes, int]:
        """What is lacking of a range; of an earlier round than this, nothing."""
        if round_ == self._number:
            return self._listener.lacks(index)
        seen = 0
        if self._before is not None and self._before[0] == round_:
            seen = self._before[1].seen(index)
        return b"", seen

    def _round(self) -> Reassembly:
        assert self._listener.round is not None
        return self._listener.round
