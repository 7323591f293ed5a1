"""The rounds of a run at the server.

The server assigns a plan to the workers that are present, makes rounds until a worker is lost or joins, and
then assigns a new plan, until the training is over. When an assignment begins, a worker that lacks the state
of the training receives it. So each worker applies every round exactly once, even if it reconnects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import AfterRound
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.downlink_choice import better_downlink
from asyncdmtl.server.end import RunEnd
from asyncdmtl.server.events import MeasuredSpeed, SpeedsMeasured
from asyncdmtl.server.faults import Faults
from asyncdmtl.server.lateness import Lateness
from asyncdmtl.server.link_speeds import ROUNDS_MEASURED
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.peer_rows import PeerRowsServer
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.records import RoundRecord, RunOptions
from asyncdmtl.server.replanning import Replanner
from asyncdmtl.server.row_transfer import RoundTransfer, RowTransfer
from asyncdmtl.server.state_requests import StateRequests
from asyncdmtl.server.training_progress import TrainingProgress

log = logging.getLogger(__name__)


class Rounds:
    """Makes the rounds of one run.

    Parameters
    ----------
    options : RunOptions
    progress : TrainingProgress
    peers : Peers
    ledger : Ledger
    writer : CheckpointWriter, optional
        Writes checkpoints; without it there are none.
    multicast : MulticastServer, optional
    rows : PeerRowsServer, optional
        The exchange of rows between workers.
    """

    def __init__(
        self,
        options: RunOptions,
        progress: TrainingProgress,
        peers: Peers,
        ledger: Ledger,
        writer: CheckpointWriter | None = None,
        multicast: MulticastServer | None = None,
        rows: PeerRowsServer | None = None,
    ) -> None:
        self._options = options
        self._progress = progress
        self._peers = peers
        self._ledger = ledger
        self._writer = writer
        states = BelievedStates(progress)
        self._replanner = Replanner(peers, progress, states, rows)
        self._requests = StateRequests(progress, peers, states, Lateness())
        self._transfer = RowTransfer(peers, states, self._requests, multicast)
        self._faults = Faults(progress, peers)
        # Whether a checkpoint is due whose state no member was asked for yet.
        self._due = False
        self._combining = False
        self._end = RunEnd(progress, peers, self._replanner, states, self._faults, writer)

    async def make(self, patience: float) -> Assignment:
        """Make all remaining rounds, and return the last assignment.

        Parameters
        ----------
        patience : float
            Seconds to wait, before the first plan, for workers that together hold every partition.

        Raises
        ------
        LinkError
            No worker holds some partition any more, and none came in time.
        StateError
            Workers hold different states of the training, and none has a majority.
        IntegrityError
            Updates were corrupted in too many rounds in a row.
        """
        progress = self._progress
        while True:
            begun = progress.plans > 0
            if (ended := await self._replanner.ended()) is not None:
                return ended
            assignment = await self._replanner.replan(patience)
            self._requests.forget()
            patience = self._options.rejoin_timeout
            if self._writer is not None and not begun:
                await self._writer.save(None)
            try:
                while not progress.over and not self._peers.membership.newcomers():
                    await self._round(assignment)
                    gone = any(member.gone for member in assignment.members)
                    if gone or self._learns_speeds(assignment):
                        break
                # A new plan must reach workers after they have all rows of this round, as it does over TCP.
                await self._transfer.settle(self._options.round_timeout)
                if progress.over:
                    self._leave_behind()
                    await self._end.complete(assignment, self._options.silence_timeout)
                    return assignment
            except ReplanError:
                self._combining = False
                continue
            finally:
                await self._transfer.stop_multicast()
                self._leave_behind()

    def _learns_speeds(self, assignment: Assignment) -> bool:
        """Whether measured speeds are to be planned for from now on, because that saves time."""
        progress, speeds, pace = self._progress, self._transfer.speeds, self._peers.membership.pace
        if not progress.links.learned or progress.over or progress.round % ROUNDS_MEASURED:
            return False
        progress.emit(SpeedsMeasured(progress.round, speeds.measured()))
        left = progress.problem.rounds - progress.round
        found = speeds.better(
            assignment.plan, assignment.side.vector_bytes, left, pace.plan_seconds, progress.links.speeds
        )
        if found is None and assignment.downlink is not None and assignment.carried:
            workers = assignment.plan.placement.workers
            measured = speeds.both_ways(workers)
            if measured is not None and better_downlink(assignment.downlink, *measured):
                found = (
                    dict(zip(workers, measured[0], strict=True)),
                    dict(zip(workers, measured[1], strict=True)),
                )
        if found is None:
            return False
        up, down = found
        progress.links = replace(progress.links, speeds=up, down_speeds=down)
        told = ", ".join(f"{worker} {float(up[worker]):g} up {float(down[worker]):g} down" for worker in up)
        log.info(
            "run %s round %d: a new plan follows the speeds of the links, in Mbit/s: %s",
            progress.run, progress.round, told, extra={"run": progress.run, "round": progress.round},
        )  # fmt: skip
        return True

    @property
    def measured_speeds(self) -> Mapping[str, MeasuredSpeed]:
        """As `LinkSpeeds.measured`."""
        return self._transfer.speeds.measured()

    def _leave_behind(self) -> None:
        """Let the next plan give the state of the training to late workers that lack rounds."""
        for member in self._transfer.lateness.leave_behind():
            member.current = False

    @property
    def uplink_seconds(self) -> Mapping[str, float]:
        """As `RowTransfer.uplink_seconds`."""
        return self._transfer.uplink_seconds

    @property
    def lateness(self) -> Lateness:
        """As `RowTransfer.lateness`."""
        return self._transfer.lateness

    async def stop(self) -> None:
        """Give up the current round, and write a last checkpoint."""
        if self._writer is None or self._combining:
            return
        trainer = self._progress.trainer
        state = trainer.state() if trainer is not None else await self._replanner.last_state()
        if state is not None:
            await self._writer.save(state)

    async def _round(self, assignment: Assignment) -> None:
        """Make one round; ReplanError if it must be made again under another plan."""
        began, side, progress = time.perf_counter(), assignment.side, self._progress
        number = progress.round
        async with self._faults.repeatable(assignment), self._transfer.round(assignment, number) as transfer:
            if transfer.over:
                progress.over = True
                return
            if self._writer is not None:
                await self._requests.save(self._writer)
            objective, residual, reached = side.convergence(transfer.uploads)
            last = reached or number + 1 == progress.problem.rounds
            if self._writer is not None and (number + 1) % self._options.checkpoint_every == 0:
                self._due = True
            givers = [] if last else self._givers(assignment, transfer)
            then = {member: _after_round(last, member in givers) for member in assignment.members}
            # If the server is stopped while it aggregates, the state of its models is undefined.
            self._combining = not side.streams
            async for i in transfer.ranges(last):
                if i + 1 == len(side.down_ranges):
                    # From here on the round's result is certain, although no worker has all of it yet.
                    progress.round, progress.over, self._combining = number + 1, last, False
                transfer.send(i, then)
        up, down = (self._ledger.round_bytes(number, direction) for direction in ("up", "down"))
        seconds = time.perf_counter() - began
        self._peers.membership.pace.note_round(seconds)
        arrived = transfer.arrived - began
        progress.record(RoundRecord(number, objective, residual, up, down, seconds, arrived))
        if not last:
            await self._ask_for_state(assignment, givers)

    def _givers(self, assignment: Assignment, transfer: RoundTransfer) -> Sequence[Member]:
        """The members that are asked for their states after this round, while no other request is open.

        Under a plan that tolerates S silent workers, S + 1 are asked where a late worker needs a state: until
        it has one, the plan does without it. A checkpoint can wait.
        """
        if self._progress.trainer is not None or self._requests.is_open(self._progress.round):
            return ()
        if self._waiting(assignment):
            return transfer.on_time[: 1 + assignment.plan.silent]
        return transfer.on_time[:1] if self._due else ()

    def _waiting(self, assignment: Assignment) -> Sequence[Member]:
        """The late members that need the state of the training."""
        return self._transfer.lateness.waiting if assignment.plan.silent else ()

    async def _ask_for_state(self, assignment: Assignment, givers: Sequence[Member]) -> None:
        """Ask for the state that a checkpoint or late members need, if the server lacks it."""
        progress, writer = self._progress, self._writer
        if progress.trainer is not None:
            for member in self._waiting(assignment):
                self._requests.catch_up(member, progress.trainer.state(), progress.round)
            if writer is not None and self._due:
                self._due = False
                await writer.save(progress.trainer.state())
        elif givers:
            checkpoint = writer.prepare() if writer is not None and self._due else None
            self._requests.ask(givers, self._waiting(assignment), checkpoint)
            self._due = False
            if not assignment.plan.silent:
                (giver,) = givers
                await self._peers.ask_all({giver: self._requests.answered(giver)})


def _after_round(last: bool, gives: bool) -> AfterRound:
    """The order to a worker after a round: the round is the `last`, or the worker `gives` its state."""
    return AfterRound.END if last else AfterRound.GIVE if gives else AfterRound.GO_ON
