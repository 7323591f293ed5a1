"""Gives other workers the vectors that this worker computed, over connections that they open."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError
from asyncdmtl.exchange.blocks import ASKED_OF_A_PEER, MOST_BYTES, most_blocks
from asyncdmtl.net.authentication import Authenticator, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.failed_proofs import FailedProofs
from asyncdmtl.net.peer_keys import PeerCredentials
from asyncdmtl.net.run_certificate import RunCertificate
from asyncdmtl.net.strangers import Strangers
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import AskRows, GiveRows, PeerReport, PeerRows, Welcome
from asyncdmtl.protocol.state_table import State

log = logging.getLogger(__name__)

# The rounds whose vectors are kept: the current one, and the one before, which others may not have yet. No
# worker is further behind, since a round begins once all have the one before.
KEPT_ROUNDS = 2

# The most blocks that a peer may ask for before this worker has them: it asks for a few at a time.
MOST_EARLY = 64

# The most bytes that wait for a peer to read them: the blocks that it may ask for at a time, and their heads.
MOST_UNREAD = ASKED_OF_A_PEER * MOST_BYTES + (1 << 16)


class _Kept(NamedTuple):
    """The vectors of one round, by number."""

    place: tuple[int, int]
    vectors: dict[int, Bytes]


class PeerServer:
    """Accepts other workers of the run, and gives them what they ask for.

    Parameters
    ----------
    run, name : str
        The names of the run and of this worker.
    secret : bytes
        The secret of this worker (`peer_keys`).
    silence : float
        Seconds after which a silent peer counts as lost.
    ledger : Ledger
        Counts all bytes.
    """

    def __init__(self, run: str, name: str, secret: bytes, silence: float, ledger: Ledger) -> None:
        self._run = run
        self._name = name
        self._secret = secret
        self._silence = silence
        self._ledger = ledger
        self._kept: deque[_Kept] = deque(maxlen=KEPT_ROUNDS)
        self._early: list[tuple[Connection, AskRows]] = []
        # The blocks that each peer asked for since the last vectors came.
        self._asked: Counter[Connection] = Counter()
        self._peers: dict[Connection, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: asyncio.Server | None = None

    async def open(self, host: str, port: int, certificate: RunCertificate | None) -> int:
        """Listen on an address, with TLS if there is a certificate; return the port. Raises as `listen`."""
        tls = None if certificate is None else certificate.server_context()
        security = ServerSecurity(PeerCredentials(self._secret), tls)
        clock = asyncio.get_running_loop().time
        strangers = Strangers[Connection](Connection.abort, clock)
        authenticator = Authenticator(self._run, security, FailedProofs(clock), strangers, self._silence)

        def opened(connection: Connection) -> None:
            strangers.enter(connection, connection.link.host)
            task = asyncio.create_task(self._admit(connection, authenticator, strangers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def accept() -> Connection:
            return Connection("server", self._ledger, self._silence, on_open=opened, tls=security.channels)

        self._socket = await listen(host, port, accept)
        found: int = self._socket.sockets[0].getsockname()[1]
        return found

    def keep_to(self, names: Collection[str]) -> None:
        """End the connections of all other workers: they are not in the plan any more."""
        for connection, name in list(self._peers.items()):
            if name not in names:
                connection.abort()

    def give(self, plan: int, round_: int, vectors: Mapping[int, Bytes]) -> None:
        """From now on, give a copy of these vectors to those that ask for them in this round."""
        reused = self._kept[0].vectors if len(self._kept) == KEPT_ROUNDS else {}
        copies = {}
        for number, vector in vectors.items():
            copy = reused.get(number)
            if copy is None or copy.shape != vector.shape:
                copy = np.empty_like(vector)
            copy[:] = vector
            copies[number] = copy
        self._kept.append(_Kept((plan, round_), copies))
        self._asked.clear()
        early, self._early = self._early, []
        for connection, ask in early:
            if not connection.lost and connection.session.state is not State.CLOSED:
                self._answer(connection, ask)

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        if self._socket is not None:
            self._socket.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in self._peers))

    async def _admit(
        self, connection: Connection, authenticator: Authenticator, strangers: Strangers[Connection]
    ) -> None:
        """Verify the name of a worker that has connected, and welcome it."""
        try:
            hello, proof = await authenticator.identify(connection)
            connection.on_peer_rows = partial(self._on_rows, connection)
            connection.on_lost = partial(self._lost, connection)
            # A worker needs one connection. That before may be broken without a sign of it.
            for other in [other for other, name in self._peers.items() if name == hello.name]:
                other.abort()
            self._peers[connection] = hello.name
            connection.write(Welcome(self._run, {}, self._silence, proof))
        except AsyncDMTLError as error:
            log.info("worker %s: refused %s: %s", self._name, connection.peer, error)
            await connection.fail(error)
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            strangers.leave(connection, joined=connection in self._peers)

    def _lost(self, connection: Connection) -> None:
        self._peers.pop(connection, None)
        self._asked.pop(connection, None)
        self._early = [early for early in self._early if early[0] is not connection]

    def _on_rows(self, connection: Connection, message: PeerReport | PeerRows) -> None:
        if not isinstance(message, AskRows):
            raise RemoteProtocolError(f"a worker does not send {message.kind} to another one")
        # What is left of a peer that was told of a failure, or has told of one, has no answer.
        if connection.session.state is State.CLOSED:
            return
        self._check_asked(connection, message)
        self._answer(connection, message)

    def _check_asked(self, connection: Connection, ask: AskRows) -> None:
        """Raise RemoteProtocolError if a peer asks for more than it needs, or does not read what it gets."""
        self._asked[connection] += 1
        blocks = sum(most_blocks(len(vector)) for kept in self._kept for vector in kept.vectors.values())
        if self._asked[connection] > MOST_EARLY + KEPT_ROUNDS * blocks:
            raise RemoteProtocolError(f"{self._asked[connection]} blocks were asked for, there are {blocks}")
        if ask.stop - ask.start > MOST_BYTES:
            raise RemoteProtocolError(
                f"a block has at most {MOST_BYTES} bytes, {ask.stop - ask.start} were asked for"
            )
        if connection.link.unsent_bytes() > MOST_UNREAD:
            raise RemoteProtocolError("rows were asked for, and those before were not read")

    def _answer(self, connection: Connection, ask: AskRows) -> None:
        """Give a peer a block; later, if it is not there yet; or not at all, if it is forgotten already."""
        place = ask.plan, ask.round
        for kept in self._kept:
            if kept.place == place:
                connection.write(GiveRows(*place, *ask.place, (_block(kept.vectors, ask),)))
                return
        if self._kept and place < self._kept[-1].place:
            connection.write(GiveRows(*place, *ask.place))
            return
        if sum(early is connection for early, _ in self._early) >= MOST_EARLY:
            raise RemoteProtocolError(f"more than {MOST_EARLY} blocks were asked for before they were made")
        self._early.append((connection, ask))


def _block(vectors: Mapping[int, Bytes], ask: AskRows) -> Bytes:
    vector = vectors.get(ask.vector)
    if vector is None or ask.stop > len(vector):
        raise RemoteProtocolError(f"bytes {ask.start} to {ask.stop} of vector {ask.vector} are not here")
    return vector[ask.start : ask.stop]
