"""Lining up: who takes part in the next rounds, under which plan, all with the same state of the training."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import digest
from asyncdmtl.errors import AsyncDMTLError, IntegrityError, RemoteProtocolError
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import (
    Assign,
    AwaitRestore,
    Message,
    Restore,
    Snapshot,
    StateTransfer,
)
from asyncdmtl.protocol.state_table import State
from asyncdmtl.server.assignment import Assignment, make_assignment
from asyncdmtl.server.events import Planned, Waiting
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.training_state import TrainingState, farthest

log = logging.getLogger(__name__)

# Seconds for the last state, when the server is stopped.
LAST_STATE = 2.0


class Replanner:
    """Lines up those who are present.

    Parameters
    ----------
    peers : Peers
    progress : TrainingProgress

    Attributes
    ----------
    assignment : Assignment or None
        The last one.
    """

    def __init__(self, peers: Peers, progress: TrainingProgress) -> None:
        self.assignment: Assignment | None = None
        self._peers = peers
        self._progress = progress

    async def line_up(self, patience: float) -> Assignment:
        """Plan for those who are present, and let them all have the same state of the training.

        If nobody is there who holds some partition, this waits for one, for `patience` seconds at the most.

        Raises
        ------
        LinkError
            Nobody came.
        """
        progress = self._progress
        while True:
            await self._notice()
            members = await self._assemble(patience)
            base = self._base(members)
            progress.go_on_from(base)
            assignment = await self._planned(members)
            progress.plans += 1
            self.assignment, progress.strategy = assignment, assignment.strategy.name
            progress.trainer = assignment.side.trainer
            self._tell(assignment)
            try:
                await self._hand_out(assignment, base)
            except ReplanError:
                continue
            return assignment

    async def _planned(self, members: Sequence[Member]) -> Assignment:
        """An assignment of these. After the last round a plan is only a name for it,an old one will do."""
        number = self._progress.plans
        if self.assignment is not None and self._progress.over and self.assignment.suits(members):
            return replace(self.assignment, number=number, members=tuple(members))
        return await asyncio.to_thread(make_assignment, number, members, self._progress)

    async def snapshot(self, giver: Member) -> Bytes:
        """The state of the training, from a member that was told to give it.

        Raises
        ------
        IntegrityError
            It was corrupted on its way.
        RemoteProtocolError
            It is that of something else.
        WaitError, LinkError, PeerError
            It did not come.
        """
        snapshot = await self._peers.receive(giver, Snapshot)
        peer, size = giver.connection.peer, snapshot.body.nbytes
        if (snapshot.round, size) != (self._progress.round, self._progress.problem.state_bytes):
            raise RemoteProtocolError(f"{peer} gave a state of {size} bytes of round {snapshot.round}")
        if digest(snapshot.body) != snapshot.digest:
            told = f"the state that {peer} gave was corrupted on its way"
            raise IntegrityError(told, partitions=[], workers=[giver.name])
        return snapshot.body

    async def last_state(self) -> Bytes | None:
        """The state of the training, if a member tells it soon; the round that is being made is given up."""
        assignment = self.assignment
        if assignment is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_STATE):
                for member in assignment.members:
                    computing = member.connection.session.state in (State.COMPUTING, State.UPLINK_SENT)
                    if computing and member.current and not member.gone:
                        self._progress.plans += 1
                        with contextlib.suppress(AsyncDMTLError):
                            await self._assign(assignment, {member: StateTransfer.GIVE})
                            return await self.snapshot(member)
        return None

    async def _notice(self) -> None:
        """See who is gone though nobody waited for an answer."""
        for member in () if self.assignment is None else self.assignment.members:
            if member.lost is None and member.connection.failure is not None:
                await self._peers.lose(member, member.connection.failure)

    async def _assemble(self, patience: float) -> list[Member]:
        """Those who are present, once they hold every partition and a state that is not old."""
        membership = self._peers.membership
        clock = asyncio.get_running_loop().time
        end: float | None = None
        while True:
            members = membership.present()
            missing = [] if self._ended(members) else self._missing(members)
            if not missing and self._up_to_date(members):
                return members
            if end is None:
                end = clock() + patience
                self._tell_waiting(missing, patience)
            if clock() >= end or membership.hopeless(missing):
                if missing:
                    raise membership.no_holder(missing)
                return members
            await membership.change(end - clock())

    def _ended(self, members: Sequence[Member]) -> bool:
        """Whether all is computed, and somebody of these has the end of it: then any of them will do."""
        suited = bool(members) and self.assignment is not None and self.assignment.suits(members)
        return suited and self._progress.over and self._base(members).over

    def _missing(self, members: Sequence[Member]) -> list[str]:
        distrusted = self._progress.distrusted
        held = {name for m in members for name in m.partitions if (m.name, name) not in distrusted}
        return [info.id for info in self._progress.problem.infos if info.id not in held]

    def _up_to_date(self, members: Sequence[Member]) -> bool:
        """Whether not more than a round must be made again, or all who may know better are here or ended."""
        here = {member.name for member in members}
        assignment = () if self.assignment is None else self.assignment.members
        absent = [member for member in assignment if member.name not in here and not member.ended]
        return not absent or self._base(members).round >= self._progress.round - 1

    def _base(self, members: Sequence[Member]) -> TrainingState:
        """The state to go on from: that of the round, if somebody has it; else the farthest that there is."""
        progress = self._progress
        current = tuple(member for member in members if member.current)
        if progress.trainer is not None:
            state = progress.trainer.state()
            return TrainingState(progress.round, progress.over, current, state, digest(state))
        if current:
            return TrainingState(progress.round, progress.over, current)
        return farthest(members, progress.saved, progress.problem.settings.rounds)

    async def _hand_out(self, assignment: Assignment, base: TrainingState) -> None:
        """Let all know the plan, and have the state; ReplanError if one of them is lost."""
        keep, take = StateTransfer.KEEP, StateTransfer.TAKE
        first = {member: keep if member in base.keepers else take for member in assignment.members}
        takers = [member for member, what in first.items() if what is take]
        giver = base.keepers[0] if takers and base.state is None else None
        if giver is not None:
            first[giver] = StateTransfer.GIVE
        await self._assign(assignment, first)
        state = base.state
        if giver is not None:
            (state,) = await self._peers.ask_all({giver: self._given(giver, base)})
        if takers:
            assert state is not None
            restore = Restore(digest(state), state)
            await self._peers.ask_all({taker: self._restore(taker, restore) for taker in takers})
        for member in assignment.members:
            member.current = True

    async def _assign(self, assignment: Assignment, first: Mapping[Member, StateTransfer]) -> None:
        """Hand out the plan, under the number of the last that was made, with what to do first."""
        progress = self._progress
        recipe, plan_digest = recipe_and_digest(assignment.plan)
        messages: dict[Member, Message] = {}
        for member, what in first.items():
            session, position = member.connection.session, assignment.position(member)
            # What was sent for the plan before may still be on its way, and be longer.
            needed = max(assignment.side.uplink_bytes(position), progress.problem.state_bytes)
            session.body_limit = max(session.body_limit, needed)
            messages[member] = Assign(
                progress.plans - 1,
                progress.round,
                progress.over,
                what,
                recipe,
                plan_digest,
                progress.problem.infos,
                grouped=bool(assignment.listeners),
            )
        await self._peers.send_all(messages)

    async def _given(self, giver: Member, base: TrainingState) -> Bytes:
        state = await self.snapshot(giver)
        if base.digest and digest(state) != base.digest:
            raise RemoteProtocolError(f"{giver.connection.peer} gave another state than it said it has")
        return state

    async def _restore(self, taker: Member, restore: Restore) -> None:
        await self._peers.receive(taker, AwaitRestore)
        await self._peers.send(taker, restore)

    def _tell(self, assignment: Assignment) -> None:
        self._progress.emit(
            Planned(
                number=assignment.number,
                round=self._progress.round,
                workers=tuple(member.name for member in assignment.members),
                strategy=assignment.strategy.name,
                uplink_load=str(assignment.plan.uplink_load),
                downlink_load=str(assignment.plan.downlink_load),
                subpackets=assignment.plan.subpackets,
                listeners=assignment.listeners,
                network=assignment.network,
            )
        )
        log.info(
            "run %s round %d: plan %d, %s, for %d workers",
            self._progress.run, self._progress.round, assignment.number, assignment.strategy.name,
            len(assignment.members),
            extra={"run": self._progress.run, "round": self._progress.round, "plan": assignment.number},
        )  # fmt: skip

    def _tell_waiting(self, missing: Sequence[str], patience: float) -> None:
        run, round_ = self._progress.run, self._progress.round
        self._progress.emit(Waiting(round_, tuple(missing), patience))
        log.warning(
            "run %s round %d: waiting up to %g s for %s", run, round_, patience,
            f"holders of {list(missing)}" if missing else "those who have the state of the training",
            extra={"run": run, "round": round_},
        )  # fmt: skip
