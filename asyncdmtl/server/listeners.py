"""Which workers are served over TCP although there is a multicast group, and why."""

from __future__ import annotations

import logging
from collections import Counter

from asyncdmtl.multicast.sending import ReceptionCounts
from asyncdmtl.server.member import Member

log = logging.getLogger(__name__)

# The share of a round's ranges that a worker may be sent over its connection. Beyond that it does not receive
# the group well enough, and is served over TCP.
MOST_RANGES_OVER_TCP = 0.5

# The share of the rows that it needs which a worker may ask for again. Beyond that it loses more than four
# rows of ten, or says so, and its repairs cost the other workers more than its connection would.
MOST_REPEATED_ROWS = 0.75

# Rows of pieces that a worker must have needed before that share is judged: fewer tell more of chance.
JUDGED_ROWS = 500

# Connections that a listener may lose because what it decoded was wrong. All workers have the group's key, so
# one of them may have sent it other rows; over TCP it is safe from that.
MOST_WRONG_DECODINGS = 2


class Listeners:
    """Judges which workers may be served by the multicast group.

    Attributes
    ----------
    served_over_tcp : dict of worker to str
        The workers that are served over TCP, and why.
    """

    def __init__(self) -> None:
        self.served_over_tcp: dict[str, str] = {}
        self._judged: dict[str, tuple[int, int]] = {}
        self._misled: Counter[str] = Counter()

    def may_listen(self, member: Member) -> bool:
        """Whether a worker may be probed: it was not misled by the group too often."""
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
        """Note that a listener lost its connection because what it decoded was wrong."""
        self._misled[worker] += 1

    def judge(
        self, member: Member, round_: int, share_over_tcp: float, reception: ReceptionCounts | None
    ) -> None:
        """Judge a listener at the end of a round.

        Parameters
        ----------
        member : Member
        round_ : int
        share_over_tcp : float
            The share of the round's ranges that it was sent over its connection.
        reception : ReceptionCounts or None
            What it received of all rounds.
        """
        repeated = reception is not None and self._asks_too_much(member.name, reception)
        if (share_over_tcp > MOST_RANGES_OVER_TCP or repeated) and member.hears:
            self.serve_over_tcp(member, f"heard too little of round {round_}")

    def _asks_too_much(self, worker: str, reception: ReceptionCounts) -> bool:
        """Whether a worker asked for too many rows again since it was judged last."""
        needed, asked = self._judged.get(worker, (0, 0))
        if reception.needed - needed < JUDGED_ROWS:
            return False
        self._judged[worker] = reception.needed, reception.asked
        return reception.asked - asked > MOST_REPEATED_ROWS * (reception.needed - needed)
