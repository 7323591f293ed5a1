"""The workers that were lost and may come back, and how long the end of a run waits for them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from asyncdmtl.server.member import Member

# Seconds within which a worker that was lost shortly before the end comes back for its models, if it is
# connected to the server: it connects again at once.
LINGER = 1.0


class Absent:
    """The workers that were lost and may come back, those behind relays by their own names."""

    def __init__(self) -> None:
        # Worker → when it was lost, and whether it was behind a relay.
        self._lost: dict[str, tuple[float, bool]] = {}

    def note(self, member: Member, now: float) -> None:
        """Note that a member was lost, with all workers that it stands for, at a time of the clock."""
        for name in member.stands_for:
            self._lost[name] = now, bool(member.behind)

    def forget(self, member: Member) -> None:
        """Note that a member will not come back."""
        for name in member.stands_for:
            self._lost.pop(name, None)

    def until(self, members: Iterable[Member], silence: float) -> float:
        """The time until which the end of a run waits for workers that lack the final models.

        Parameters
        ----------
        members : iterable of Member
            All members, lost ones included.
        silence : float
            Seconds within which a worker that is here has prepared its rows. One whose relay was lost has
            twice as long: a frozen relay lets it connect and answers nothing, which it notices after such a
            time, and then it may wait at another relay until that joins anew.

        Returns
        -------
        float
            −∞ if no worker is absent.
        """
        here = [member for member in members if not member.gone]
        for member in here:
            if member.current:
                self.forget(member)
        preparing = {name for member in here for name in member.stands_for}
        return max(
            (
                lost + (2 * silence if behind else silence if name in preparing else LINGER)
                for name, (lost, behind) in self._lost.items()
            ),
            default=-math.inf,
        )
