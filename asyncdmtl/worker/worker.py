"""A worker's side of a run: join, then compute, send, receive and step in every round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import digest
from asyncdmtl.errors import (
    AsyncDMTLError,
    IntegrityError,
    LinkError,
    PeerError,
    RemoteProtocolError,
    UsageError,
    WaitError,
)
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import single_threaded
from asyncdmtl.net.authentication import UNSECURED_WORKER, WorkerSecurity, greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.event_loop import AdaptiveExecutor
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import (
    FIRST_RETRY_PAUSE,
    LONGEST_RETRY_PAUSE,
    LONGEST_WAIT,
    check_positive,
    connect,
)
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    AfterRound,
    Assign,
    AwaitRestore,
    Declare,
    Done,
    Downlink,
    Finish,
    Hello,
    JoinedGroup,
    JoinGroup,
    Message,
    MoreRows,
    Prepare,
    Ready,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.worker.multicast import MulticastClient
from asyncdmtl.worker.state import WorkerState
from asyncdmtl.worker.uplink import UplinkSender

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker takes part.

    Attributes
    ----------
    name : str
        Unique among the workers of a run.
    max_wait : float
        Seconds to wait for a server that is not up yet, or not any more.
    start_timeout, round_timeout, silence_timeout : float
        Seconds: for the run to start, for the downlink, and for a sign of life from the server.
    interface : str
        By which datagrams of a group come: a name, or an address of this host; empty: as the connection.
    """

    name: str
    max_wait: float = 60.0
    start_timeout: float = 3600.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0
    interface: str = ""

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 200 or not self.name.isprintable():
            raise UsageError("--name", "must be 1 to 200 printable characters", self.name)
        if not 0 <= self.max_wait <= LONGEST_WAIT:
            raise UsageError("--max-wait", f"must lie between 0 and {LONGEST_WAIT:g} seconds", self.max_wait)
        check_positive(
            start_timeout=self.start_timeout,
            round_timeout=self.round_timeout,
            silence_timeout=self.silence_timeout,
        )


# Connections that may be lost in a row, without a round between them, before --max-wait is over for good.
MOST_LOSSES = 20


class Worker:
    """One worker in one run, through as many connections as it takes.

    Parameters
    ----------
    options : WorkerOptions
    partitions : sequence of Stored
        Those that are stored here; none of their rows is ever sent.
    security : WorkerSecurity
        What the server must prove; by default nothing.
    """

    def __init__(
        self,
        options: WorkerOptions,
        partitions: Sequence[Stored],
        security: WorkerSecurity = UNSECURED_WORKER,
    ) -> None:
        self._security = security
        self._options = options
        self._replica = WorkerState(options.name, partitions)
        self._ledger = Ledger()
        self._end = 0.0
        self._welcomed = False
        self._losses = 0
        self._pause = FIRST_RETRY_PAUSE
        self._ear: MulticastClient | None = None
        self._feed = UplinkSender(options.round_timeout)
        self._computing, self._receiving, self._applying = (
            AdaptiveExecutor(),
            AdaptiveExecutor(),
            AdaptiveExecutor(),
        )

    async def run(self, host: str, port: int) -> TaskModels:
        """Join the server's run and return the models at its end: of all tasks, for `personal` of its own.

        When the connection is lost, this worker comes back and goes on, for as long as `max_wait` allows
        without a round that is made.

        Raises
        ------
        AuthenticationError
            The server could not prove who it is, or asks for a proof that this worker cannot give.
        LinkError
            The server cannot be reached, or was lost.
        PeerError
            The server refused this worker or failed, and said why.
        WaitError
            The server did not answer in time.
        IntegrityError
            What was decoded is not what the other workers computed.
        """
        tls, clock = self._security.channels(host), asyncio.get_running_loop().time
        self._made_progress()
        with single_threaded():
            while True:
                left = max(0.0, self._end - clock())
                connection = await connect(host, port, lambda: self._connection(tls), left)
                log.info(
                    "worker %s: connected to %s", self._options.name, connection.peer, extra=self._about()
                )
                try:
                    return await self._take_part(connection)
                except AsyncDMTLError as error:
                    await connection.fail(error)
                    if not self._may_return(connection, error) or self._gives_up(error):
                        raise
                    log.warning("worker %s: %s; trying again", self._options.name, error, extra=self._about())
                except Exception as error:
                    await connection.fail(AsyncDMTLError(f"internal error: {error!r}"))
                    raise
                finally:
                    await self._feed.stop()
                    self._stop_hearing()
                    await connection.close()
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_RETRY_PAUSE)

    @property
    def trained_with(self) -> tuple[Encoding, Settings]:
        """How the run encoded rows, and what it trained; known once `run` has returned."""
        return self._replica.trained_with

    def _may_return(self, connection: Connection, error: AsyncDMTLError) -> bool:
        """Whether only the connection failed, or the server said that this worker may come back."""
        if isinstance(error, PeerError):
            return connection.worker_may_return
        if isinstance(error, LinkError):
            return True
        # Bytes were corrupted, or nothing was heard; but a stranger that never welcomed us is no server.
        silent = isinstance(error, WaitError) and error.option == "--silence-timeout"
        known = self._replica.run is not None
        return known and (silent or isinstance(error, RemoteProtocolError | IntegrityError))

    def _gives_up(self, error: AsyncDMTLError) -> bool:
        """Whether there is no time left to come back, which begins when one is lost who had welcomed us."""
        if self._welcomed and not isinstance(error, PeerError) and self._losses < MOST_LOSSES:
            self._losses += 1
            self._end = asyncio.get_running_loop().time() + self._options.max_wait
        self._welcomed = False
        return asyncio.get_running_loop().time() + self._pause > self._end

    def _made_progress(self) -> None:
        self._end = asyncio.get_running_loop().time() + self._options.max_wait
        self._pause, self._losses = FIRST_RETRY_PAUSE, 0

    def _connection(self, tls: Callable[[], TLSChannel] | None) -> Connection:
        options = self._options
        return Connection("worker", self._ledger, options.silence_timeout, options.name, tls=tls)

    async def _take_part(self, connection: Connection) -> TaskModels:
        replica, limit = self._replica, self._options.start_timeout
        await self._join(connection)
        message: Message = await connection.receive((JoinGroup, Assign), limit, "--start-timeout")
        if isinstance(message, JoinGroup):
            await self._tune(connection, message)
            message = await connection.receive((Assign,), limit, "--start-timeout")
        plan = -1
        while True:
            following: Message | None
            if isinstance(message, Assign):
                plan = message.plan
                following = await self._follow(connection, message)
            elif isinstance(message, Downlink):
                following = await self._step(connection, plan, message)
            else:
                return replica.models()
            if following is None:
                following = await (self._leave if replica.over else self._compute)(connection, plan)
            message = following

    async def _join(self, connection: Connection) -> None:
        """Greet the server, declare the partitions, and encode them when it is known how."""
        options, replica = self._options, self._replica
        hello = Hello(VERSION, options.name, options.silence_timeout)
        welcome = await greet_server(connection, hello, self._security.secret, options.silence_timeout)
        self._welcomed = True
        if replica.run not in (None, welcome.run):
            log.warning(
                "worker %s: the server makes another run now, %s: starting anew", options.name, welcome.run,
                extra=self._about(),
            )  # fmt: skip
        try:
            replica.enter(welcome.run, Settings.from_dict(welcome.settings))
        except UsageError as error:
            raise RemoteProtocolError(
                f"{connection.peer} sent settings that break a rule: {error}"
            ) from error
        declared = await asyncio.to_thread(replica.declare)
        machine = await asyncio.to_thread(Machine.here, replica.arithmetic)
        await self._send(connection, Declare(declared, *replica.standing(), machine))
        prepare = await connection.receive((Prepare,), options.start_timeout, "--start-timeout")
        try:
            encoding = Encoding.from_dict(prepare.encoding)
        except UsageError as error:
            raise RemoteProtocolError(
                f"{connection.peer} sent an encoding that breaks a rule: {error}"
            ) from error
        await self._send(connection, Ready(await asyncio.to_thread(replica.encode, encoding)))

    async def _tune(self, connection: Connection, tune: JoinGroup) -> None:
        """Listen to the group, if it can be heard here, and tell the server."""
        reason = ""
        try:
            self._ear = MulticastClient(connection, tune, self._options.interface)
            if not await self._ear.hears():
                reason = f"nothing was heard of the group {tune.address} at {connection.local}"
        except (LinkError, UsageError) as error:
            reason = str(error)
        if reason:
            log.warning("worker %s: %s", self._options.name, reason, extra=self._about())
            self._stop_hearing()
        await self._send(connection, JoinedGroup(reason))

    def _stop_hearing(self) -> None:
        if self._ear is not None:
            log.info("worker %s: the group: %s", self._options.name, self._ear.heard, extra=self._about())
            self._ear.close()
            self._ear = None

    async def _follow(self, connection: Connection, assign: Assign) -> Assign | None:
        """Follow a plan, with the state that the server says; None, or a newer plan that came meanwhile."""
        replica, session = self._replica, connection.session
        await self._feed.stop()
        side = await asyncio.to_thread(replica.prepare, assign)
        session.body_limit = max(side.received_bytes, side.trainer.problem.state_bytes)
        if self._ear is not None:
            await self._ear.follow(assign.plan, side)
        if assign.first == StateTransfer.TAKE:
            message = await self._ask(connection, [AwaitRestore(assign.plan)], Restore)
            if isinstance(message, Assign):
                return message
            replica.take(side, assign, message)
            self._made_progress()
            return None
        replica.keep(side, assign)
        return await self._give(connection, assign.plan) if assign.first == StateTransfer.GIVE else None

    async def _give(self, connection: Connection, plan: int) -> Assign | None:
        """Tell the server the state of the training; or the newer plan that came meanwhile."""
        if (newer := connection.take(Assign)) is not None:
            return newer
        state = self._replica.state()
        await self._send(connection, Snapshot(plan, self._replica.round, digest(state), state))
        return None

    async def _compute(self, connection: Connection, plan: int) -> Downlink | Assign:
        """Make this worker's part of a round; what the server answers: the downlink, or a newer plan.

        Heartbeats go on while threads compute.
        """
        sent = await self._computing.do(self._replica.compute)
        if self._ear is not None:
            self._ear.begin(self._replica.round)
        told, round_ = (sent.losses, sent.penalty, sent.residual), self._replica.round
        first, *others = (rows.reshape(-1) for rows in sent.rows)
        uplink = Uplink(plan, round_, b"".join(sent.digests), *told, first, sent.size - first.nbytes)
        more = [MoreRows(plan, round_, (rows,)) for rows in others if rows.nbytes]
        if (newer := connection.take(Assign)) is not None:
            return newer
        side, ear = self._replica.side, self._ear
        ear = ear if ear is not None and ear.follows else None
        in_step = side.streams and (ear is not None or side.received_bytes > 0)
        await self._feed.begin(connection, [uplink, *more], ear, in_step=in_step)
        limit = self._options.round_timeout
        return await connection.receive((Downlink, Assign), limit, "--round-timeout")

    async def _step(self, connection: Connection, plan: int, downlink: Downlink) -> Assign | None:
        """Apply what came down, and tell the server the new state if it wants that."""
        replica = self._replica
        if (downlink.plan, downlink.round) != (plan, replica.round):
            raise RemoteProtocolError(
                f"{connection.peer} sent round {downlink.round} of plan {downlink.plan} "
                f"in round {replica.round} of plan {plan}"
            )
        if (newer := await self._receive_rows(connection, downlink)) is not None:
            return newer
        await self._applying.do(replica.apply, downlink)
        self._made_progress()
        log.debug("worker %s: round %d done", self._options.name, downlink.round, extra=self._about())
        return await self._give(connection, plan) if downlink.then == AfterRound.GIVE else None

    async def _receive_rows(self, connection: Connection, downlink: Downlink) -> Assign | None:
        """Take in all rows of a round, range by range; or the newer plan that came meanwhile."""
        side, rows = self._replica.side, downlink.body
        if downlink.grouped:
            return await self._hear_rows(connection)
        if rows.nbytes + downlink.rest != side.received_bytes:
            raise RemoteProtocolError(
                f"{connection.peer} sends {rows.nbytes + downlink.rest} bytes of rows, "
                f"the plan says {side.received_bytes}"
            )
        for i in range(len(side.ranges)):
            if i and side.received_range(i):
                limit = self._options.round_timeout
                message: Assign | MoreRows = await connection.receive(
                    (MoreRows, Assign), limit, "--round-timeout"
                )
                if isinstance(message, Assign):
                    return message
                rows = message.body
            self._feed.received(i)
            await self._receiving.do(side.receive, i, rows)
        return None

    async def _hear_rows(self, connection: Connection) -> Assign | None:
        """Take in all rows of a round that come from the group; or the newer plan that came meanwhile."""
        side, ear = self._replica.side, self._ear
        if ear is None or not ear.follows_plan:
            raise RemoteProtocolError(f"{connection.peer} sends rows to a group that is not listened to")
        limit = self._options.round_timeout
        newer = asyncio.create_task(connection.receive((Assign,), limit, "--round-timeout"))
        try:
            for i in range(len(side.ranges)):
                if not ear.has(i):
                    there = asyncio.create_task(ear.complete(i))
                    await asyncio.wait((newer, there), return_when=asyncio.FIRST_COMPLETED)
                    there.cancel()
                if newer.done():
                    following = newer.result()
                    if not self._counts(following) or not all(map(ear.has, range(i, len(side.ranges)))):
                        return following
                await self._receiving.do(side.receive, i, ear.hand_out(i))
        finally:
            newer.cancel()
            await asyncio.wait([newer])
        if newer.cancelled():
            return None
        following = newer.result()
        if self._counts(following):
            connection.put_back(following)
            return None
        return following

    def _counts(self, newer: Assign) -> bool:
        """Whether the round that is made here counts under a newer plan: its rows are to be applied."""
        return newer.round > self._replica.round

    async def _leave(self, connection: Connection, plan: int) -> Finish | Assign:
        """Say that the training is over; the server's goodbye, or a plan by which others get the models."""
        return await self._ask(connection, [Done(plan, self._replica.models_digest())], Finish)

    async def _ask(
        self, connection: Connection, messages: Sequence[Message], answer: type[Answer]
    ) -> Answer | Assign:
        """Send messages and receive the answer; or the newer plan that makes them pointless."""
        if (newer := connection.take(Assign)) is not None:
            return newer
        for message in messages:
            connection.write(message)
        await connection.drain(self._options.round_timeout, "--round-timeout")
        return await connection.receive((answer, Assign), self._options.round_timeout, "--round-timeout")

    async def _send(self, connection: Connection, message: Message) -> None:
        await connection.send(message, self._options.round_timeout, "--round-timeout")

    def _about(self) -> dict[str, object]:
        """What a log line carries as fields."""
        replica = self._replica
        run = {} if replica.run is None else {"run": replica.run, "round": replica.round}
        return {**run, "worker": self._options.name}
