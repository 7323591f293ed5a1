"""The workers that are served over TCP although there is a multicast group, with reasons."""

from __future__ import annotations

import logging
from collections import Counter

from asyncdmtl.multicast.sending import ReceptionCounts
from asyncdmtl.server.member import Member

log = logging.getLogger(__name__)

# The largest share of a round's ranges that a listener may get over its connection. Beyond that, it receives
# the group too badly, and is served over TCP.
MOST_RANGES_OVER_TCP = 0.5

# The largest share of its rows that a listener may report as lacking. Beyond that, it loses, or claims to
# lose, more than four rows of ten, and its repairs cost the other workers more than rows over TCP would.
MOST_REPEATED_ROWS = 0.75

# The fewest rows of pieces from which that share is estimated. With fewer, chance dominates.
JUDGED_ROWS = 500

# The most connections that a listener may lose because of wrong decoded vectors. All workers have the group's
# key, so that one of them may forge datagrams; over TCP the listener is safe from that.
MOST_WRONG_DECODINGS = 2


class Listeners:
    """Decides which workers the multicast group may serve.

    Attributes
    ----------
    served_over_tcp : dict of worker to str
        The workers that are served over TCP, each with the reason.
    """

    def __init__(self) -> None:
        self.served_over_tcp: dict[str, str] = {}
        self._judged: dict[str, tuple[int, int]] = {}
        self._misled: Counter[str] = Counter()

    def may_listen(self, member: Member) -> bool:
        """Whether a worker may be probed, since it has not decoded wrong vectors too often."""
        if self._misled[member.name] < MOST_WRONG_DECODINGS:
            return True
        self.serve_over_tcp(member, "what it heard was not what was sent")
        return False

    def listens(self, member: Member) -> None:
        """Note that a worker receives the group."""
        member.hears = True
        self.served_over_tcp.pop(member.name, None)

    def serve_over_tcp(self, member: Member, reason: str) -> None:
        """Serve a worker over TCP from the next plan on."""
        member.hears = False
        self.served_over_tcp[member.name] = reason
        log.warning("worker %s is served over TCP: %s", member.name, reason, extra={"worker": member.name})

    def note_misled(self, worker: str) -> None:
        """Note that a listener lost its connection because it decoded wrong vectors."""
        self._misled[worker] += 1

    def judge(
        self, member: Member, round_: int, share_over_tcp: float, reception: ReceptionCounts | None
    ) -> None:
        """Decide at the end of a round whether a listener still may be served by the group.

        Parameters
        ----------
        member : Member
        round_ : int
        share_over_tcp : float
            The share of the round's ranges that it got over its connection.
        reception : ReceptionCounts or None
            The counts of its receptions in all rounds.
        """
        repeated = reception is not None and self._asks_too_much(member.name, reception)
        if (share_over_tcp > MOST_RANGES_OVER_TCP or repeated) and member.hears:
            self.serve_over_tcp(member, f"heard too little of round {round_}")

    def _asks_too_much(self, worker: str, reception: ReceptionCounts) -> bool:
        """Whether a worker has reported too many lacking rows since the last decision."""
        needed, asked = self._judged.get(worker, (0, 0))
        if reception.needed - needed < JUDGED_ROWS:
            return False
        self._judged[worker] = reception.needed, reception.asked
        return reception.asked - asked > MOST_REPEATED_ROWS * (reception.needed - needed)
