"""The server's part in the exchange of rows between workers: addresses, keys, reports, and exceptions.

A worker that cannot get all rows from others is served by the server from the next plan on.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.peers import (
    PEER_KEY_BYTES,
    Listen,
    Listens,
    PeerReport,
    PeerRows,
    RowsLacking,
)
from asyncdmtl.server.member import Member, Place
from asyncdmtl.server.records import PEER_ROWS, PeersRecord

log = logging.getLogger(__name__)

# Seconds within which a worker must tell where it listens.
ANSWER_SECONDS = 10.0

# The most bytes beside rows that a worker reports of a link in a round: those of each vector, which is asked
# for in blocks, and of greetings and heartbeats.
MOST_FRAMING_OF_A_VECTOR, MOST_OTHER_FRAMING = 1 << 14, 1 << 20


@dataclass
class _Reports:
    """The reports of one worker under a plan.

    Attributes
    ----------
    worker : str
    names : tuple of str
        All workers, in the order of the plan.
    most : (int, int)
        The most bytes of rows, and the most other bytes, of a link in a round.
    round : int
        The round of the last report; -1 before the first one.
    """

    worker: str
    names: tuple[str, ...]
    most: tuple[int, int]
    round: int = -1

    def check(self, message: PeerReport) -> None:
        """Raise RemoteProtocolError unless a report can be true."""
        if message.round <= self.round:
            raise RemoteProtocolError(f"a report of round {message.round} follows one of round {self.round}")
        self.round, seen = message.round, set[int]()
        for position, *sizes in message.received:
            known = position < len(self.names) and self.names[position] != self.worker
            if not known or position in seen:
                raise RemoteProtocolError(
                    f"a report names worker {position} of {len(self.names)} as its peer, once more or wrongly"
                )
            seen.add(position)
            if any(size > most for size, most in zip(sizes, self.most, strict=True)):
                raise RemoteProtocolError(
                    f"a report of {sizes} bytes of rows and others over one link, at most {list(self.most)}"
                )


class PeerRowsServer:
    """Tells workers about each other, and counts what they report.

    Parameters
    ----------
    ledger : Ledger

    Attributes
    ----------
    served : dict of worker to str
        The workers that are served by the server instead, each with the reason.
    silent : dict of worker to str
        The workers that accept no connections, each with the reason.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.served: dict[str, str] = {}
        self.silent: dict[str, str] = {}
        self._ledger = ledger
        self._links: Counter[tuple[str, str]] = Counter()
        self._framing: Counter[tuple[str, str]] = Counter()

    async def ask(self, member: Member) -> None:
        """Ask a worker to listen. AsyncDMTLError if it did not answer, or was lost."""
        secret, connection = secrets.token_bytes(PEER_KEY_BYTES), member.connection
        limit = ANSWER_SECONDS, "--silence-timeout"
        await connection.send(Listen(secret), *limit)
        told = await connection.receive((Listens,), *limit)
        # A worker that comes back may be reached otherwise than before.
        member.exchanges = True
        self.served.pop(member.name, None)
        if told.port:
            member.place = Place(told, secret)
            self.silent.pop(member.name, None)
        else:
            self.silent[member.name] = told.reason

    def serve(self, member: Member, message: RowsLacking) -> None:
        """Serve a worker from the server from the next plan on: it cannot get all rows from others."""
        member.exchanges = False
        self.served[member.name] = reason = message.reason
        log.warning(
            "worker %s is served by the server: %s", member.name, reason, extra={"worker": member.name}
        )

    def listen_to(self, members: Sequence[Member], vectors: int, vector_bytes: int) -> None:
        """Count what these workers, in the order of the plan, report from now on.

        Parameters
        ----------
        members : sequence of Member
        vectors, vector_bytes : int
            The vectors that workers may lack, and the bytes of each: reports of far more are refused.
        """
        # Blocks that were asked of several come several times, some of them in the next round.
        rows = 2 * vectors * vector_bytes
        limits = rows, rows + MOST_FRAMING_OF_A_VECTOR * vectors + MOST_OTHER_FRAMING
        names = tuple(member.name for member in members)
        for member in members:
            reports = _Reports(member.name, names, limits)
            member.connection.on_peer_rows = partial(self._on_report, reports)

    def _on_report(self, reports: _Reports, message: PeerReport | PeerRows) -> None:
        if not isinstance(message, PeerReport):
            raise RemoteProtocolError(f"a worker does not send {message.kind} to the server")
        reports.check(message)
        worker, names = reports.worker, reports.names
        for position, payload, framing in message.received:
            self._links[names[position], worker] += payload
            self._framing[names[position], worker] += framing
            size = payload + framing
            self._ledger.count(worker, "down", PEER_ROWS, message.round, payload=payload, size=size)

    def record(self, exchanging: Collection[str], *, carried: bool) -> PeersRecord:
        """The record of the rows between workers; both arguments are those of the last assignment."""
        links = {link: (rows, self._framing[link]) for link, rows in self._links.items()}
        return PeersRecord(
            tuple(sorted(exchanging, key=natural_key)), carried, dict(self.served), dict(self.silent), links
        )
