"""A worker that takes part in a run whose server is played by a test, with rows from a run without a wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

from support.exchange import RoundExchange
from support.pairs import BODY_LIMIT, LIMIT, SILENCE, pair
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.multicast.datagrams import OVERHEAD, Layout, Stream
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.udp import GroupSender
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import Declare, Hello, Prepare, Ready, Welcome
from asyncdmtl.protocol.messages.multicast import JoinedGroup, JoinGroup
from asyncdmtl.protocol.messages.rounds import (
    AfterRound,
    Assign,
    Downlink,
    MoreRows,
    StateTransfer,
    Uplink,
)
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.reconnection import Reconnection
from asyncdmtl.worker.state import WorkerState

Wanted = TypeVar("Wanted", bound=Message)

PLACEMENT = Placement.cyclic(3, 6, 2)
SETTINGS = make_settings(dtype="float64", rounds=3)

# Numbers of features whose rows travel in one range, and in three.
ONE_RANGE, THREE_RANGES = 9, 12_000

KEY, NONCE, PIECE_BYTES = bytes(32), bytes(16), 1000


class Watcher(WorkerObserver):
    """Records the calls of a worker."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_settings(self, settings: Settings) -> None:
        self.seen.append(settings)

    def before_compute(self, round_: int) -> None:
        self.seen.append(("before", round_))

    def after_compute(self, round_: int, upload: Upload) -> None:
        self.seen.append(("after", round_))


class Run:
    """A worker `w0` that takes part in a run, and all other sides of the run.

    Attributes
    ----------
    server : Connection
        The server's end, which a test controls.
    exchange : RoundExchange
        The same run without a wire.
    part : Participation
    state : WorkerState
    task : Task of TaskModels
        The worker's participation, in progress.
    """

    def __init__(
        self, server: Connection, worker: Connection, features: int, state: WorkerState, limit: float
    ) -> None:
        self.partitions = make_partitions(6, "squared", features=features)
        self.exchange = RoundExchange(PLACEMENT, self.partitions, SETTINGS, "relay")
        self.server, self.worker, self.state = server, worker, state
        self.grouped = False
        self.watcher = Watcher()
        own = OwnPartitions([self.partitions[n] for n in PLACEMENT.stored[0]])
        reconnection = Reconnection(60.0, asyncio.get_running_loop().time)
        options = WorkerOptions("w0", round_timeout=limit, silence_timeout=SILENCE)
        self.part = Participation(worker, options, own, state, reconnection, self.watcher)
        self.task: asyncio.Task[TaskModels] = asyncio.create_task(self.part.run(None))

    async def hear(self, kind: type[Wanted]) -> Wanted:
        return await self.server.receive((kind,), *LIMIT)

    async def say(self, message: Message) -> None:
        await self.server.send(message, *LIMIT)

    async def welcome(self) -> Declare:
        """Bring the worker to the state in which it waits for the first plan; return its declaration."""
        await self.hear(Hello)
        await self.say(Welcome("run", SETTINGS.as_dict(), SILENCE))
        declared = await self.hear(Declare)
        await self.say(Prepare(Encoding.empty().as_dict()))
        await self.hear(Ready)
        self.server.session.body_limit = BODY_LIMIT
        return declared

    async def assign(
        self, number: int = 0, first: StateTransfer = StateTransfer.KEEP, round_: int = 0
    ) -> None:
        """Assign the plan under a number."""
        recipe, check = recipe_and_digest(self.exchange.plan)
        infos = tuple(part.info(SETTINGS) for part in self.partitions)
        await self.say(
            Assign(number, round_, False, first, recipe, check, infos, self.grouped, detailed=True)
        )

    async def join_group(self, sender: GroupSender) -> None:
        """Let the worker join a group, and send probes until it reports. Later plans are for the group."""
        self.grouped = True
        await self.say(JoinGroup(sender.group.address, sender.group.port, KEY, NONCE, PIECE_BYTES))
        datagram = memoryview(bytearray(PIECE_BYTES + OVERHEAD))
        Stream.of_probe(KEY, NONCE).seal(0, 0, memoryview(bytes(PIECE_BYTES)), datagram)
        joined = asyncio.create_task(self.hear(JoinedGroup))
        while not joined.done():
            await sender.send(DatagramBlock(datagram, len(datagram), 1))
            await asyncio.wait([joined], timeout=0.05)
        assert joined.result().reason == ""

    async def broadcast(self, sender: GroupSender, number: int, plan: int = 0) -> bytes:
        """Compute a round, and send its rows to the group; the digest of the worker's downlink."""
        server, side = self.exchange.server, self.exchange.workers[0]
        assert side.group_plan is not None
        sent = self.exchange.up()
        assert await self.uplink() == [rows.tobytes() for rows in sent[0].rows]
        replies = self.exchange.combine(sent, False)
        layout = Layout(side.ranges[-1].stop, side.ranges[0].stop, PIECE_BYTES)
        stream = Stream.of_round(KEY, plan, side.group_plan.digest, number)
        rows = [server.block(i).copy() for i in range(layout.ranges)]
        own = {"w0": Solver.of(side.group_plan, 0).own}
        broadcast = Broadcast(stream, layout, rows, side.group_plan.seed, own)
        for _ in range(layout.ranges):
            for block in broadcast.next_range():
                await sender.send(block)
        check = server.digest(0)
        self.exchange.down(replies)
        return check

    async def uplink(self) -> list[bytes]:
        """The worker's rows, range by range."""
        up = await self.hear(Uplink)
        rows = [up.body.tobytes()]
        while sum(map(len, rows)) < up.body.nbytes + up.rest:
            rows.append((await self.hear(MoreRows)).body.tobytes())
        return rows

    async def round(self, number: int, then: AfterRound, plan: int = 0) -> None:
        """Make a round: the worker's rows are those of its side without a wire."""
        sent = self.exchange.up()
        assert await self.uplink() == [rows.tobytes() for rows in sent[0].rows]
        replies = self.exchange.combine(sent, then is AfterRound.END)
        first, *others = replies[0]
        rest = sum(map(len, others))
        check = self.exchange.server.digest(0)
        await self.say(Downlink(plan, number, then, check, (first,), rest=rest))
        for rows in others:
            await self.say(MoreRows(plan, number, (rows,)))
        self.exchange.down(replies)


@contextlib.asynccontextmanager
async def participating(
    features: int = ONE_RANGE, state: WorkerState | None = None, round_timeout: float = LIMIT[0]
) -> AsyncIterator[Run]:
    async with pair() as (server, worker):
        made = Run(server, worker, features, state or WorkerState("w0"), round_timeout)
        try:
            yield made
        finally:
            made.task.cancel()
            await asyncio.wait([made.task])
            await made.part.close()
