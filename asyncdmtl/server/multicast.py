"""The server's group: who hears it, and the rounds that are sent to it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
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
from asyncdmtl.server.broadcaster import Broadcaster
from asyncdmtl.server.member import Member
from asyncdmtl.server.records import BroadcastRecord, MulticastOptions

log = logging.getLogger(__name__)

# Under which name the ledger counts what goes to the group.
GROUP = "(group)"

# Seconds from one probe to the next: switches may take a while to learn of a new listener. Workers give up
# after `PROBE_PATIENCE`, and the server some time later.
PROBES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4)
ANSWER = 10.0

# A worker that was sent more than this share of a round's ranges on its connection does not hear the group;
# nor does one that asks again for more than that share of the rows of pieces that it needs, of so many at the
# least: it loses four of ten, or says so.
DEAF, GREEDY, JUDGED = 0.5, 0.75, 500

# A worker that lost its connection so often because what it decoded was wrong is served over TCP: whoever
# takes part has the key of the group, and could send it other rows.
MISLED = 2


class MulticastServer:
    """Sends to the group of a run.

    Parameters
    ----------
    options : MulticastOptions
    ledger : Ledger
        Where datagrams are counted, under the name `GROUP`.
    patience : float
        Seconds that workers have at the most to say what they lack.

    Raises
    ------
    UsageError
        There is no such interface.
    """

    def __init__(self, options: MulticastOptions, ledger: Ledger, patience: float) -> None:
        self._options = options
        self._ledger = ledger
        self._patience = min(patience, ANSWER)
        self._key = secrets.token_bytes(KEY_BYTES)
        self._sender: GroupSender | None = None
        self._broadcaster: Broadcaster | None = None
        self._task: asyncio.Task[None] | None = None
        self._round: _Round | None = None
        self._deaf: dict[str, str] = {}
        self._judged: dict[str, tuple[int, int]] = {}
        self._misled: Counter[str] = Counter()
        if options.interface:
            self._open("")

    async def probe(self, member: Member) -> None:
        """Find out whether a worker hears the group.

        Raises
        ------
        AsyncDMTLError
            The worker did not answer, or was lost.
        """
        connection = member.connection
        if self._misled[member.name] >= MISLED:
            self._note(member, "what it heard was not what was sent")
            return
        try:
            sender = self._open(connection.link.local)
        except LinkError as error:
            self._note(member, str(error))
            return
        nonce, group = secrets.token_bytes(PROBE_NONCE_BYTES), self._options.group
        tune = JoinGroup(group.address, group.port, self._key, nonce, sender.piece_bytes)
        await connection.send(tune, ANSWER, "--silence-timeout")
        probing = asyncio.create_task(self._send_probes(sender, nonce))
        try:
            tuned = await connection.receive((JoinedGroup,), ANSWER, "--silence-timeout")
        finally:
            probing.cancel()
            await asyncio.wait([probing])
        member.hears = not tuned.reason
        if tuned.reason:
            self._note(member, tuned.reason)
        else:
            self._deaf.pop(member.name, None)

    async def begin(
        self, number: int, round_: int, side: ServerSide, listeners: Mapping[Member, int]
    ) -> None:
        """Begin to send a round, of which nothing is `ready` yet.

        Parameters
        ----------
        number, round_ : int
            Of the plan, and of the round.
        side : ServerSide
            Whose blocks are sent. Without `side.group_plan` there are no listeners.
        listeners : mapping of Member to int
            Those who are sent the round by the group, and their positions in the plan.
        """
        await self.stop()
        plan = side.group_plan
        if not listeners or plan is None or self._broadcaster is None:
            return
        made = self._round = _Round(number, round_, side, {member.name: member for member in listeners})
        made.positions.update({member.name: k for member, k in listeners.items()})
        own = {name: multicast_delivery(plan, k).rows for name, k in made.positions.items()}
        layout = Layout(side.ranges[-1].stop, side.ranges[0].stop, self._open("").piece_bytes)
        blocks = [side.block(i) for i in range(len(side.ranges))]
        stream = Stream.of_round(self._key, number, plan.digest, round_)
        for name, member in made.listeners.items():
            member.connection.on_multicast_control = partial(self._hear, made, name)
        self._broadcaster.begin(Broadcast(stream, layout, blocks, plan.seed, own))
        self._task = asyncio.create_task(self._broadcaster.run())

    def ready(self, count: int) -> None:
        """Tell that the first `count` ranges of the round may be sent."""
        if self._broadcaster is not None:
            self._broadcaster.ready(count)

    def drop(self, worker: str) -> None:
        """Wait no more for what a worker lacks: it is lost."""
        if self._broadcaster is not None:
            self._broadcaster.drop(worker)

    def mislead(self, worker: str) -> None:
        """Take note of a listener that is lost because what it decoded is not what others computed."""
        self._misled[worker] += 1

    async def settle(self, seconds: float) -> None:
        """Wait until all listeners have the round that was begun, or are lost; but only so long."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    async def stop(self) -> None:
        """Send no more of the round that was begun: all have it, or it is given up."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        assert self._round is not None
        for name, member in self._round.listeners.items():
            too_much = self._asks_too_much(name)
            given = self._round.given.get(name, 0) > DEAF * len(self._round.side.ranges)
            if (given or too_much) and member.hears:
                member.hears = False
                self._note(member, f"heard too little of round {self._round.round}")

    def _asks_too_much(self, worker: str) -> bool:
        """Whether repairs for a worker cost the others more than its connection would cost it."""
        if self._broadcaster is None or (told := self._broadcaster.receptions.get(worker)) is None:
            return False
        needed, asked = self._judged.get(worker, (0, 0))
        if told.needed - needed < JUDGED:
            return False
        self._judged[worker] = told.needed, told.asked
        return told.asked - asked > GREEDY * (told.needed - needed)

    async def close(self) -> None:
        """Stop sending."""
        await self.stop()
        if self._sender is not None:
            self._sender.close()

    def record(self, listeners: Sequence[str], reason: str) -> BroadcastRecord:
        """What was sent, and what became of it; who listens under the last plan, and why."""
        caster = self._broadcaster
        group = self._options.group
        return BroadcastRecord(
            group=f"[{group.address}]:{group.port}"
            if ":" in group.address
            else f"{group.address}:{group.port}",
            listeners=tuple(listeners),
            reason=reason or "nobody hears it, or could decode from it",
            deaf=dict(self._deaf),
            receptions={} if caster is None else dict(caster.receptions),
            sent_bytes=0 if caster is None else caster.sent,
            repair_bytes=0 if caster is None else caster.repaired,
            rate=0.0 if caster is None else 8 * caster.pace.rate,
        )

    def ask(self, worker: str, index: int, count: int) -> None:
        """Ask a listener what it lacks of so many ranges."""
        made = self._current()
        self._write(worker, LossQuery(made.plan, made.round, index, count))

    def deliver(self, worker: str, index: int) -> None:
        """Send a listener its rows of a range on its connection."""
        made = self._current()
        made.given[worker] = made.given.get(worker, 0) + 1
        rows = made.side.rows(made.positions[worker], index)
        self._write(worker, Fallback(made.plan, made.round, index, rows))

    def give_up(self, worker: str) -> None:
        """Serve a listener over TCP from the next round on: it does not say what it lacks."""
        made = self._current()
        member = made.listeners[worker]
        member.hears = False
        self._note(member, f"did not tell what it lacked of round {made.round}")

    def count(self, block: DatagramBlock) -> None:
        """Count datagrams that were sent."""
        size = len(block.datagrams)
        kind = "repair" if block.fresh else "downlink"
        payload = size - block.count * OVERHEAD
        self._ledger.count(GROUP, "down", kind, self._current().round, payload=payload, size=size)

    def _hear(self, made: _Round, worker: str, message: MulticastControl) -> None:
        # The last answers to a round may come when the next has begun.
        current = made is self._round and message.round == made.round
        if isinstance(message, LossReport) and current and self._broadcaster is not None:
            self._broadcaster.answer(worker, message.index, message.lacks, message.seen)

    def _write(self, worker: str, message: LossQuery | Fallback) -> None:
        connection = self._current().listeners[worker].connection
        if not connection.lost:
            connection.write(message)

    def _current(self) -> _Round:
        assert self._round is not None
        return self._round

    def _open(self, local: str) -> GroupSender:
        """The sender, by the interface of the option or else by that of the first worker."""
        if self._sender is None:
            self._sender = GroupSender(self._options.group, self._options.interface or local)
            self._broadcaster = Broadcaster(
                self._sender, RateControl(self._options.rate / 8), self, self._patience
            )
        return self._sender

    async def _send_probes(self, sender: GroupSender, nonce: bytes) -> None:
        stream, content = Stream.of_probe(self._key, nonce), bytes(sender.piece_bytes)
        datagram = memoryview(bytearray(OVERHEAD + len(content)))
        for number, pause in enumerate(PROBES):
            await asyncio.sleep(pause)
            stream.seal(0, number, memoryview(content), datagram)
            await sender.send(DatagramBlock(datagram, len(datagram), 1))

    def _note(self, member: Member, reason: str) -> None:
        self._deaf[member.name] = reason
        log.warning("worker %s is served over TCP: %s", member.name, reason, extra={"worker": member.name})


@dataclass(eq=False)
class _Round:
    """The round that is sent: under which plan, to whom, and how many ranges each was given over TCP."""

    plan: int
    round: int
    side: ServerSide
    listeners: dict[str, Member]
    positions: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
