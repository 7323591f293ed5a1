"""Replanning: a new plan for the workers that are present, and the state from which they continue."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import IntegrityError, LinkError, UsageError
from asyncdmtl.plan.building import forwarded
from asyncdmtl.plan.plan import Plan
from asyncdmtl.server.assignment import Assignment, make_assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.events import Planned, Waiting
from asyncdmtl.server.member import Member
from asyncdmtl.server.peer_rows import PeerRowsServer
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.state_handover import StateHandover
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.wants import unserved

log = logging.getLogger(__name__)

# A blind run fails if workers decoded wrong vectors under this number of plans of one round, although the
# server compared all masked rows with their digests. Bytes may be corrupted on the way now and then.
MOST_MISLED_PLANS = 5

# Seconds to wait for workers that decoded wrong vectors, so that the next plan has them: they connect again
# at once.
MISLED_SECONDS = 1.0


class Replanner:
    """Makes a new plan for the workers that are present, whenever one is needed.

    Parameters
    ----------
    peers : Peers
    progress : TrainingProgress
    believed : BelievedStates
    rows : PeerRowsServer, optional
        The exchange of rows between workers.

    Attributes
    ----------
    assignment : Assignment or None
        The last assignment.
    states : StateHandover
    """

    def __init__(
        self,
        peers: Peers,
        progress: TrainingProgress,
        believed: BelievedStates,
        rows: PeerRowsServer | None = None,
    ) -> None:
        self.assignment: Assignment | None = None
        self._rows = rows
        self.states = StateHandover(peers, progress, believed)
        self._believed = believed
        self._peers = peers
        self._progress = progress
        # The round in which workers decoded wrong vectors, and after how many plans of it.
        self._misled = (-1, 0)

    async def replan(self, patience: float) -> Assignment:
        """Plan for the workers that are present, and give all of them the same state of the training.

        Parameters
        ----------
        patience : float
            Seconds to wait for workers that hold the partitions which no present worker holds.

        Raises
        ------
        LinkError
            No such worker came.
        UsageError
            No worker that is present wants any models.
        IntegrityError
            Some worker of a blind run sends wrong rows, which the server cannot tell from right ones.
        """
        progress = self._progress
        while True:
            await self.lose_gone()
            self._serve_lacking()
            self._count_misled()
            await self._refuse_unserved()
            await self._wait_for_misled()
            members = await self._assemble(patience)
            self._peers.membership.pace.begin_plan()
            origin = self._believed.latest(members)
            progress.go_on_from(origin)
            assignment = await self._plan(members)
            progress.plans += 1
            self.assignment = assignment
            # While the server decodes updates only to check them, the run's strategy stays what it was.
            if not progress.checked:
                progress.strategy = assignment.strategy.name
            progress.trainer = assignment.side.trainer
            self._report_plan(assignment)
            if self._rows is not None:
                vectors = len(assignment.plan.units.holders) if isinstance(assignment.plan, Plan) else 0
                self._rows.listen_to(members, vectors, assignment.side.down_vector_bytes)
            try:
                await self.states.hand_out(assignment, origin)
            except ReplanError:
                continue
            finally:
                self._peers.membership.pace.note_plan()
            return assignment

    async def ended(self) -> Assignment | None:
        """The last assignment, if the run has ended and nobody who is here can be given the final models.

        Then those who are here are told so.
        """
        members = self._peers.membership.present(held=True)
        if self._progress.ending is None or self._ended(members):
            return None
        for member in members:
            told = "the run is over, and no worker is left that has its final models"
            await self._peers.membership.lose(member, LinkError(told, peer=member.name), back=False)
        return await self._plan(())

    async def last_state(self) -> Bytes | None:
        """The state of the training, if a member sends it soon. The current round is given up."""
        return None if self.assignment is None else await self.states.last_state(self.assignment)

    async def _plan(self, members: Sequence[Member]) -> Assignment:
        """An assignment of these members. After the last round nothing is coded, so an old plan suffices."""
        number = self._progress.plans
        if self.assignment is not None and self._progress.over and self.assignment.suits(members):
            return replace(self.assignment, number=number, members=tuple(members))
        return await asyncio.to_thread(make_assignment, number, members, self._progress)

    async def lose_gone(self) -> None:
        """Lose the members whose connections ended while the server did not wait for their answers."""
        for member in () if self.assignment is None else self.assignment.members:
            if member.lost is None and member.connection.failure is not None:
                await self._peers.lose(member, member.connection.failure)

    async def _wait_for_misled(self) -> None:
        """Wait a moment until workers that decoded wrong vectors are back."""
        membership, misled = self._peers.membership, self._peers.misled
        clock = asyncio.get_running_loop().time
        end = clock() + MISLED_SECONDS
        while misled - {m.name for m in membership.present(held=True)} and (left := end - clock()) > 0:
            await membership.change(left)
        misled.clear()

    def _serve_lacking(self) -> None:
        """Serve the workers that could not get all rows, unless the reason is that others are gone."""
        lacking, self._peers.lacking = self._peers.lacking, {}
        others = () if self.assignment is None else self.assignment.members
        for member, message in lacking.items():
            member.round, member.over = message.round, False
            member.state = (self._believed.check(message.round) or b"") if message.round else b""
            if self._rows is not None and not any(other.gone for other in others):
                self._rows.serve(member, message)

    def _count_misled(self) -> None:
        """Raise IntegrityError if a blind run comes no further, since some worker sends wrong rows."""
        progress = self._progress
        if not progress.blind or not self._peers.misled:
            return
        round_, count = self._misled
        self._misled = progress.round, (count + 1 if round_ == progress.round else 1)
        if self._misled[1] >= MOST_MISLED_PLANS:
            raise IntegrityError(
                f"workers decoded wrong vectors under {MOST_MISLED_PLANS} plans of one round: a worker tells "
                "a MAC that is not that of its rows, and a blind server cannot tell which",
                partitions=[],
                workers=sorted(self._peers.misled),
            )

    async def _refuse_unserved(self) -> None:
        """Refuse the workers that this run cannot give what they want, once its updates are known."""
        progress, membership = self._progress, self._peers.membership
        present = {member.name: member for member in membership.present()}
        wants = {name: member.wants for name, member in present.items()}
        for name, error in unserved(wants, progress.strategy, progress.problem.update).items():
            progress.note(name, type(error).__name__, str(error))
            await membership.lose(present[name], error, back=False)

    async def _assemble(self, patience: float) -> list[Member]:
        """The present workers, once they hold every partition and a state that is recent enough."""
        membership = self._peers.membership
        clock = asyncio.get_running_loop().time
        end: float | None = None
        while True:
            members = self._present()
            missing = [] if self._ended(members) else self._missing(members)
            wanted = any(not member.helps for member in members)
            few = [] if missing else _few_copies(self._progress, len(membership.members), members)
            if not missing and not few and wanted and self._up_to_date(members):
                return members
            if end is None:
                end = clock() + patience
                self._report_waiting(missing or few, patience)
            if clock() >= end or membership.hopeless(missing):
                if missing:
                    raise membership.no_holder(missing)
                if not wanted:
                    rule = "cannot be none at every worker: the models would end nowhere"
                    raise UsageError("--wants", rule, [member.name for member in members])
                return members
            await membership.change(end - clock())

    def _present(self) -> list[Member]:
        """The workers that take part: all that are here, if they are needed or all rounds are made."""
        members = self._peers.membership.present()
        enough = not self._missing(members) and any(not member.helps for member in members)
        return members if enough and not self._progress.over else self._peers.membership.present(held=True)

    def _ended(self, members: Sequence[Member]) -> bool:
        """Whether all rounds are made and a member has the result, so that any members suffice."""
        return bool(members) and self._progress.over and self._believed.latest(members).over

    def _missing(self, members: Sequence[Member]) -> list[str]:
        """The partitions without a trusted holder among these members."""
        distrusted = self._progress.distrusted
        held = {name for m in members for name in m.partitions if (m.name, name) not in distrusted}
        return [info.id for info in self._progress.problem.infos if info.id not in held]

    def _up_to_date(self, members: Sequence[Member]) -> bool:
        """Whether at most one round must be made again, or no absent worker can have a later state."""
        here = {member.name for member in members}
        assignment = () if self.assignment is None else self.assignment.members
        absent = [member for member in assignment if member.name not in here and not member.ended]
        return not absent or self._believed.latest(members).round >= self._progress.round - 1

    def _report_plan(self, assignment: Assignment) -> None:
        progress = self._progress
        helpers = [k for k, member in enumerate(assignment.members) if member.helps]
        progress.emit(
            Planned(
                number=assignment.number,
                round=progress.round,
                workers=tuple(member.name for member in assignment.members),
                strategy=assignment.strategy.name,
                uplink_load=str(assignment.plan.uplink_load),
                downlink_load=str(assignment.plan.downlink_load),
                uplink_bound=str(assignment.plan.uplink_bound),
                downlink_bound=str(assignment.plan.downlink_bound),
                uncoded_uplink_load=str(len(assignment.plan.placement.partitions)),
                uncoded_downlink_load=str(len(forwarded(assignment.plan.placement, helpers))),
                subpackets=assignment.plan.subpackets,
                listeners=assignment.listeners,
                network=assignment.network,
            )
        )
        log.info(
            "run %s round %d: plan %d, %s, for %d workers",
            progress.run, progress.round, assignment.number, assignment.strategy.name,
            len(assignment.members),
            extra={"run": progress.run, "round": progress.round, "plan": assignment.number},
        )  # fmt: skip

    def _report_waiting(self, missing: Sequence[str], patience: float) -> None:
        run, round_ = self._progress.run, self._progress.round
        self._progress.emit(Waiting(round_, tuple(missing), patience))
        log.warning(
            "run %s round %d: waiting up to %g s for %s", run, round_, patience,
            f"holders of {list(missing)}" if missing else "workers that have the state of the training",
            extra={"run": run, "round": round_},
        )  # fmt: skip


def _few_copies(progress: TrainingProgress, joined: int, members: Sequence[Member]) -> list[str]:
    """The partitions of which a run that tolerates silent workers has too few copies for its first plan.

    None, if all workers that have `joined` are here: then there is nobody to wait for.
    """
    if progress.plans or not progress.silent or progress.ending is not None or joined <= len(members):
        return []
    copies = Counter(name for member in members for name in member.partitions)
    return [info.id for info in progress.problem.infos if copies[info.id] <= progress.silent]
