"""A worker's side of a run: join, then compute, send, receive and step in every round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncdmtl.errors import AsyncDMTLError, PlanError, RemoteProtocolError, UsageError
from asyncdmtl.exchange import WorkerSide
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import Problem, Settings, Trainer, single_threaded
from asyncdmtl.linear_exchange import LinearWorkerSide
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.recipes import rebuild
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import (
    VERSION,
    Assign,
    Declare,
    Done,
    Downlink,
    Finish,
    Hello,
    Uplink,
    Welcome,
)
from asyncdmtl.runtime.transport import LONGEST_WAIT, Connection, check_positive, connect

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker takes part.

    Attributes
    ----------
    name : str
        Unique among the workers of a run.
    max_wait : float
        Seconds to wait for a server that is not up yet.
    start_timeout, round_timeout, silence_timeout : float
        Seconds: for the run to start, for the downlink, and for a sign of life from the server.
    """

    name: str
    max_wait: float = 60.0
    start_timeout: float = 3600.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0

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


class Participant:
    """One worker in one run.

    Parameters
    ----------
    options : WorkerOptions
    partitions : sequence of Partition
        Those that are stored here; none of their rows is ever sent.
    """

    def __init__(self, options: WorkerOptions, partitions: Sequence[Partition]) -> None:
        self._options = options
        self._partitions = {partition.id: partition for partition in partitions}
        self._ledger = Ledger()

    async def run(self, host: str, port: int) -> TaskModels:
        """Join the server's run and return the models at its end: of all tasks, for `personal` of its own.

        Raises
        ------
        LinkError
            The server cannot be reached, or was lost.
        PeerError
            The server refused this worker or failed, and said why.
        WaitError
            The server did not answer in time.
        IntegrityError
            What was decoded is not what the other workers computed.
        """
        connection = await connect(host, port, self._connection, self._options.max_wait)
        log.info("worker %s: connected to %s", self._options.name, connection.peer)
        try:
            with single_threaded():
                return await self._take_part(connection)
        except AsyncDMTLError as error:
            await connection.fail(error)
            raise
        except Exception as error:
            await connection.fail(AsyncDMTLError(f"internal error: {error!r}"))
            raise
        finally:
            await connection.close()

    def _connection(self) -> Connection:
        return Connection("worker", self._ledger, self._options.silence_timeout, self._options.name)

    async def _take_part(self, connection: Connection) -> TaskModels:
        options = self._options
        await connection.send(
            Hello(VERSION, options.name, options.silence_timeout),
            options.silence_timeout,
            "--silence-timeout",
        )
        welcome = await connection.receive((Welcome,), options.silence_timeout, "--silence-timeout")
        try:
            settings = Settings.from_dict(welcome.settings)
        except UsageError as error:
            raise RemoteProtocolError(
                f"{connection.peer} sent settings that break a rule: {error}"
            ) from error
        infos = await asyncio.to_thread(
            lambda: tuple(
                p.info(settings.loss, intercept=settings.intercept) for p in self._partitions.values()
            )
        )
        await connection.send(Declare(infos), options.round_timeout, "--round-timeout")
        assign = await connection.receive((Assign,), options.start_timeout, "--start-timeout")
        side = await self._follow(connection, settings, assign, None)
        last = False
        round_ = assign.round
        while not last:
            message = await self._round(connection, assign.plan, round_, side)
            if isinstance(message, Assign):
                assign = message
                if assign.round != round_:
                    raise RemoteProtocolError(f"{connection.peer} plans for round {assign.round} in {round_}")
                side = await self._follow(connection, settings, assign, side)
                continue
            await asyncio.to_thread(side.apply, message.body, message.digest)
            log.debug("worker %s: round %d done", options.name, round_)
            last = message.last
            round_ += 1
        await connection.send(Done(side.models_digest()), options.round_timeout, "--round-timeout")
        await connection.receive((Finish,), options.round_timeout, "--round-timeout")
        return side.models()

    async def _follow(
        self,
        connection: Connection,
        settings: Settings,
        assign: Assign,
        before: WorkerSide | LinearWorkerSide | None,
    ) -> WorkerSide | LinearWorkerSide:
        """Prepare for a plan, and go on from the models so far."""
        side = await asyncio.to_thread(self._prepare, settings, assign)
        if before is not None:
            side.trainer.W[:] = before.trainer.W
        connection.session.body_limit = side.received_bytes
        return side

    def _prepare(self, settings: Settings, assign: Assign) -> WorkerSide | LinearWorkerSide:
        """All that the plan determines: matrices, tables, buffers."""
        plan = rebuild(assign.recipe, assign.digest)
        placement = plan.placement
        if self._options.name not in placement.workers:
            raise PlanError(f"the plan has no worker {self._options.name!r}")
        worker = placement.workers.index(self._options.name)
        if placement.partitions != tuple(info.id for info in assign.partitions):
            raise RemoteProtocolError("plan and partitions do not fit each other")
        own = {n: placement.partitions[n] for n in placement.stored[worker]}
        if unknown := [name for name in own.values() if name not in self._partitions]:
            raise PlanError(f"the plan has partitions at {self._options.name!r} that are not here: {unknown}")
        problem = Problem(settings, assign.partitions)
        if isinstance(plan, Plan) and problem.task_of != plan.tasks:
            raise RemoteProtocolError("plan and tasks do not fit each other")
        stored: Mapping[int, Partition] = {n: self._partitions[name] for n, name in own.items()}
        trainer = Trainer(problem, stored)
        if isinstance(plan, Plan):
            return WorkerSide(plan, worker, trainer)
        return LinearWorkerSide(plan, worker, trainer)

    async def _round(
        self, connection: Connection, plan: int, round_: int, side: WorkerSide | LinearWorkerSide
    ) -> Downlink | Assign:
        """Compute and send a round; what the server answers: the downlink, or a new plan for the same round.

        Heartbeats go on while threads compute.
        """
        sent = await asyncio.to_thread(side.compute)
        # A plan that came meanwhile makes this uplink pointless.
        if (assign := connection.take(Assign)) is not None:
            return assign
        limit, option = self._options.round_timeout, "--round-timeout"
        uplink = Uplink(plan, round_, b"".join(sent.digests), sent.losses, sent.penalty, sent.rows)
        await connection.send(uplink, limit, option)
        message = await connection.receive((Downlink, Assign), limit, option)
        assert isinstance(message, Downlink | Assign)
        if isinstance(message, Downlink) and (message.plan, message.round) != (plan, round_):
            raise RemoteProtocolError(
                f"{connection.peer} sent round {message.round} of plan {message.plan} "
                f"in round {round_} of plan {plan}"
            )
        return message
