"""The server's side of a run: which plan holds, and what is sent on in every round."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.errors import (
    AsyncDMTLError,
    DisagreementError,
    IntegrityError,
    LinkError,
    RemoteProtocolError,
)
from asyncdmtl.exchange import DIGEST_BYTES, Sent, ServerSide
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.learning.training import Problem, single_threaded
from asyncdmtl.linear_exchange import LinearServerSide
from asyncdmtl.plan.compare import Candidate, cheapest, compare
from asyncdmtl.plan.linear import make_linear_plan
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipes import AnyPlan, recipe_and_digest
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import Assign, Done, Downlink, Finish, Message, Uplink
from asyncdmtl.runtime.kernel import KernelCount
from asyncdmtl.runtime.records import Incident, RoundRecord, RunOptions, RunRecord
from asyncdmtl.runtime.roster import Event, Member, Roster
from asyncdmtl.runtime.transport import format_address, listen

log = logging.getLogger(__name__)

# Below this many bytes a round is combined on the event loop: a thread would cost more than the work.
OFF_LOOP = 1 << 20

# A worker whose updates differ from those of other holders so often is done without.
MOST_DISAGREEMENTS = 3


@dataclass(frozen=True, eq=False)
class Lineup:
    """Who takes part from some round on, under which plan; `number` counts the plans of a run."""

    number: int
    members: tuple[Member, ...]
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    side: ServerSide | LinearServerSide


class _SetbackError(Exception):
    """The round must be done again, with another lineup."""


class Coordinator:
    """Runs one training from the first greeting to the last goodbye.

    A worker that is lost, or whose updates differ from those of other holders, does not end the run while
    the others still hold every partition: a new plan is made for them, and they send the round again.

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
        self._rounds: list[RoundRecord] = []
        self._incidents: list[Incident] = []
        self._lost: dict[str, AsyncDMTLError] = {}
        self._distrusted: set[tuple[str, str]] = set()
        self._roster = Roster(
            self._run,
            options.settings.as_dict(),
            workers=options.workers,
            cover=options.cover,
            join_timeout=options.join_timeout,
            silence_timeout=options.silence_timeout,
            ledger=self._ledger,
            emit=emit,
        )

    async def run(self, host: str, port: int) -> RunRecord:
        """Listen on an address, train with the workers that join, and return what it cost.

        Raises
        ------
        LinkError
            The address cannot be had, or the workers that are left do not hold every partition.
        WaitError
            Workers did not join in time.
        PlacementError
            Those that joined lack a partition that must be covered.
        IntegrityError
            Workers ended with different models.
        """
        server = await listen(host, port, self._roster.accept)
        try:
            address = server.sockets[0].getsockname()[:2]
            self._emit({"event": "listening", "run": self._run, "host": address[0], "port": address[1]})
            log.info("run %s: listening on %s", self._run, format_address(*address))
            infos = await self._roster.complete()
            with single_threaded():
                return await self._train(infos)
        except AsyncDMTLError as error:
            await self._roster.tell_all(error)
            raise
        except Exception as error:
            await self._roster.tell_all(AsyncDMTLError(f"internal error: {error!r}"))
            raise
        except asyncio.CancelledError:
            await self._roster.tell_all(AsyncDMTLError("the server was stopped"))
            raise
        finally:
            server.close()
            await self._roster.close()

    async def _train(self, infos: tuple[PartitionInfo, ...]) -> RunRecord:
        problem = Problem(self._options.settings, infos)
        lineup = await self._line_up(problem, 0, None)
        began = time.perf_counter()
        while len(self._rounds) < self._options.settings.rounds:
            try:
                await self._round(len(self._rounds), lineup)
            except _SetbackError:
                lineup = await self._line_up(problem, len(self._rounds), lineup)
        await self._finish(lineup)
        return RunRecord(
            self._run,
            self._options.settings,
            lineup.plan,
            lineup.candidates,
            problem,
            lineup.side.vector_bytes,
            lineup.side.broadcast_bytes,
            tuple(self._rounds),
            self._ledger,
            self._kernel_counts(),
            tuple(self._incidents),
            time.perf_counter() - began,
        )

    async def _line_up(self, problem: Problem, round_: int, previous: Lineup | None) -> Lineup:
        """Plan for the workers that are left, and let them know.

        Raises LinkError if they do not hold every partition.
        """
        names = sorted((name for name in self._roster.members if name not in self._lost), key=natural_key)
        members = tuple(self._roster.members[name] for name in names)
        stored = {
            member.name: [
                info.id for info in member.partitions if (member.name, info.id) not in self._distrusted
            ]
            for member in members
        }
        self._check_cover(problem, stored)
        placement = Placement(stored, [info.id for info in problem.infos])
        candidates = await asyncio.to_thread(compare, placement, problem.task_of)
        plan = await asyncio.to_thread(self._plan, placement, problem, candidates)
        number = 0 if previous is None else previous.number + 1
        lineup = Lineup(number, members, plan, candidates, _side(plan, problem, previous))
        self._emit(
            {
                "event": "planned",
                "number": number,
                "round": round_,
                "workers": names,
                "strategy": plan.strategy if isinstance(plan, Plan) else "linear",
                "uplink_load": str(plan.uplink_load),
                "downlink_load": str(plan.downlink_load),
                "subpackets": plan.subpackets,
            }
        )
        assign = Assign(number, round_, *recipe_and_digest(plan), problem.infos)
        for position, member in enumerate(members):
            session = member.connection.session
            # An uplink for the plan before may still be on its way, and be longer.
            session.body_limit = max(session.body_limit, lineup.side.uplink_bytes(position))
        await self._send_all(dict.fromkeys(members, assign))
        return lineup

    def _check_cover(self, problem: Problem, stored: Mapping[str, Sequence[str]]) -> None:
        held = {name for names in stored.values() for name in names}
        missing = [info.id for info in problem.infos if info.id not in held]
        if not missing:
            return
        were = {
            worker: [info.id for info in self._roster.members[worker].partitions if info.id in missing]
            for worker in self._lost
        }
        told = "; ".join(
            f"worker {worker!r} held {parts} ({self._lost[worker]})"
            for worker, parts in were.items()
            if parts
        )
        raise LinkError(f"nobody is left who holds the partitions {missing}: {told}", peer=", ".join(were))

    def _plan(self, placement: Placement, problem: Problem, candidates: tuple[Candidate, ...]) -> AnyPlan:
        strategy: Any = self._options.strategy
        if strategy == "linear":
            return make_linear_plan(placement, problem.linear_target)
        if strategy == "auto":
            strategy = cheapest(candidates, "unicast").strategy
        return make_plan(placement, strategy, tasks=problem.task_of)

    async def _round(self, round_: int, lineup: Lineup) -> None:
        began = time.perf_counter()
        side = lineup.side
        received = await asyncio.gather(
            *(self._uplink(round_, lineup, position) for position in range(len(lineup.members))),
            return_exceptions=True,
        )
        sent = await self._present(round_, lineup, received)
        try:
            if sum(part.rows.nbytes for part in sent) + side.broadcast_bytes < OFF_LOOP:
                replies = side.combine(sent)
            else:
                replies = await asyncio.to_thread(side.combine, sent)
        except DisagreementError as error:
            await self._distrust(round_, lineup, error)
            raise _SetbackError from error
        last = round_ + 1 == self._options.settings.rounds
        await self._send_all(
            {
                member: Downlink(lineup.number, round_, last, reply.digest, reply.rows)
                for member, reply in zip(lineup.members, replies, strict=True)
            }
        )
        self._record(round_, side.objective(sent), time.perf_counter() - began)

    def _record(self, round_: int, objective: float, seconds: float) -> None:
        up, down = (self._ledger.round_bytes(round_, direction) for direction in ("up", "down"))
        record = RoundRecord(round_, objective, up, down, seconds)
        self._rounds.append(record)
        self._emit({"event": "round", **vars(record)})
        log.info(
            "run %s round %d: %d bytes up, %d bytes down, %.3f s, objective %.9g",
            self._run, round_, up, down, seconds, objective,
        )  # fmt: skip

    async def _uplink(self, round_: int, lineup: Lineup, position: int) -> Sent:
        connection = lineup.members[position].connection
        uplink = await connection.receive((Uplink,), self._options.round_timeout, "--round-timeout")
        if (uplink.plan, uplink.round) != (lineup.number, round_):
            raise RemoteProtocolError(
                f"{connection.peer} sent round {uplink.round} of plan {uplink.plan} "
                f"in round {round_} of plan {lineup.number}"
            )
        digests = tuple(
            uplink.digests[start : start + DIGEST_BYTES]
            for start in range(0, len(uplink.digests), DIGEST_BYTES)
        )
        sent = Sent(uplink.body, digests, uplink.losses, uplink.penalty)
        lineup.side.check(position, sent)
        return sent

    async def _present(
        self, round_: int, lineup: Lineup, received: Sequence[Sent | BaseException]
    ) -> list[Sent]:
        """What all members sent; a setback if one of them is lost."""
        sent = []
        for member, part in zip(lineup.members, received, strict=True):
            if isinstance(part, AsyncDMTLError):
                await self._lose(round_, member, part)
            elif isinstance(part, BaseException):
                raise part
            else:
                sent.append(part)
        if len(sent) < len(received):
            raise _SetbackError
        return sent

    async def _lose(self, round_: int, member: Member, error: AsyncDMTLError) -> None:
        """Go on without a worker."""
        self._lost[member.name] = error
        self._note(round_, member.name, str(error))
        await member.connection.fail(error)

    async def _distrust(self, round_: int, lineup: Lineup, error: DisagreementError) -> None:
        """Treat odd holders as not holding what they differ in; a worker that differs often is lost."""
        for worker, partitions in error.odd.items():
            self._distrusted.update((worker, partition) for partition in partitions)
            self._note(
                round_, worker, f"computed other updates of {list(partitions)} than their other holders"
            )
            times = sum(incident.worker == worker for incident in self._incidents)
            if times >= MOST_DISAGREEMENTS:
                await self._lose(round_, self._roster.members[worker], error)

    def _note(self, round_: int, worker: str, reason: str) -> None:
        self._incidents.append(Incident(round_, worker, reason))
        self._emit({"event": "incident", "round": round_, "worker": worker, "reason": reason})
        log.warning("run %s round %d: worker %s: %s", self._run, round_, worker, reason)

    async def _finish(self, lineup: Lineup) -> None:
        limit, option = self._options.round_timeout, "--round-timeout"
        done = await asyncio.gather(
            *(member.connection.receive((Done,), limit, option) for member in lineup.members),
            return_exceptions=True,
        )
        digests: dict[int, bytes] = {}
        for position, (member, message) in enumerate(zip(lineup.members, done, strict=True)):
            if isinstance(message, Done):
                digests[position] = message.digest
            elif isinstance(message, AsyncDMTLError):
                await self._lose(len(self._rounds), member, message)
            else:
                raise message
        if not digests:
            raise LinkError("all workers were lost after the last round", peer=", ".join(self._lost))
        if not lineup.side.models_agree(digests):
            raise IntegrityError(
                "workers ended with different models; this is a defect of asyncdmtl",
                partitions=[],
                workers=[lineup.members[position].name for position in digests],
            )
        await self._send_all({lineup.members[position]: Finish() for position in digests})

    async def _send_all(self, messages: Mapping[Member, Message]) -> None:
        """Send each member its message. Who cannot take it is lost, which shows when it should answer."""
        limit, option = self._options.round_timeout, "--round-timeout"
        results = await asyncio.gather(
            *(member.connection.send(message, limit, option) for member, message in messages.items()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, AsyncDMTLError):
                raise result

    def _kernel_counts(self) -> dict[str, KernelCount]:
        counts = {name: member.connection.kernel_count() for name, member in self._roster.members.items()}
        return {name: count for name, count in counts.items() if count is not None}


def _side(plan: AnyPlan, problem: Problem, previous: Lineup | None) -> ServerSide | LinearServerSide:
    """The server's side under a plan, with the models of the side before, if the server has them."""
    if not isinstance(plan, Plan):
        return LinearServerSide(plan, problem)
    before = previous.side if previous is not None else None
    return ServerSide(plan, problem, before.trainer if isinstance(before, ServerSide) else None)
