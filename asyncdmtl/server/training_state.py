"""The state of the training from which an assignment continues, and the workers that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncdmtl.arrays import Bytes
from asyncdmtl.server.member import Member


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of the training from which an assignment continues.

    Attributes
    ----------
    round : int
        The round; the state is that at its beginning.
    over : bool
        Whether the training ended before that round.
    keepers : tuple of Member
        The members that hold it.
    state : (problem.state_bytes,) uint8 array or None
        The state, if the server has it; else a keeper can send it.
    digest : bytes
        The state's digest, if it is known; else empty.
    """

    round: int
    over: bool
    keepers: tuple[Member, ...] = ()
    state: Bytes | None = None
    digest: bytes = b""

    def rank(self) -> tuple[int, bool, bool, int]:
        """The sort key of states: the round, whether the server has the state, and the number of keepers."""
        return self.round, self.over, self.state is not None, len(self.keepers)


def farthest(members: Sequence[Member], saved: TrainingState | None, most_rounds: int) -> TrainingState:
    """The farthest state that a worker declared or that was saved.

    If workers at the same round declared different digests, the state that most of them hold is believed;
    among equals, that of the first worker. All workers begin with the state of round 0.

    Parameters
    ----------
    members : sequence of Member
    saved : TrainingState or None
        The last state that a checkpoint has.
    most_rounds : int
        The most rounds of the run. States beyond them are not believed.
    """
    holders: dict[tuple[int, bool, bytes], list[Member]] = {(0, False, b""): []}
    for member in members:
        if member.round <= most_rounds:
            holders.setdefault((member.round, member.over, member.state), []).append(member)
    states = [
        TrainingState(r, over, tuple(held), None, digest) for (r, over, digest), held in holders.items()
    ]
    if saved is not None:
        same = holders.get((saved.round, saved.over, saved.digest), [])
        states.append(TrainingState(saved.round, saved.over, tuple(same), saved.state, saved.digest))
    return max(states, key=TrainingState.rank)
