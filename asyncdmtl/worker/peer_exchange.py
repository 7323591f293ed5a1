"""A worker's exchange of rows with other workers: it gives what it computed, and takes what it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError
from asyncdmtl.exchange.shares import shares_of
from asyncdmtl.exchange.sides import WorkerSide
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.run_certificate import RunCertificate
from asyncdmtl.plan.plan import Plan
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Assign, Listen, Listens, PeerReport, RowsLacking
from asyncdmtl.worker.options import NO_PEERS, WorkerOptions
from asyncdmtl.worker.peer_client import PeerClient
from asyncdmtl.worker.peer_server import PeerServer
from asyncdmtl.worker.state import WorkerState

log = logging.getLogger(__name__)

# The addresses that stand for all addresses of a host, of which others are told that of the connection.
EVERYWHERE = ("0.0.0.0", "::")


class PeerExchange:
    """A worker's exchange with others, for the time of one connection to the server.

    Parameters
    ----------
    connection : Connection
        The connection to the server; those to other workers use TLS if it does.
    options : WorkerOptions
    state : WorkerState
    message : Listen
    """

    def __init__(
        self, connection: Connection, options: WorkerOptions, state: WorkerState, message: Listen
    ) -> None:
        assert state.run is not None
        self.active = False
        self._takes = False
        self._connection = connection
        self._options = options
        self._state = state
        self._server = PeerServer(state.run, options.name, message.secret, options.silence_timeout, Ledger())
        self._client = PeerClient(options.name, options.silence_timeout, options.round_timeout)
        self._plan = -1
        self._positions: dict[str, int] = {}
        self._given: frozenset[int] = frozenset()

    async def listen(self) -> Listens:
        """Accept connections of other workers, if this worker may; the answer for the server."""
        wanted, local = self._options.peer_listen, self._connection.link.local
        if wanted == NO_PEERS:
            return Listens(reason=f"accepts no connections (--peer-listen {NO_PEERS})")
        host, port = parse_address(wanted, "--peer-listen") if wanted else (local, 0)
        told = local if host in EVERYWHERE else host
        certificate = RunCertificate.make(told) if self._connection.link.binding else None
        try:
            port = await self._server.open(host, port, certificate)
        except (AsyncDMTLError, OSError) as error:
            log.warning("worker %s: %s", self._options.name, error, extra=self._state.log_fields())
            return Listens(reason=str(error))
        return Listens(told, port, b"" if certificate is None else certificate.certificate)

    async def follow(self, assign: Assign, side: WorkerSide) -> None:
        """Exchange rows with others from now on, if the plan says so."""
        self.active = assign.shared
        if not self.active:
            return
        self._takes = bool(assign.peers)
        plan = side.plan
        if not isinstance(plan, Plan) or not side.streams:
            raise RemoteProtocolError(
                f"{self._connection.peer} sends peers for a plan that has no use for them"
            )
        self._plan, workers = assign.plan, plan.placement.workers
        self._positions = {name: k for k, name in enumerate(workers)}
        own = side.worker
        # Those behind this worker come first, so that all do not ask the same one.
        peers = sorted(assign.peers, key=lambda peer: (self._position(peer.name) - own) % len(workers))
        holders = plan.units.holders
        wanted = side.wanted_vectors()
        giving = {self._position(peer.name) for peer in peers} | {own}
        shares = shares_of(own, holders, [delivery.wanted for delivery in plan.deliveries], giving)
        await self._client.follow(
            peers,
            {unit: frozenset(workers[k] for k in holders[unit] if k != own) for unit in wanted},
            {unit: workers[giver] for unit, giver in shares.items()},
        )
        self._given = frozenset().union(
            *(delivery.wanted for k, delivery in enumerate(plan.deliveries) if k != own)
        )
        self._server.keep_to(workers)

    def begin(self, round_: int, side: WorkerSide) -> None:
        """Give the vectors that were computed for a round, and begin to take those that this worker lacks."""
        if self.active:
            own = side.own_vectors()
            self._server.give(self._plan, round_, {unit: own[unit] for unit in own if unit in self._given})
            if self._takes:
                self._client.begin(self._plan, round_, side.wanted_vectors())

    async def receive(
        self, round_: int, counts: Callable[[Assign], bool], limit: tuple[float, str]
    ) -> Assign | None:
        """Wait until all vectors of the round are here, and report them to the server.

        Parameters
        ----------
        round_ : int
        counts : callable
            Whether the round counts under a new plan.
        limit : (float, str)
            Seconds to wait for a new plan if no worker can give some vector, and the option that sets them.

        Returns
        -------
        Assign or None
            A new plan that makes the round void; else None.
        """
        client, connection = self._client, self._connection
        newer = asyncio.create_task(connection.receive((Assign,), *limit))
        lacking = ""
        try:
            while not client.complete:
                if not lacking and (lacking := client.lacking):
                    self._tell(RowsLacking(self._plan, round_, lacking))
                if newer.done() and (lacking or not counts(newer.result())):
                    return newer.result()
                client.changed.clear()
                arrival = asyncio.create_task(client.changed.wait())
                awaited = (arrival,) if newer.done() else (newer, arrival)
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
            received = ((self._position(name), *sizes) for name, sizes in client.received.items())
            self._tell(PeerReport(self._plan, round_, tuple(received)))
        finally:
            newer.cancel()
            await asyncio.wait([newer])
        if not newer.cancelled():
            connection.inbox.put_back(newer.result())
        return None

    async def close(self) -> None:
        """End all connections to other workers."""
        await asyncio.gather(self._server.close(), self._client.close())

    def _tell(self, message: PeerReport | RowsLacking) -> None:
        """Send the server a report, unless a new plan or the end of the connection has made it useless."""
        if not self._connection.lost and self._connection.session.plan == self._plan:
            self._connection.write(message)

    def _position(self, name: str) -> int:
        if name not in self._positions:
            raise RemoteProtocolError(
                f"{self._connection.peer} named a peer that is not in the plan: {name!r}"
            )
        return self._positions[name]


async def exchange_rows(
    connection: Connection, options: WorkerOptions, state: WorkerState, message: Listen
) -> PeerExchange:
    """Begin to accept connections of other workers, and tell the server where."""
    exchange = PeerExchange(connection, options, state, message)
    try:
        await connection.send(await exchange.listen(), options.round_timeout, "--round-timeout")
    except BaseException:
        await exchange.close()
        raise
    return exchange
