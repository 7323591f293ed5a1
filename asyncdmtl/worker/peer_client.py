"""Takes the vectors that this worker lacks from other workers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError
from asyncdmtl.exchange.blocks import ASKED_OF_A_PEER, MOST_BYTES, NO_SHARES, Block, BlockRequests
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.authentication import greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.run_certificate import trusting
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import connect
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import VERSION, AskRows, GiveRows, Hello, Peer, PeerReport, PeerRows

log = logging.getLogger(__name__)

# Seconds within which a peer must be reached; others that hold its vectors give them meanwhile. A busy host
# may take some.
REACH_SECONDS = 10.0


class PeerConnection(Connection):
    """A connection to another worker, from which rows are taken."""

    @property
    def peer(self) -> str:
        """The other worker in words: its name and address."""
        return f"worker {self.session.worker!r} at {self.link.address}"


class PeerLink:
    """The connection to one peer, which is opened in the background.

    Parameters
    ----------
    peer : Peer
    own : str
        The name of this worker.
    silence : float
        Seconds after which a silent peer counts as lost.
    ledger : Ledger

    Attributes
    ----------
    connection : Connection or None
        The connection, once it is open.
    failure : str
        The reason why the peer gives nothing, in words; empty while it may.
    asked : deque of float
        The times at which the peer was asked for blocks, of any round, that it has not given.
    """

    def __init__(self, peer: Peer, own: str, silence: float, ledger: Ledger) -> None:
        self.peer = peer
        self.connection: Connection | None = None
        self.failure = ""
        self.asked: deque[float] = deque()
        self._own = own
        self._silence = silence
        self._ledger = ledger
        self._task: asyncio.Task[None] | None = None

    def count_in(self, ledger: Ledger) -> None:
        """Count bytes in this ledger from now on."""
        self._ledger = ledger
        if self.connection is not None:
            self.connection.session.ledger = ledger

    def open(self, on_change: Callable[[], None], on_rows: Callable[[PeerReport | PeerRows], None]) -> None:
        """Connect in the background, unless the link is open or being opened."""
        if self._task is None or (self._task.done() and self.failure):
            self.failure = ""
            self.asked.clear()
            self._task = asyncio.create_task(self._open(on_change, on_rows))

    def give_up(self, failure: str) -> None:
        """Take nothing more from the peer in this round."""
        connection, self.connection, self.failure = self.connection, None, failure
        if connection is not None:
            connection.on_lost = None
            connection.abort()

    async def close(self) -> None:
        """End the connection, and the attempt to open it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.connection is not None:
            self.connection.on_lost = None
            await self.connection.close()

    async def _open(
        self, on_change: Callable[[], None], on_rows: Callable[[PeerReport | PeerRows], None]
    ) -> None:
        peer, address, ledger = self.peer, format_address(self.peer.host, self.peer.port), Ledger()
        try:
            tls = self._channels()
            connection = await connect(
                peer.host, peer.port,
                lambda: PeerConnection("worker", ledger, self._silence, peer.name, tls=tls),
                REACH_SECONDS,
            )  # fmt: skip
            try:
                hello = Hello(VERSION, self._own, self._silence)
                await greet_server(connection, hello, peer.key, self._silence)
            except BaseException:
                connection.abort()
                raise
        except AsyncDMTLError as error:
            log.warning("worker %s: cannot take rows from worker %s: %s", self._own, peer.name, error)
            self.failure = f"cannot reach worker {peer.name!r} at {address}"
        else:
            # A round may have begun meanwhile.
            self._ledger.merge(ledger)
            connection.session.ledger = self._ledger
            connection.session.body_limit = MOST_BYTES
            connection.on_peer_rows = on_rows
            connection.on_lost = partial(self._lost, on_change)
            self.connection = connection
            if connection.lost:
                self._lost(on_change)
                return
        on_change()

    def _lost(self, on_change: Callable[[], None]) -> None:
        if self.connection is not None:
            self.failure = f"lost worker {self.peer.name!r}: {self.connection.failure}"
            self.connection = None
        on_change()

    def _channels(self) -> Callable[[], TLSChannel] | None:
        if not self.peer.certificate:
            return None
        context, host = trusting(self.peer.certificate), self.peer.host
        return lambda: TLSChannel(context, host)


class _Round(NamedTuple):
    """The round of which vectors are taken, and the arrays that they fill."""

    plan: int
    number: int
    targets: Mapping[int, Bytes]


class _Sources(NamedTuple):
    """The peers that hold each vector, and those that are to give it if it is short."""

    holders: Mapping[int, frozenset[str]]
    shares: Mapping[int, str]


class PeerClient:
    """Takes the vectors that this worker lacks from others, in one round after another.

    Parameters
    ----------
    name : str
        The name of this worker.
    silence : float
        Seconds after which a silent peer counts as lost.
    seconds : float
        Seconds after which the server gives up a worker without its rows, as --round-timeout sets.
    """

    def __init__(self, name: str, silence: float, seconds: float) -> None:
        self.changed = asyncio.Event()
        self._name = name
        self._silence = silence
        self._seconds = seconds
        # The bytes of the current round.
        self._ledger = Ledger()
        self._links: dict[str, PeerLink] = {}
        self._order: tuple[str, ...] = ()
        self._sources = _Sources({}, NO_SHARES)
        self._round = _Round(-1, -1, {})
        self._requests = BlockRequests({}, {})
        self._received: Counter[str] = Counter()
        self._retry: asyncio.TimerHandle | None = None

    @property
    def complete(self) -> bool:
        """Whether all vectors of the round are here."""
        return self._requests.complete

    @property
    def received(self) -> dict[str, tuple[int, int]]:
        """Bytes of rows from each peer in this round, and all other bytes of its link in both directions."""
        wire = self._ledger.workers()
        return {name: (rows, sum(wire[name]) - rows) for name, rows in self._received.items()}

    @property
    def lacking(self) -> str:
        """The reason why no peer can give some vector, in words; empty while one may."""
        if not (vectors := self._requests.without_holder()):
            return ""
        failed = [link.failure for link in self._links.values() if link.failure]
        return "; ".join(failed) or f"no worker that others reach has vectors {vectors}"

    async def follow(
        self,
        peers: Iterable[Peer],
        holders: Mapping[int, frozenset[str]],
        shares: Mapping[int, str] = NO_SHARES,
    ) -> None:
        """Take rows from these peers from now on.

        Parameters
        ----------
        peers : iterable of Peer
            In the order in which they are asked.
        holders : mapping of vector to names
            The workers that hold each vector that this worker lacks.
        shares : mapping of vector to name, optional
            The peers that are to give them, if they are short.
        """
        named = {peer.name: peer for peer in peers}
        gone = [name for name, link in self._links.items() if link.peer != named.get(name)]
        self._stop_asking()
        await asyncio.gather(*(self._links[name].close() for name in gone))
        for name in gone:
            del self._links[name]
        needed = frozenset().union(*holders.values())
        self._order = tuple(name for name in named if name in needed)
        self._sources = _Sources({v: names & named.keys() for v, names in holders.items()}, shares)
        for name in self._order:
            if name not in self._links:
                self._links[name] = PeerLink(named[name], self._name, self._silence, self._ledger)

    def begin(self, plan: int, round_: int, targets: Mapping[int, Bytes]) -> None:
        """Begin to take the vectors of a round, which fill these arrays."""
        self._round = _Round(plan, round_, targets)
        self._received.clear()
        self._ledger = Ledger()
        sizes = {vector: len(target) for vector, target in targets.items()}
        now = asyncio.get_running_loop().time()
        # A peer that is still being connected to would keep its share waiting.
        there = {name for name, link in self._links.items() if link.connection is not None}
        shares = {vector: name for vector, name in self._sources.shares.items() if name in there}
        self._requests = BlockRequests(sizes, self._sources.holders, self._requests, now, shares)
        for name in self._order:
            self._links[name].count_in(self._ledger)
            self._links[name].open(self._ask, partial(self._on_rows, name))
        self._ask()

    async def close(self) -> None:
        """End all connections."""
        self._stop_asking()
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _stop_asking(self) -> None:
        """Ask nobody any more in this round. Rows may still come while connections are closed in turn."""
        self._order, self._requests = (), BlockRequests({}, {}, self._requests)
        self._cancel_retry()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _ask(self) -> None:
        """Ask every peer for as many blocks as it may be asked for; note those that are lost."""
        self._cancel_retry()
        requests, now = self._requests, asyncio.get_running_loop().time()
        # The server must learn before it gives up this worker of those that are there, but give nothing.
        for name, waited in requests.too_late(now, self._seconds).items():
            self._links[name].give_up(f"worker {name!r} did not give its rows within {waited:.3g} s")
        free = []
        for name in self._order:
            link = self._links[name]
            if link.failure:
                requests.lost(name)
            elif link.connection is not None:
                free.append((link, link.connection))
        # Each peer is asked for its share, or one block, before any is asked for a second one.
        for depth in range(1, ASKED_OF_A_PEER + 1):
            if requests.nothing_to_ask(now):
                break
            for link, connection in free:
                most = requests.asked_of(link.peer.name)
                self._ask_of(link, connection, now, depth if most == ASKED_OF_A_PEER else most)
        if not requests.complete:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(requests.seconds_to_late(now), self._ask)
        self.changed.set()

    def _ask_of(self, link: PeerLink, connection: Connection, now: float, most: int) -> None:
        """Ask a peer for blocks, until `most` are on their way from it or it has none."""
        while len(link.asked) < most and (block := self._requests.next(link.peer.name, now)) is not None:
            connection.write(AskRows(self._round.plan, self._round.number, *block))
            link.asked.append(now)

    def _on_rows(self, name: str, message: PeerReport | PeerRows) -> None:
        """Take in a block. One that another peer was quicker to give is counted, too."""
        if not isinstance(message, GiveRows):
            raise RemoteProtocolError(f"a worker does not send {message.kind} to another one")
        link = self._links[name]
        if not link.asked:
            raise RemoteProtocolError("rows came that were not asked for")
        asked, now = link.asked.popleft(), asyncio.get_running_loop().time()
        self._received[name] += message.body.nbytes
        block, round_ = Block(*message.place), self._round
        current = (message.plan, message.round) == (round_.plan, round_.number)
        if current and message.body.nbytes and self._requests.open(block):
            round_.targets[block.vector][block.start : block.stop] = message.body
            self._requests.came(block, name, now)
        else:
            self._requests.took(name, now - asked)
        # Nothing has changed for the other peers, until a block is late.
        if link.connection is not None and not self._requests.nothing_to_ask(now):
            self._ask_of(link, link.connection, now, self._requests.asked_of(name))
        if self._requests.complete:
            self._ask()
