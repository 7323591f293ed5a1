"""The server's side of a run: who joins, which plan holds, and what is sent on in every round."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.errors import (
    AsyncDMTLError,
    DataError,
    IntegrityError,
    PlacementError,
    RemoteProtocolError,
    UsageError,
    WaitError,
)
from asyncdmtl.exchange import DIGEST_BYTES, Reply, Sent, ServerSide
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.learning.training import Problem, Settings, single_threaded
from asyncdmtl.linear_exchange import LinearServerSide
from asyncdmtl.plan.compare import Candidate, cheapest, compare
from asyncdmtl.plan.linear import make_linear_plan
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.plan.plan import CHOICES, Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipes import AnyPlan, recipe_and_digest
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import Assign, Declare, Done, Downlink, Finish, Hello, Uplink, Welcome
from asyncdmtl.runtime.kernel import KernelCount
from asyncdmtl.runtime.transport import Connection, check_positive, format_address, listen

log = logging.getLogger(__name__)

Event = dict[str, Any]

# Below this many bytes a round is combined on the event loop: a thread would cost more than the work.
OFF_LOOP = 1 << 20


@dataclass(frozen=True)
class RunOptions:
    """What a server is to run.

    Attributes
    ----------
    settings : Settings
    strategy : str
        One of `CHOICES`: a strategy, or "auto" for the exact one that is cheapest by unicast.
    workers : int or None
        Start when so many have joined.
    cover : tuple of str or None
        The partitions that exist: start when each has a holder, and let nobody declare others.
    join_timeout, round_timeout, silence_timeout : float
        Seconds: for all to join, for a worker's uplink, and for a sign of life from a worker.
    """

    settings: Settings
    strategy: str
    workers: int | None = None
    cover: tuple[str, ...] | None = None
    join_timeout: float = 300.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.strategy not in CHOICES:
            raise UsageError("--strategy", f"must be one of {', '.join(CHOICES)}", self.strategy)
        if self.strategy == "linear" and self.settings.aggregate != "mean":
            raise UsageError(
                "--strategy linear", "needs --aggregate mean, which is linear", self.settings.aggregate
            )
        if self.workers is None and self.cover is None:
            raise UsageError("--workers or --cover", "must say when to start", None)
        if self.workers is not None and self.workers < 1:
            raise UsageError("--workers", "must be at least 1", self.workers)
        check_positive(
            join_timeout=self.join_timeout,
            round_timeout=self.round_timeout,
            silence_timeout=self.silence_timeout,
        )


@dataclass(frozen=True)
class RoundRecord:
    """What one round took: wire bytes up and down, the objective at its beginning, seconds."""

    round: int
    objective: float
    up_bytes: int
    down_bytes: int
    seconds: float


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a finished run was and cost."""

    run: str
    settings: Settings
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    problem: Problem
    vector_bytes: int
    broadcast_bytes: int
    rounds: tuple[RoundRecord, ...]
    ledger: Ledger
    kernel: Mapping[str, KernelCount]
    seconds: float


@dataclass(eq=False)
class Member:
    """A worker that has joined."""

    name: str
    connection: Connection
    partitions: tuple[PartitionInfo, ...]
    position: int = field(default=-1)


class Coordinator:
    """Runs one training from the first greeting to the last goodbye.

    Parameters
    ----------
    options : RunOptions
    emit : callable
        Called with an event, a dict with the key "event", for each thing that an operator wants to know.
    """

    def __init__(self, options: RunOptions, emit: Callable[[Event], None]) -> None:
        self._options = options
        self._emit = emit
        self._run = secrets.token_hex(4)
        self._ledger = Ledger()
        self._members: dict[str, Member] = {}
        self._known: dict[str, PartitionInfo] = {}
        self._joined = asyncio.Event()
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._rounds: list[RoundRecord] = []

    async def run(self, host: str, port: int) -> RunRecord:
        """Listen on an address, train with the workers that join, and return what it cost.

        Raises
        ------
        LinkError
            The address cannot be had, or a worker was lost.
        WaitError
            Workers did not join, answer or live in time.
        PlacementError
            Those that joined lack a partition that must be covered.
        IntegrityError
            Workers computed or decoded different vectors.
        """
        server = await listen(host, port, self._accept)
        try:
            address = server.sockets[0].getsockname()[:2]
            self._emit({"event": "listening", "run": self._run, "host": address[0], "port": address[1]})
            log.info("run %s: listening on %s", self._run, format_address(*address))
            await self._wait_for_workers()
            self._started = True
            with single_threaded():
                return await self._train()
        except AsyncDMTLError as error:
            await self._tell_all(error)
            raise
        except Exception as error:
            await self._tell_all(AsyncDMTLError(f"internal error: {error!r}"))
            raise
        except asyncio.CancelledError:
            await self._tell_all(AsyncDMTLError("the server was stopped"))
            raise
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(member.connection.close() for member in self._members.values()))

    async def _tell_all(self, error: AsyncDMTLError) -> None:
        await asyncio.gather(*(member.connection.fail(error) for member in self._members.values()))

    def _accept(self) -> Connection:
        return Connection("server", self._ledger, self._options.silence_timeout, on_open=self._opened)

    def _opened(self, connection: Connection) -> None:
        task = asyncio.create_task(self._admit(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, connection: Connection) -> None:
        """Greet a worker and take it in, or tell it why not; nobody else notices either way."""
        limit, option = self._options.silence_timeout, "--silence-timeout"
        try:
            hello = await connection.receive(Hello, limit, option)
            if self._started:
                raise UsageError("worker", "must join before the run starts", hello.name)
            if hello.name in self._members:
                raise UsageError("--name", "must be unique; already joined", hello.name)
            await connection.send(Welcome(self._run, self._options.settings.as_dict()))
            declare = await connection.receive(Declare, self._options.join_timeout, "--join-timeout")
            self._check_declared(hello.name, declare.partitions)
        except AsyncDMTLError as error:
            log.warning("refused %s: %s", connection.peer, error)
            self._emit({"event": "refused", "worker": connection.session.worker, "reason": str(error)})
            await connection.fail(error)
            return
        member = Member(hello.name, connection, declare.partitions)
        self._members[member.name] = member
        self._known.update({info.id: info for info in declare.partitions})
        connection.on_lost = self._joined.set
        self._emit({"event": "joined", "worker": member.name, "partitions": len(member.partitions)})
        log.info("run %s: %s joined with %d partitions", self._run, connection.peer, len(member.partitions))
        self._joined.set()

    def _check_declared(self, name: str, partitions: tuple[PartitionInfo, ...]) -> None:
        if name in self._members:
            raise UsageError("--name", "must be unique; already joined", name)
        cover = self._options.cover
        for info in partitions:
            if cover is not None and info.id not in cover:
                raise PlacementError(f"worker {name!r}", "may store known partitions only; unknown", info.id)
            known = self._known.get(info.id)
            if known is not None and known != info:
                holders = [
                    member.name
                    for member in self._members.values()
                    if info.id in {other.id for other in member.partitions}
                ]
                raise DataError(
                    f"partition {info.id!r} of worker {name!r}",
                    f"must be the same data as at {', '.join(holders)} ({_describe(known)})",
                    _describe(info),
                )
        features = {info.features for info in (*self._known.values(), *partitions)}
        if len(features) > 1:
            raise DataError(f"worker {name!r}", "must store as many features as the others", sorted(features))

    async def _wait_for_workers(self) -> None:
        options = self._options
        try:
            async with asyncio.timeout(options.join_timeout):
                while not self._ready():
                    self._joined.clear()
                    await self._joined.wait()
                    self._drop_lost()
        except TimeoutError:
            raise WaitError(
                f"not all workers joined: {self._lacking()}",
                seconds=options.join_timeout,
                option="--join-timeout",
            ) from None
        if uncovered := self._uncovered():
            raise PlacementError(
                "placement", "must store every partition at some worker; without holder", uncovered
            )

    def _ready(self) -> bool:
        if self._options.workers is not None:
            return len(self._members) >= self._options.workers
        return not self._uncovered()

    def _uncovered(self) -> list[str]:
        return [name for name in self._options.cover or () if name not in self._known]

    def _lacking(self) -> str:
        joined = ", ".join(sorted(self._members, key=natural_key)) or "none"
        if self._options.workers is not None:
            return f"{len(self._members)} of {self._options.workers} are here ({joined})"
        return f"no holder of {self._uncovered()} is here (joined: {joined})"

    def _drop_lost(self) -> None:
        """Forget workers that left before the start; they may come again."""
        for member in [member for member in self._members.values() if member.connection.lost]:
            log.warning("run %s: %s left before the start", self._run, member.connection.peer)
            self._emit({"event": "left", "worker": member.name})
            del self._members[member.name]
        self._known = {info.id: info for member in self._members.values() for info in member.partitions}

    async def _train(self) -> RunRecord:
        began = time.perf_counter()
        members = [self._members[name] for name in sorted(self._members, key=natural_key)]
        infos = tuple(self._known[name] for name in sorted(self._known, key=natural_key))
        settings = self._options.settings
        problem = Problem(settings, infos)
        placement = Placement(
            {member.name: [info.id for info in member.partitions] for member in members},
            [info.id for info in infos],
        )
        candidates = await asyncio.to_thread(compare, placement, problem.task_of)
        plan = await asyncio.to_thread(self._plan, placement, problem, candidates)
        side = ServerSide(plan, problem) if isinstance(plan, Plan) else LinearServerSide(plan, problem)
        self._emit(
            {
                "event": "planned",
                "strategy": plan.strategy if isinstance(plan, Plan) else "linear",
                "uplink_load": str(plan.uplink_load),
                "downlink_load": str(plan.downlink_load),
                "subpackets": plan.subpackets,
            }
        )
        for position, member in enumerate(members):
            member.position = position
            member.connection.session.body_limit = side.uplink_bytes(position)
        assign = Assign(0, 0, *recipe_and_digest(plan), infos)
        await asyncio.gather(*(member.connection.send(assign) for member in members))
        for round_ in range(settings.rounds):
            await self._round(round_, members, side)
        await self._finish(members, side)
        return RunRecord(
            self._run,
            settings,
            plan,
            candidates,
            problem,
            side.vector_bytes,
            side.broadcast_bytes,
            tuple(self._rounds),
            self._ledger,
            {
                member.name: count
                for member in members
                if (count := member.connection.kernel_count()) is not None
            },
            time.perf_counter() - began,
        )

    def _plan(self, placement: Placement, problem: Problem, candidates: tuple[Candidate, ...]) -> AnyPlan:
        strategy: Any = self._options.strategy
        if strategy == "linear":
            return make_linear_plan(placement, problem.linear_target)
        if strategy == "auto":
            strategy = cheapest(candidates, "unicast").strategy
        return make_plan(placement, strategy, tasks=problem.task_of)

    async def _round(self, round_: int, members: list[Member], side: ServerSide | LinearServerSide) -> None:
        began = time.perf_counter()
        sent = await asyncio.gather(*(self._uplink(round_, member, side) for member in members))
        if sum(part.rows.nbytes for part in sent) + side.broadcast_bytes < OFF_LOOP:
            replies = side.combine(sent)
        else:
            replies = await asyncio.to_thread(side.combine, sent)
        last = round_ + 1 == self._options.settings.rounds
        await asyncio.gather(
            *(
                self._downlink(round_, member, reply, last)
                for member, reply in zip(members, replies, strict=True)
            )
        )
        up, down = (self._ledger.round_bytes(round_, direction) for direction in ("up", "down"))
        record = RoundRecord(round_, side.objective(sent), up, down, time.perf_counter() - began)
        self._rounds.append(record)
        self._emit({"event": "round", **vars(record)})
        log.info(
            "run %s round %d: %d bytes up, %d bytes down, %.3f s, objective %.9g",
            self._run, round_, up, down, record.seconds, record.objective,
        )  # fmt: skip

    async def _uplink(self, round_: int, member: Member, side: ServerSide | LinearServerSide) -> Sent:
        connection = member.connection
        uplink = await connection.receive(Uplink, self._options.round_timeout, "--round-timeout")
        if uplink.round != round_:
            raise RemoteProtocolError(f"{connection.peer} sent round {uplink.round} in round {round_}")
        digests = tuple(
            uplink.digests[start : start + DIGEST_BYTES]
            for start in range(0, len(uplink.digests), DIGEST_BYTES)
        )
        sent = Sent(uplink.body, digests, uplink.losses, uplink.penalty)
        side.check(member.position, sent)
        return sent

    async def _downlink(self, round_: int, member: Member, reply: Reply, last: bool) -> None:
        await member.connection.send(Downlink(0, round_, last, reply.digest, reply.rows))

    async def _finish(self, members: list[Member], side: ServerSide | LinearServerSide) -> None:
        limit, option = self._options.round_timeout, "--round-timeout"
        done = await asyncio.gather(*(member.connection.receive(Done, limit, option) for member in members))
        if not side.models_agree([message.digest for message in done]):
            raise IntegrityError(
                "workers ended with different models; this is a defect of asyncdmtl",
                partitions=[],
                workers=[member.name for member in members],
            )
        await asyncio.gather(*(member.connection.send(Finish()) for member in members))


def _describe(info: PartitionInfo) -> str:
    return f"task {info.task}, {info.rows} rows, {info.features} features, digest {info.digest.hex()[:12]}"
