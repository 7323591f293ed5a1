"""The server's end of the multicast group: it probes workers, sends rounds, and answers reports of losses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from asyncdmtl.errors import LinkError
from asyncdmtl.exchange.sides import ServerSide
from asyncdmtl.multicast.datagrams import KEY_BYTES, OVERHEAD, Layout, Stream
from asyncdmtl.multicast.rate import RateControl
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.net.udp import GroupSender
from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.multicast import (
    PROBE_NONCE_BYTES,
    Fallback,
    JoinedGroup,
    JoinGroup,
    LossQuery,
    LossReport,
    MulticastControl,
)
from asyncdmtl.server.listeners import Listeners
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_sender import MulticastSender
from asyncdmtl.server.records import MulticastOptions, MulticastRecord

# The name under which the ledger counts datagrams to the group.
GROUP = "(group)"

# Seconds before each probe of the group: switches may take a while to learn about a new member.
PROBE_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4)

# Seconds within which a worker must report whether the probe arrived, and which rows of a round it lacks.
# Workers wait two seconds for the probe.
ANSWER_SECONDS = 10.0


class MulticastServer:
    """Sends rounds to the group of a run.

    Parameters
    ----------
    options : MulticastOptions
    ledger : Ledger
        The ledger, which counts datagrams under the name `GROUP`.
    patience : float
        The most seconds that workers have for a loss report.

    Raises
    ------
    UsageError
        There is no such interface.
    """

    def __init__(self, options: MulticastOptions, ledger: Ledger, patience: float) -> None:
        self._options = options
        self._ledger = ledger
        self._patience = min(patience, ANSWER_SECONDS)
        self._key = secrets.token_bytes(KEY_BYTES)
        self._listeners = Listeners()
        self._socket: GroupSender | None = None
        self._sender: MulticastSender | None = None
        self._task: asyncio.Task[None] | None = None
        self._round: _GroupRound | None = None
        if options.interface:
            self._open("")

    async def probe(self, member: Member) -> None:
        """Probe whether a worker receives the group.

        Raises
        ------
        AsyncDMTLError
            The worker did not answer, or was lost.
        """
        connection = member.connection
        if not self._listeners.may_listen(member):
            return
        try:
            socket = self._open(connection.link.local)
        except LinkError as error:
            self._listeners.serve_over_tcp(member, str(error))
            return
        nonce, group = secrets.token_bytes(PROBE_NONCE_BYTES), self._options.group
        message = JoinGroup(group.address, group.port, self._key, nonce, socket.piece_bytes)
        await connection.send(message, ANSWER_SECONDS, "--silence-timeout")
        probing = asyncio.create_task(self._send_probes(socket, nonce))
        try:
            answer = await connection.receive((JoinedGroup,), ANSWER_SECONDS, "--silence-timeout")
        finally:
            probing.cancel()
            await asyncio.wait([probing])
        if answer.reason:
            self._listeners.serve_over_tcp(member, answer.reason)
        else:
            self._listeners.listens(member)

    async def begin(
        self, number: int, round_: int, side: ServerSide, listeners: Mapping[Member, int]
    ) -> None:
        """Begin to send a round; its ranges are sent once they are `ready`.

        Parameters
        ----------
        number, round_ : int
            The plan's number, and the round.
        side : ServerSide
            The side, which has the rows. If `side.group_plan` is None, there are no listeners.
        listeners : mapping of Member to int
            The workers that receive the round from the group, and their positions in the plan.
        """
        await self.stop()
        plan = side.group_plan
        if not listeners or plan is None or self._sender is None:
            return
        positions = {member.name: k for member, k in listeners.items()}
        members = {member.name: member for member in listeners}
        made = self._round = _GroupRound(number, round_, side, members, positions)
        own = {name: multicast_delivery(plan, k).rows for name, k in positions.items()}
        layout = Layout(side.down_ranges[-1].stop, side.down_ranges[0].stop, self._open("").piece_bytes)
        blocks = [side.block(i) for i in range(len(side.down_ranges))]
        stream = Stream.of_round(self._key, number, plan.digest, round_)
        for name, member in members.items():
            member.connection.on_multicast_control = partial(self._on_control, made, name)
        self._sender.begin(Broadcast(stream, layout, blocks, plan.seed, own))
        self._task = asyncio.create_task(self._sender.run())

    def ready(self, count: int) -> None:
        """Note that the first `count` ranges of the round may be sent."""
        if self._sender is not None:
            self._sender.ready(count)

    def drop(self, worker: str) -> None:
        """Remove a listener that is lost."""
        if self._sender is not None:
            self._sender.drop(worker)

    def note_misled(self, worker: str) -> None:
        """Note that a listener lost its connection because it decoded wrong vectors."""
        self._listeners.note_misled(worker)

    async def settle(self, seconds: float) -> None:
        """Wait, at most `seconds`, until all listeners have the current round or are lost."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    async def stop(self) -> None:
        """Stop sending the current round: all listeners have it, or it is given up."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        made = self._current
        for name, member in made.members.items():
            share = made.over_tcp.get(name, 0) / len(made.side.down_ranges)
            reception = None if self._sender is None else self._sender.receptions.get(name)
            self._listeners.judge(member, made.round, share, reception)

    async def close(self) -> None:
        """Stop sending, and close the socket."""
        await self.stop()
        if self._socket is not None:
            self._socket.close()

    def record(self, listeners: Sequence[str], reason: str) -> MulticastRecord:
        """The record of the datagrams of a run and of their reception.

        Parameters
        ----------
        listeners : sequence of str
            The workers that the group serves under the last plan.
        reason : str
            The reason for this choice; empty if no worker receives the group.
        """
        sender, group = self._sender, self._options.group
        host = f"[{group.address}]" if ":" in group.address else group.address
        return MulticastRecord(
            group=f"{host}:{group.port}",
            listeners=tuple(listeners),
            reason=reason or "nobody hears it, or could decode from it",
            served_over_tcp=dict(self._listeners.served_over_tcp),
            receptions={} if sender is None else dict(sender.receptions),
            sent_bytes=0 if sender is None else sender.sent,
            repair_bytes=0 if sender is None else sender.repaired,
            rate=0.0 if sender is None else 8 * sender.rate.rate,
        )

    def ask(self, worker: str, index: int, count: int) -> None:
        """Ask a listener which rows it lacks in `count` ranges, from range `index` on."""
        made = self._current
        self._write(worker, LossQuery(made.plan, made.round, index, count))

    def deliver(self, worker: str, index: int) -> None:
        """Send a listener its rows of a range over its connection."""
        made = self._current
        made.over_tcp[worker] = made.over_tcp.get(worker, 0) + 1
        rows = made.side.rows(made.positions[worker], index)
        self._write(worker, Fallback(made.plan, made.round, index, rows))

    def give_up(self, worker: str) -> None:
        """Serve a listener over TCP from the next round on, because it does not answer."""
        made = self._current
        reason = f"did not tell what it lacked of round {made.round}"
        self._listeners.serve_over_tcp(made.members[worker], reason)

    def count(self, block: DatagramBlock) -> None:
        """Count datagrams that were sent."""
        size = len(block.datagrams)
        kind = "repair" if block.fresh else "downlink"
        payload = size - block.count * OVERHEAD
        self._ledger.count(GROUP, "down", kind, self._current.round, payload=payload, size=size)

    @property
    def _current(self) -> _GroupRound:
        assert self._round is not None
        return self._round

    def _on_control(self, made: _GroupRound, worker: str, message: MulticastControl) -> None:
        """Process a loss report of a listener. The last reports of a round may come in the next round."""
        current = made is self._round and message.round == made.round
        if isinstance(message, LossReport) and current and self._sender is not None:
            self._sender.take_report(worker, message.index, message.lacks, message.seen)

    def _write(self, worker: str, message: LossQuery | Fallback) -> None:
        connection = self._current.members[worker].connection
        if not connection.lost:
            connection.write(message)

    def _open(self, local: str) -> GroupSender:
        """Open the socket on the interface of the option, else on that of the first worker's connection."""
        if self._socket is None:
            self._socket = GroupSender(self._options.group, self._options.interface or local)
            rate = RateControl(self._options.rate / 8)
            self._sender = MulticastSender(self._socket, rate, self, self._patience)
        return self._socket

    async def _send_probes(self, socket: GroupSender, nonce: bytes) -> None:
        stream, content = Stream.of_probe(self._key, nonce), bytes(socket.piece_bytes)
        datagram = memoryview(bytearray(OVERHEAD + len(content)))
        for number, pause in enumerate(PROBE_PAUSES):
            await asyncio.sleep(pause)
            stream.seal(0, number, memoryview(content), datagram)
            await socket.send(DatagramBlock(datagram, len(datagram), 1))


@dataclass(eq=False)
class _GroupRound:
    """The round that is sent to the group.

    Attributes
    ----------
    plan, round : int
    side : ServerSide
    members : dict of name to Member
        The listeners.
    positions : dict of name to int
        Their positions in the plan.
    over_tcp : dict of name to int
        The number of ranges that each got over its connection.
    """

    plan: int
    round: int
    side: ServerSide
    members: dict[str, Member]
    positions: dict[str, int]
    over_tcp: dict[str, int] = field(default_factory=dict)
