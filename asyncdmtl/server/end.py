"""The end of a run: all workers report that they have the final models, and hear that all others do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from asyncdmtl.protocol.messages.registry import Done, Finish
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.conclusion import conclude, note_missing_tests
from asyncdmtl.server.ending import Ending
from asyncdmtl.server.faults import Faults
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.replanning import Replanner
from asyncdmtl.server.training_progress import TrainingProgress


class RunEnd:
    """Ends a run once all workers have the final models, those included that were lost shortly before.

    Parameters
    ----------
    progress : TrainingProgress
    peers : Peers
    replanner : Replanner
    states : BelievedStates
    faults : Faults
    writer : CheckpointWriter or None
    """

    def __init__(
        self,
        progress: TrainingProgress,
        peers: Peers,
        replanner: Replanner,
        states: BelievedStates,
        faults: Faults,
        writer: CheckpointWriter | None,
    ) -> None:
        self._progress = progress
        self._peers = peers
        self._replanner = replanner
        self._states = states
        self._faults = faults
        self._writer = writer
        # What members reported at the end, by name; some of them may be gone.
        self._reports: dict[str, tuple[Member, Done]] = {}

    async def complete(self, assignment: Assignment, silence: float) -> None:
        """Check that all members have the same models, and tell them that the run is over.

        Parameters
        ----------
        assignment : Assignment
        silence : float
            Seconds of silence after which a member counts as lost, as for `Absent.until`.

        Raises
        ------
        ReplanError
            A worker still lacks the models.
        """
        receive = self._peers.receive_past_rows if assignment.plan.silent else self._peers.receive
        here = [member for member in assignment.members if member.current]
        done = await self._peers.hear({member: receive(member, Done) for member in here})
        async with self._faults.repeatable(assignment):
            expected = assignment.side.expected_checks(final=True)
            holders = [member for member in done if not member.helps]
            if expected is not None:
                expected = [expected[assignment.position(member)] for member in holders]
            self._states.confirm({member.name: done[member].digest for member in holders}, expected)
        if not done:
            raise ReplanError
        # The server that finds the end in a checkpoint has the reports from there.
        if self._progress.ending is None or self._reports:
            await self._conclude(assignment, done)
        if await self._returning(silence):
            raise ReplanError
        if self._reports:
            note_missing_tests(self._progress)
        await self._peers.send_all(dict.fromkeys(done, Finish(self._progress.critical_strength)))

    async def _conclude(self, assignment: Assignment, done: Mapping[Member, Done]) -> None:
        """Record the end of the run, in a checkpoint, too: from here on workers may end, and be gone."""
        progress = self._progress
        self._reports |= {member.name: (member, message) for member, message in done.items()}
        conclude(progress, dict(self._reports.values()))
        before = {} if progress.ending is None else progress.ending.workers
        progress.ending = Ending(
            b"" if progress.trainer is not None else self._states.check(progress.round) or b"",
            progress.outcome,
            progress.critical_strength,
            dict(progress.tests),
            {**before, **{member.name: (member.partitions, member.wants) for member in assignment.members}},
        )
        if self._writer is not None:
            await self._writer.save(None if progress.trainer is None else progress.trainer.state())

    async def _returning(self, silence: float) -> bool:
        """Whether a worker that lacks the final models is present, or comes back for them soon."""
        membership, clock = self._peers.membership, asyncio.get_running_loop().time
        while not membership.newcomers(held=True):
            # Those that reported the end, but will not hear that all have, may come back as well.
            await self._replanner.lose_gone()
            end = self._peers.absent.until(membership.members.values(), silence)
            if (left := end - clock()) <= 0:
                return False
            await membership.change(left)
        return True
