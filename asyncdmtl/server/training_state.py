"""Which state of the training an assignment goes on from, and who has it."""

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
        At the beginning of which it is that state.
    over : bool
        Whether the training ended before that round.
    keepers : tuple of Member
        Those who hold it.
    state : (problem.state_bytes,) uint8 array or None
        The state, if the server has it; else a keeper can give it.
    digest : bytes
        Of the state, if it is known; else empty.
    """

    round: int
    over: bool
    keepers: tuple[Member, ...] = ()
    state: Bytes | None = None
    digest: bytes = b""

    def reaches(self) -> tuple[int, bool, bool, int]:
        """The farther this goes, the better: of equals, what the server has, then what most hold."""
        return self.round, self.over, self.state is not None, len(self.keepers)


def farthest(members: Sequence[Member], saved: TrainingState | None, most_rounds: int) -> TrainingState:
    """The farthest state that a worker says it holds, or that was saved; those who hold it are its keepers.

    Workers at the same round who differ in the digest of their state do not hold the same: most of them are
    believed, then the first. A state at round 0 is what everybody begins with.
    """
    standings: dict[tuple[int, bool, bytes], list[Member]] = {(0, False, b""): []}
    for member in members:
        if member.round <= most_rounds:
            standings.setdefault((member.round, member.over, member.state), []).append(member)
    bases = [
        TrainingState(r, over, tuple(held), None, digest) for (r, over, digest), held in standings.items()
    ]
    if saved is not None:
        same = standings.get((saved.round, saved.over, saved.digest), [])
        bases.append(TrainingState(saved.round, saved.over, tuple(same), saved.state, saved.digest))
    return max(bases, key=TrainingState.reaches)
