"""The rounds of a run, as the server makes them: what comes up is checked, combined, and sent down.

The server assigns a plan to the workers that are present, makes rounds until a worker is lost or comes, and
assigns a new plan, until the training is over. A worker that lacks the state of the training is given it when
an assignment begins, so each worker applies every round once, whatever has become of its connections.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import DisagreementError, IntegrityError
from asyncdmtl.exchange.coded import Upload
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Done, Finish
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.member import Member
from asyncdmtl.server.multicast import MulticastServer
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.progress import Progress
from asyncdmtl.server.records import RoundRecord, RunOptions
from asyncdmtl.server.replanning import Replanner
from asyncdmtl.server.row_transfer import RowTransfer

# A worker whose updates differ from those of other holders so often is done without; and a run is given up
# when updates are corrupted on their way so many times in a row.
MOST_DISAGREEMENTS = 3
MOST_CORRUPTED = 10

# Seconds in which a worker that was lost shortly before the end may come back for its models.
LINGER = 1.0


class Rounds:
    """Makes the rounds of one run.

    Parameters
    ----------
    options : RunOptions
    progress : Progress
    peers : Peers
    ledger : Ledger
    save : callable, optional
        Awaited when where the training stands should be written down, with its state; None if that is the
        one before the first round.
    station : MulticastServer, optional
    """

    def __init__(
        self,
        options: RunOptions,
        progress: Progress,
        peers: Peers,
        ledger: Ledger,
        save: Callable[[Bytes | None], Awaitable[None]] | None,
        station: MulticastServer | None = None,
    ) -> None:
        self._options = options
        self._progress = progress
        self._peers = peers
        self._ledger = ledger
        self._save = save
        self._replanner = Replanner(peers, progress)
        self._transfer = RowTransfer(peers, station)
        self._disagreements: dict[str, int] = {}
        self._corrupted = 0
        self._combining = False

    async def make(self, patience: float) -> Assignment:
        """Make all rounds that are left; the last assignment.

        Parameters
        ----------
        patience : float
            Seconds to wait until those who are present hold every partition, the first time.

        Raises
        ------
        LinkError
            Nobody is left who holds some partition, and nobody came.
        IntegrityError
            Workers ended with different models, or updates were corrupted again and again.
        """
        progress = self._progress
        while True:
            begun = progress.plans > 0
            assignment = await self._replanner.line_up(patience)
            patience = self._options.rejoin_timeout
            if self._save is not None and not begun:
                await self._save(None)
            try:
                while not progress.over and not self._peers.membership.newcomers():
                    await self._round(assignment)
                # A new plan is for those who have this round; over TCP it comes after the rows.
                await self._transfer.settle(self._options.round_timeout)
                if progress.over:
                    await self._finish(assignment)
                    return assignment
            except ReplanError:
                continue
            finally:
                await self._transfer.hush()

    async def stop(self) -> None:
        """Give up the round that is being made, and have the state of the training written down."""
        if self._save is None or self._combining:
            return
        trainer = self._progress.trainer
        state = trainer.state() if trainer is not None else await self._replanner.last_state()
        if state is not None:
            await self._save(state)

    async def _round(self, assignment: Assignment) -> None:
        began, side, progress = time.perf_counter(), assignment.side, self._progress
        made = progress.round
        sent = await self._transfer.begin(assignment, made)
        objective, residual = side.objective(sent), side.residual(sent)
        last = side.converged(sent) or made + 1 == self._options.settings.rounds
        due = self._save is not None and (made + 1) % self._options.checkpoint_every == 0 and not last
        giver = assignment.members[0] if due and progress.trainer is None else None
        await self._carry(assignment, sent, last, giver)
        up, down = (self._ledger.round_bytes(made, direction) for direction in ("up", "down"))
        progress.record(RoundRecord(made, objective, residual, up, down, time.perf_counter() - began))
        if self._save is not None and due:
            if giver is not None:
                (state,) = await self._peers.ask_all({giver: self._replanner.snapshot(giver)})
            else:
                assert progress.trainer is not None
                state = progress.trainer.state()
            await self._save(state)

    async def _carry(
        self, assignment: Assignment, sent: Sequence[Upload], last: bool, giver: Member | None
    ) -> None:
        """Let all members have what comes of the round; ReplanError if updates differ or were corrupted."""
        progress, made = self._progress, self._progress.round

        def end() -> None:
            progress.round, progress.over, self._combining = made + 1, last, False

        then = {member: _then(last, member is giver) for member in assignment.members}
        # If the server is stopped while it aggregates, nobody knows where its models stand.
        self._combining = not assignment.side.streams
        try:
            await self._transfer.carry(assignment, made, sent, then, last, end)
            self._corrupted = 0
            return
        except DisagreementError as error:
            await self._distrust(assignment, error)
        except IntegrityError as error:
            self._corrupted += 1
            if self._corrupted >= MOST_CORRUPTED:
                raise
            self._progress.note("", type(error).__name__, str(error))
        finally:
            self._combining = False
        raise ReplanError

    async def _distrust(self, assignment: Assignment, error: DisagreementError) -> None:
        """Treat odd holders as not holding what they differ in; a worker that differs often is lost."""
        members = {member.name: member for member in assignment.members}
        for worker, partitions in error.odd.items():
            self._progress.distrusted.update((worker, partition) for partition in partitions)
            reason = f"computed other updates of {list(partitions)} than their other holders"
            self._progress.note(worker, type(error).__name__, reason)
            self._disagreements[worker] = self._disagreements.get(worker, 0) + 1
            if self._disagreements[worker] >= MOST_DISAGREEMENTS:
                await self._peers.lose(members[worker], error)

    async def _finish(self, assignment: Assignment) -> None:
        """See that all have the same models, and let them go; ReplanError if somebody still lacks them."""
        done = await self._peers.hear(
            {member: self._peers.receive(member, Done) for member in assignment.members}
        )
        digests = {assignment.position(member): message.digest for member, message in done.items()}
        if await self._somebody_returns() or not digests:
            raise ReplanError
        if not assignment.side.models_agree(digests):
            raise IntegrityError(
                "workers ended with different models; this is a defect of asyncdmtl",
                partitions=[],
                workers=[member.name for member in done],
            )
        await self._peers.send_all({member: Finish() for member in done})

    async def _somebody_returns(self) -> bool:
        """Whether a worker is there that lacks the models; one lost just now may come back for them."""
        membership, clock = self._peers.membership, asyncio.get_running_loop().time
        while not membership.newcomers():
            absent = (member for member in membership.members.values() if not member.current)
            missed = max((member.missed_since for member in absent), default=-math.inf)
            if (left := missed + LINGER - clock()) <= 0:
                return False
            await membership.change(left)
        return True


def _then(last: bool, gives: bool) -> str:
    """What a worker does after a round."""
    return "end" if last else "give" if gives else "go on"
