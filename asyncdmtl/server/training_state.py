"""The state of the training from which an assignment continues, and the workers that hold it."""

from __future__ import annotations

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
    check : bytes
        The state's check, if it is known; else empty.
    """

    round: int
    over: bool
    keepers: tuple[Member, ...] = ()
    state: Bytes | None = None
    check: bytes = b""

    def rank(self) -> tuple[int, bool, bool, int]:
        """The sort key of states: the round, whether the server has the state, and the number of keepers."""
        return self.round, self.over, self.state is not None, len(self.keepers)
