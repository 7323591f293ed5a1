"""The state of the training that an assignment goes on from, and which workers have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncdmtl.arrays import Bytes
from asyncdmtl.server.member import Member


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of the training that an assignment goes on from.

    Attributes
    ----------
    round : int
        The state is that at the beginning of this round.
    over : bool
        Whether the training ended before that round.
    keepers : tuple of Member
        The members that hold it.
    state : (problem.state_bytes,) uint8 array or None
        The state, if the server has it; else a keeper can give it.
    digest : bytes
        The state's, if it is known; else empty.
    """

    round: int
    over: bool
    keepers: tuple[Member, ...] = ()
    state: Bytes | None = None
    digest: bytes = b""

    def rank(self) -> tuple[int, bool, bool, int]:
        """What states are compared by: how far they go, whether the server has them, how many hold them."""
        return self.round, self.over, self.state is not None, len(self.keepers)


def farthest(members: Sequence[Member], saved: TrainingState | None, most_rounds: int) -> TrainingState:
    """The farthest state that a worker says it holds, or that was saved.

    Workers at the same round hold different states if their digests differ. The state that most of them hold
    is believed, then that of the first. All workers begin with the state of round 0.

    Parameters
    ----------
    members : sequence of Member
    saved : TrainingState or None
        The last state that was written down.
    most_rounds : int
        The rounds that the run makes at the most: no state beyond them is believed.
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
