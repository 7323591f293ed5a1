"""The participation of a worker in a run over one connection: it joins, and then makes the rounds.

A new plan may come at any time, and makes all work under the old one useless. Wherever the worker waits for
the server, a new plan raises `NewPlan`, and the worker starts again with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from asyncdmtl.blinding.sealed import SEALED_STATE_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    JoinGroup,
    Listen,
    Message,
    MoreRows,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.worker.joining import (
    be_welcomed,
    check_blindness,
    declare_and_encode,
    join_group,
    read_settings,
)
from asyncdmtl.worker.key_agreement import KeyAgreement
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.peer_exchange import PeerExchange, exchange_rows
from asyncdmtl.worker.plan_check import check_contents, make_worker_side
from asyncdmtl.worker.reconnection import Reconnection
from asyncdmtl.worker.state import WorkerState
from asyncdmtl.worker.uplink_sender import UplinkSender

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)


class NewPlan(Exception):  # noqa: N818 - no error
    """The server has assigned a new plan, which replaces the one that the worker follows."""

    def __init__(self, assign: Assign) -> None:
        self.assign = assign
        super().__init__(f"plan {assign.plan} replaces the plan before it")


class Participation:
    """The participation of a worker in a run over one connection.

    Parameters
    ----------
    connection : Connection
    options : WorkerOptions
    partitions : OwnPartitions
    state : WorkerState
        The worker's state, which outlasts the connection.
    reconnection : Reconnection
        Notes the welcome and the progress of the worker.
    observer : WorkerObserver
    """

    def __init__(
        self,
        connection: Connection,
        options: WorkerOptions,
        partitions: OwnPartitions,
        state: WorkerState,
        reconnection: Reconnection,
        observer: WorkerObserver,
    ) -> None:
        self._connection = connection
        self._options = options
        self._partitions = partitions
        self._state = state
        self._reconnection = reconnection
        self._observer = observer
        self._round_limit = options.round_timeout, "--round-timeout"
        self._plan, self._tolerant, self._measured, self._paced = -1, False, False, True
        self._applied_seconds = 0.0
        self._multicast: MulticastClient | None = None
        self._exchange: PeerExchange | None = None
        self._uplink = UplinkSender(options.round_timeout)
        # Each kind of work has an executor of its own, since its duration decides whether it goes to a
        # thread.
        self._computing, self._receiving, self._applying = (AdaptiveExecutor() for _ in range(3))

    async def run(self, secret: bytes | None) -> TaskModels:
        """Join the run, make all its rounds, and return the models at its end.

        Parameters
        ----------
        secret : bytes or None
            The secret that worker and server prove to each other to know; None if there is none.

        Raises
        ------
        AsyncDMTLError
            The connection failed, the server refused this worker, or the server sent something unusable.
        """
        assign = await self._join(secret)
        while True:
            try:
                await self._follow(assign)
                while not self._state.over:
                    await self._send_round()
                    await self._apply_round(await self._answer())
                await self._leave()
                return self._state.side.models()
            except NewPlan as replaced:
                assign = replaced.assign

    async def close(self) -> None:
        """Stop the background tasks: the sending of rows, the multicast group, the exchange with others."""
        await self._uplink.stop()
        if self._multicast is not None:
            log.info(
                "worker %s: datagrams of the group: %s", self._options.name, self._multicast.counts,
                extra=self._state.log_fields(),
            )  # fmt: skip
            self._multicast.close()
            self._multicast = None
        if self._exchange is not None:
            await self._exchange.close()
            self._exchange = None

    async def _join(self, secret: bytes | None) -> Assign:
        """Join the run, and wait for the first plan."""
        connection, options, state = self._connection, self._options, self._state
        welcome = await be_welcomed(connection, options, secret)
        self._reconnection.note_welcome()
        check_blindness(welcome, options)
        settings = read_settings(connection, welcome)
        self._observer.on_settings(settings)
        if state.run not in (None, welcome.run):
            log.warning(
                "worker %s: the server makes another run now, %s: starting anew", options.name, welcome.run,
                extra=self._state.log_fields(),
            )  # fmt: skip
        state.enter(welcome.run)
        if options.group_proofs is not None:
            await KeyAgreement(connection, state, options.group_proofs).agree(options.start_timeout)
        await declare_and_encode(connection, options, settings, self._partitions, state)
        limit = options.start_timeout, "--start-timeout"
        while True:
            message: JoinGroup | Listen | Assign = await connection.receive(
                (JoinGroup, Listen, Assign), *limit
            )
            if isinstance(message, JoinGroup):
                self._multicast = await join_group(connection, options, state.log_fields(), message)
            elif isinstance(message, Assign):
                return message
            elif self._exchange is None:
                self._exchange = await exchange_rows(connection, options, state, message)
            else:
                raise RemoteProtocolError(f"{connection.peer} asked twice where others may take rows")

    async def _follow(self, assign: Assign) -> None:
        """Follow a plan, with the state of the training that the server orders."""
        state, connection, self._plan = self._state, self._connection, assign.plan
        self._tolerant, self._measured, self._paced = assign.tolerant, assign.measured, assign.paced
        await self._uplink.stop()
        _, settings = self._partitions.encoded_with
        async with self._options.place.turn():
            side = await asyncio.to_thread(
                make_worker_side,
                assign,
                self._options.name,
                settings,
                self._partitions.encoded,
                state.digest,
                state.group,
            )
        if state.group is not None:
            check_contents(side, self._partitions.infos, state.group)
        state_bytes = side.trainer.problem.state_bytes + (0 if state.group is None else SEALED_STATE_BYTES)
        connection.session.body_limit = max(side.received_bytes, state_bytes)
        if self._multicast is not None:
            await self._multicast.follow(assign.plan, side, grouped=assign.grouped)
        if self._exchange is not None:
            await self._exchange.follow(assign, side)
        if assign.first == StateTransfer.TAKE:
            state.take(side, assign, await self._ask(AwaitRestore(assign.plan), Restore))
            self._reconnection.note_progress()
            return
        state.keep(side, assign)
        if assign.first == StateTransfer.GIVE:
            await self._give()

    async def _send_round(self) -> None:
        """Compute the upload of a round, and begin to send it.

        Heartbeats go on while threads compute. If the server went on without this worker meanwhile, it is
        sent the digests and losses, which it compares, but no rows.
        """
        state, connection, round_ = self._state, self._connection, self._state.round
        self._observer.before_compute(round_)
        state.side.begin(self._plan, round_)
        clock = asyncio.get_running_loop().time
        async with self._options.place.turn():
            began = clock()
            upload = await self._computing.do(state.side.compute)
        computed = self._applied_seconds + clock() - began
        timing = (computed, connection.link.arrivals.rate()) if self._measured else ()
        self._observer.after_compute(round_, upload)
        if self._multicast is not None:
            self._multicast.begin(round_)
        if self._exchange is not None:
            self._exchange.begin(round_, state.side)
        first, *others = (rows.reshape(-1) for rows in upload.rows)
        told = state.side.told(upload)
        self._check_plan()
        late = self._tolerant and self._connection.inbox.starts_with(Downlink)
        if late and self._connection.session.plan != self._plan:
            # Nothing may be sent under this plan any more. The rows of it that came before the new plan are
            # worked off, unless the new plan brings a later state.
            newer = self._connection.inbox.find(Assign)
            if newer is not None and newer.first == StateTransfer.TAKE:
                self._connection.inbox.drop_through(newer)
                raise NewPlan(newer)
            return
        if late:
            first, others = first[:0], []
        rest = 0 if late else upload.size - first.nbytes
        uplink = Uplink(self._plan, round_, state.side.layout.pack(told), first, rest, timing)
        more = [MoreRows(self._plan, round_, (rows,)) for rows in others if rows.nbytes]
        group = self._multicast if self._multicast is not None and self._multicast.brings_rows else None
        # If nothing comes down before all rows are up, rows go up as fast as possible.
        exchanged = self._exchange is not None and self._exchange.active
        in_step = (
            state.side.streams and (group is not None or state.side.received_bytes > 0) and not exchanged
        )
        await self._uplink.begin(connection, [uplink, *more], group, in_step=in_step, paced=self._paced)

    async def _answer(self) -> Downlink:
        """The server's answer to an upload.

        A worker that missed many rounds is sent the state of a later one instead, and makes that round.
        """
        if not self._tolerant:
            return await self._receive(Downlink)
        while True:
            wanted = Downlink, Restore, Assign
            message: Downlink | Restore | Assign = await self._connection.receive(
                wanted, *self._options.reply_limit
            )
            if isinstance(message, Assign):
                raise NewPlan(message)
            if isinstance(message, Downlink):
                return message
            await self._uplink.stop()
            self._state.catch_up(message)
            self._reconnection.note_progress()
            await self._send_round()

    async def _apply_round(self, downlink: Downlink) -> None:
        """Receive the rows of a round, apply them, and send the server the new state if it asks for it."""
        state = self._state
        if (downlink.plan, downlink.round) != (self._plan, state.round):
            raise RemoteProtocolError(
                f"{self._connection.peer} sent round {downlink.round} of plan {downlink.plan} "
                f"in round {state.round} of plan {self._plan}"
            )
        if not downlink.grouped:
            await self._receive_rows(downlink)
        elif self._exchange is not None and self._exchange.active:
            await self._receive_from_peers(self._exchange)
        else:
            await self._receive_from_group()
        clock = asyncio.get_running_loop().time
        async with self._options.place.turn():
            began = clock()
            await self._applying.do(state.apply, downlink)
            self._applied_seconds = clock() - began
        self._reconnection.note_progress()
        log.debug("worker %s: round %d done", state.name, downlink.round, extra=state.log_fields())
        if downlink.then == AfterRound.GIVE:
            await self._give()

    async def _receive_rows(self, downlink: Downlink) -> None:
        """Receive all rows of a round from the server, range by range, and decode them."""
        side, rows, absent = self._state.side, downlink.body, downlink.absent
        if rows.nbytes + downlink.rest != side.received_bytes:
            raise RemoteProtocolError(
                f"{self._connection.peer} sends {rows.nbytes + downlink.rest} bytes of rows, "
                f"the plan says {side.received_bytes}"
            )
        for i in range(len(side.down_ranges)):
            if i and side.received_range(i):
                more = await self._receive(MoreRows)
                rows, absent = more.body, more.absent
            self._uplink.received(i)
            await self._receiving.do(side.receive, i, rows, absent)

    async def _receive_from_peers(self, exchange: PeerExchange) -> None:
        """Receive all vectors of a round from other workers."""
        newer = await exchange.receive(self._state.round, self._counts_under, self._options.reply_limit)
        if newer is not None:
            raise NewPlan(newer)

    async def _receive_from_group(self) -> None:
        """Receive all rows of a round from the multicast group, range by range, and decode them.

        A new plan may come while datagrams still arrive. If the plan begins after this round, and all of the
        round's rows are here, the round is applied before the new plan is followed.
        """
        side, group, connection = self._state.side, self._multicast, self._connection
        if group is None or not group.follows_plan:
            raise RemoteProtocolError(f"{connection.peer} sends rows to a group that is not listened to")
        count = len(side.down_ranges)
        newer = asyncio.create_task(connection.receive((Assign,), *self._options.reply_limit))
        try:
            for i in range(count):
                if not group.has(i):
                    arrival = asyncio.create_task(group.complete(i))
                    await asyncio.wait((newer, arrival), return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()
                if newer.done():
                    assign = newer.result()
                    if not self._counts_under(assign) or not all(map(group.has, range(i, count))):
                        raise NewPlan(assign)
                await self._receiving.do(side.receive, i, group.hand_out(i))
        finally:
            newer.cancel()
            await asyncio.wait([newer])
        if newer.cancelled():
            return
        assign = newer.result()
        if not self._counts_under(assign):
            raise NewPlan(assign)
        connection.inbox.put_back(assign)

    def _counts_under(self, newer: Assign) -> bool:
        """Whether a new plan begins after the current round, so that this round must be applied."""
        return newer.round > self._state.round

    async def _give(self) -> None:
        """Send the server the state of the training.

        If rows of further rounds came before a new plan, nobody waits for the state any more.
        """
        self._check_plan()
        if self._connection.session.plan != self._plan:
            return
        snapshot = Snapshot(self._plan, self._state.round, *self._state.snapshot())
        await self._connection.send(snapshot, *self._round_limit)

    async def _leave(self) -> None:
        """Send the check of the final models, and wait for the message that all workers are done."""
        side = self._state.side
        critical = side.trainer.critical_strength
        if self._state.group is not None:
            done = Done(self._plan, side.final_check())
        else:
            tests = await asyncio.to_thread(self._partitions.tested, side.models(), side.baselines())
            done = Done(self._plan, side.final_check(), self._state.outcome(), tests, critical)
        finish = await self._ask(done, Finish)
        self._state.critical_strength = finish.critical_strength if critical is None else critical

    async def _ask(self, message: Message, answer: type[Answer]) -> Answer:
        """Send a message, and wait for the answer."""
        self._check_plan()
        await self._connection.send(message, *self._round_limit)
        return await self._receive(answer)

    async def _receive(self, wanted: type[Answer]) -> Answer:
        """The next message of the kind `wanted`; a new plan raises NewPlan instead."""
        message: Answer | Assign = await self._connection.receive(
            (wanted, Assign), *self._options.reply_limit
        )
        if isinstance(message, Assign):
            raise NewPlan(message)
        return message

    def _check_plan(self) -> None:
        """Raise NewPlan if a new plan has arrived: nothing may be sent under the old one any more."""
        if (newer := self._connection.inbox.take(Assign)) is not None:
            raise NewPlan(newer)
