"""The faults of workers that make a round void: the workers are named, and excluded if it happens often."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator

from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import DisagreementError, IntegrityError, StateError
from asyncdmtl.exchange.sides import UnconfirmedError
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.training_progress import TrainingProgress

log = logging.getLogger(__name__)

# A worker is excluded if its updates differ from those of other holders in this number of rounds.
MOST_DISAGREEMENTS = 3

# A worker is excluded if its rows did not match its digests in this number of rounds.
MOST_BAD_ROWS = 3

# A worker is excluded if its state of the training differed from that of most workers this number of times.
# Bad memory changes it now and then.
MOST_ODD_STATES = 3

# A state that is odd by little (`States.near`) does not count, if it is so many rounds after the odd one
# before: differences between workers' models grow by rounding, under some plans tenfold in a round.
DRIFT_ROUNDS = 3

# A run fails if updates were corrupted on the way in this number of consecutive rounds.
MOST_CORRUPTED = 10


class Faults:
    """Turns the faults of workers into new plans.

    Parameters
    ----------
    progress : TrainingProgress
    peers : Peers
    """

    def __init__(self, progress: TrainingProgress, peers: Peers) -> None:
        self._progress = progress
        self._peers = peers
        self._disagreements: Counter[str] = Counter()
        self._bad_rows: Counter[str] = Counter()
        self._odd_states: Counter[str] = Counter()
        self._odd_rounds: dict[str, int] = {}
        self._corrupted = 0

    @contextlib.asynccontextmanager
    async def repeatable(self, assignment: Assignment) -> AsyncIterator[None]:
        """Turn faults within a `with` block into a ReplanError, after noting the workers at fault.

        Raises
        ------
        StateError
            No state of the training has a majority.
        DisagreementError
            No update of a partition has a majority.
        IntegrityError
            Updates were corrupted in too many rounds in a row.
        ReplanError
            The round must be made again under another plan.
        """
        try:
            yield
            self._corrupted = 0
            return
        except UnconfirmedError as error:
            # The round is made again under a detailed plan, which tells the worker at fault.
            progress = self._progress
            log.warning("run %s round %d: %s", progress.run, progress.round, error)
            progress.detailed = True
        except StateError as error:
            if not error.mendable:
                raise
            await self._take_state_away(assignment, error)
        except DisagreementError as error:
            if error.undecided:
                raise
            await self._distrust(assignment, error)
        except IntegrityError as error:
            self._corrupted += 1
            if self._corrupted >= MOST_CORRUPTED:
                raise
            await self._note_bad_rows(assignment, error)
        raise ReplanError

    async def _take_state_away(self, assignment: Assignment, error: StateError) -> None:
        """Let members be given the state that most workers hold; exclude a worker that needs it often."""
        members = {member.name: member for member in assignment.members}
        drifted = self._drifted(error)
        for worker in error.workers:
            self._odd_states[worker] += worker not in drifted
            if self._odd_states[worker] >= MOST_ODD_STATES:
                await self._peers.lose(members[worker], error, excluded=True)
                continue
            self._progress.note(worker, type(error).__name__, str(error))
            member = members[worker]
            member.current, member.round, member.over = False, self._progress.round, self._progress.over
            # No state has this check, so that nobody is given the member's.
            member.state = bytes(VECTOR_DIGEST_BYTES)

    def _drifted(self, error: StateError) -> set[str]:
        """The workers whose states are odd by rounding that has grown."""
        number = self._progress.round
        last = {worker: self._odd_rounds.get(worker, -DRIFT_ROUNDS) for worker in error.near}
        self._odd_rounds.update(dict.fromkeys(error.workers, number))
        return {worker for worker, before in last.items() if number - before >= DRIFT_ROUNDS}

    async def _distrust(self, assignment: Assignment, error: DisagreementError) -> None:
        """Treat dissenting holders as not holding these partitions; exclude a worker that does so often."""
        members = {member.name: member for member in assignment.members}
        for worker, partitions in error.odd.items():
            self._progress.distrusted.update((worker, partition) for partition in partitions)
            reason = (
                f"computed other bits of {list(partitions)} than their other holders;"
                " python -m asyncdmtl.arithmetic shows whether its machine is to blame"
            )
            self._progress.note(worker, type(error).__name__, reason)
            self._disagreements[worker] += 1
            if self._disagreements[worker] >= MOST_DISAGREEMENTS:
                await self._peers.lose(members[worker], error)

    async def _note_bad_rows(self, assignment: Assignment, error: IntegrityError) -> None:
        """Note corrupted rows, and exclude a worker that sent such rows often."""
        members = {member.name: member for member in assignment.members}
        for worker in error.workers or ("",):
            self._bad_rows[worker] += 1
            if worker in members and self._bad_rows[worker] >= MOST_BAD_ROWS:
                await self._peers.lose(members[worker], error, excluded=True)
            else:
                self._progress.note(worker, type(error).__name__, str(error))
