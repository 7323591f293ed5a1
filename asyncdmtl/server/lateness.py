"""Late workers: how far each lags behind the rounds, and what their late uploads are compared with.

Under a plan that tolerates silent workers, the server sends a late worker the rows of every round, which it
works off in order. A worker that lags by `MOST_LAG` rounds is sent no more of them, and one that has sent
nothing under the plan yet, which may not have read it, is sent none. Once it has made all that it was sent,
it is given the state of the training, as another worker has it, and goes on from there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from asyncdmtl.exchange.upload import Upload
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.member import Member
from asyncdmtl.server.records import LateRecord

# The most rounds whose rows wait for a late worker: the server keeps them in memory until they are sent. A
# worker that stops for two seconds works off the rounds of 0.25 s that it missed.
MOST_LAG = 8

# The last rounds whose uploads are kept, without rows: those that a late worker may still send its own of.
KEPT_ROUNDS = 2 * MOST_LAG


@dataclass(frozen=True)
class LateUpload:
    """An upload that came after the server had begun to combine rows without it.

    Attributes
    ----------
    worker : int
        The member's place in the plan.
    round : int
    upload : Upload
    """

    worker: int
    round: int
    upload: Upload


class Lateness:
    """How late the members of an assignment are.

    Attributes
    ----------
    uploads : list of LateUpload
        Late uploads that have not been compared yet.
    late_rounds : Counter of str
        The number of rounds of the run that went on without a worker's rows.
    ignored_bytes : Counter of str
        Bytes of a worker's rows that came too late to be used.
    handed_over : Counter of str
        The number of times that a late worker was given the state of the training.
    """

    def __init__(self) -> None:
        self.uploads: list[LateUpload] = []
        self.late_rounds: Counter[str] = Counter()
        self.ignored_bytes: Counter[str] = Counter()
        self.handed_over: Counter[str] = Counter()
        # The first round under the plan.
        self._first = 0
        self._heard: dict[Member, int] = {}
        self._heard_at: dict[Member, float] = {}
        self._unsent: dict[Member, int] = {}
        self._past: dict[int, list[Upload | None]] = {}

    def records(self) -> dict[str, LateRecord]:
        """The lateness of each worker for which some round did not wait."""
        return {
            worker: LateRecord(rounds, self.ignored_bytes[worker], self.handed_over[worker])
            for worker, rounds in sorted(self.late_rounds.items(), key=lambda item: natural_key(item[0]))
        }

    def begin(self, assignment: Assignment, number: int, now: float) -> None:
        """Begin an assignment with its first round: no member lags."""
        self._first = number
        self._heard = dict.fromkeys(assignment.members, number - 1)
        self._heard_at = dict.fromkeys(assignment.members, now)
        self._unsent, self._past, self.uploads = {}, {}, []

    def hear(self, member: Member, number: int, now: float) -> None:
        """Note that the upload of a member for a round has come."""
        self._heard[member], self._heard_at[member] = number, now

    def heard(self, member: Member) -> int:
        """The round of a member's last upload."""
        return self._heard[member]

    def quiet_since(self, member: Member) -> float:
        """The time of a member's last upload; infinite if the next one waits for a state of the server."""
        return math.inf if self.waits(member) else self._heard_at[member]

    def withhold(self, members: Iterable[Member], number: int) -> None:
        """Send no rows of a round, nor of later ones, to members that lag far behind, or sent nothing yet."""
        for member in members:
            heard = self._heard[member]
            if member not in self._unsent and (is_far(heard, number) or heard < self._first):
                self._unsent[member] = number

    def is_sent(self, member: Member) -> bool:
        """Whether a member is sent the rows of the current round."""
        return member not in self._unsent

    def may_send(self, member: Member, number: int) -> bool:
        """Whether a member is sent what it needs to send rows of a round."""
        return self._unsent.get(member, number) >= number

    def waits(self, member: Member) -> bool:
        """Whether a member has made all rounds that it was sent, and waits for a state."""
        return member in self._unsent and self._heard[member] >= self._unsent[member]

    @property
    def waiting(self) -> list[Member]:
        """The members that wait for a state."""
        return [member for member in self._unsent if self.waits(member) and not member.gone]

    def leave_behind(self) -> list[Member]:
        """The members that lack the rows of some round; from here on they are not followed any more."""
        left, self._unsent = list(self._unsent), {}
        return left

    def hand_over(self, member: Member, number: int, now: float) -> None:
        """Note that a member is sent the state at the beginning of a round."""
        del self._unsent[member]
        self._heard[member], self._heard_at[member] = number - 1, now
        self.handed_over[member.name] += 1

    def keep(self, number: int, uploads: Sequence[Upload | None]) -> None:
        """Keep the uploads of a round, without rows."""
        self._past[number] = [upload and replace(upload, rows=()) for upload in uploads]
        self._past = {n: kept for n, kept in self._past.items() if n > number - KEPT_ROUNDS}

    def past(self, number: int) -> list[Upload | None] | None:
        """The uploads of a round without rows, to which late ones may be added; None if not kept."""
        return self._past.get(number)


def is_far(heard: int, number: int) -> bool:
    """Whether a worker whose last upload was that of round `heard` lags too far in round `number`."""
    return number - heard > MOST_LAG
