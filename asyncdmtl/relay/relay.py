"""A relay: a server towards its workers, a worker towards a server or another relay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.digests import Digest
from asyncdmtl.errors import AsyncDMTLError, IntegrityError, LinkError, PeerError, UsageError, WaitError
from asyncdmtl.net.authentication import (
    UNSECURED_SERVER,
    UNSECURED_WORKER,
    ServerSecurity,
    StandbyOrdered,
    WorkerSecurity,
)
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.kernel import KernelCount
from asyncdmtl.net.route import Address, Route
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.relay.attachment import Attachment
from asyncdmtl.relay.gathering import Gathering
from asyncdmtl.relay.nodes import SiteChangedError
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.server.events import Listening, OnEvent
from asyncdmtl.worker.joining import be_welcomed, read_settings
from asyncdmtl.worker.reconnection import Reconnection

log = logging.getLogger(__name__)


class Relay:
    """A relay. It trains nothing and keeps no rows of data.

    Parameters
    ----------
    options : RelayOptions
    emit : callable
        Is called with each event of its workers.
    upward : WorkerSecurity
        The proofs that it gives its parent, and asks of it.
    downward : ServerSecurity
        The proofs that its workers must give.

    Attributes
    ----------
    up, below : Ledger
        All bytes between the relay and its parent, and between the relay and its workers.
    kernel : dict of str to KernelCount
        The kernel's counts of all links: that above under the relay's own name, those below under the names
        of the nodes. Empty if the kernel does not count. Complete once the relay has ended.
    """

    def __init__(
        self,
        options: RelayOptions,
        emit: OnEvent,
        upward: WorkerSecurity = UNSECURED_WORKER,
        downward: ServerSecurity = UNSECURED_SERVER,
    ) -> None:
        self.up, self.below = Ledger(), Ledger()
        self.kernel: dict[str, KernelCount] = {}
        self._options = options
        self._emit = emit
        self._upward = upward
        self._downward = downward
        self._excluded: dict[str, str] = {}
        self._begun = False
        # Workers in the last connection to the parent.
        self._workers = 0
        # One listener for all connections to the parent: if each had its own, a worker that connects while
        # one is closed might be accepted and never be answered.
        self._listener: asyncio.Server | None = None
        self._gathering: Gathering | None = None

    @property
    def name(self) -> str:
        """The relay's name."""
        return self._options.upward.name

    def nodes(self) -> list[str]:
        """The names of the workers and relays that are connected now."""
        members = {} if self._gathering is None else self._gathering.membership.members
        return sorted(name for name, member in members.items() if not member.gone)

    async def run(self, parents: Sequence[Address], address: Address) -> None:
        """Relay a run from beginning to end: connect to the parent, and listen on an address for workers.

        If the parent is lost, or a worker is lost or joins, the relay connects to the parent anew.

        Parameters
        ----------
        parents : sequence of host and port
            Where the server listens, or relays that lead to it; tried in this order.
        address : host and port

        Raises
        ------
        AuthenticationError, LinkError, PeerError, WaitError
            As `Worker.run`; WaitError, too, if not enough workers come to the relay.
        DisagreementError
            As many of its workers computed one update as another.
        """
        try:
            with single_threaded():
                await self._run(parents, address)
        finally:
            if self._listener is not None:
                self._listener.close()

    async def _run(self, parents: Sequence[Address], address: Address) -> None:
        name, route = self._options.upward.name, Route(parents, self._upward, self._connection)
        reconnection = Reconnection(self._options.upward.max_wait, asyncio.get_running_loop().time)

        async def attach(connection: Connection) -> bool:
            """Whether the run is over; else workers were lost or joined."""
            log.info("relay %s: connected to %s", name, connection.peer)
            try:
                await self._attach(connection, reconnection, address)
            except SiteChangedError:
                log.info("relay %s: workers were lost or joined; joining the run again", name)
                return False
            finally:
                self._count({name: connection.link.kernel_count()})
            return True

        while not await reconnection.follow(
            route,
            attach,
            joined=lambda: self._begun,
            note=lambda error: log.warning("relay %s: %s; trying again", name, error),
        ):
            await reconnection.pause()

    async def _attach(self, connection: Connection, reconnection: Reconnection, address: Address) -> None:
        """Take part in the run over one connection, with the workers that come."""
        try:
            welcome = await be_welcomed(connection, self._options.upward, self._upward.secret)
        except StandbyOrdered:
            rule = "must make one run, not a stream of jobs, in which relays take no part"
            raise UsageError("server", rule, connection.peer) from None
        reconnection.note_welcome()
        settings = read_settings(connection, welcome)
        gathering = Gathering(self._options, welcome, settings, self.below, self._downward, self._emit)
        gathering.membership.excluded.update(self._excluded)
        self._gathering, over = gathering, False
        try:
            await self._listen(address, welcome.run)
            waiting = asyncio.create_task(gathering.complete(self._workers))
            await _while_connected(waiting, connection)
            self._begun, self._workers = True, gathering.workers
            digest = Digest(welcome.run)
            part = Attachment(connection, self._options, gathering, digest, reconnection.note_progress)
            try:
                await part.run()
            finally:
                part.close()
            # The workers read that the run is over, and hang up; nobody else is to come any more.
            over = True
        except SiteChangedError:
            self._workers = max(1, gathering.workers)
            raise
        except AsyncDMTLError as error:
            told = connection.failure or error
            back = (
                connection.worker_may_return
                if isinstance(told, PeerError)
                else told is not error or _passes(error)
            )
            await gathering.membership.tell_all(told, back=back)
            raise
        finally:
            self._excluded.update(gathering.membership.excluded)
            await gathering.close(back=not over)
            self._count(gathering.membership.kernel_counts())

    def _count(self, counts: Mapping[str, KernelCount | None]) -> None:
        """Add the kernel's counts of connections that have ended."""
        for name, count in counts.items():
            if count is not None:
                before = self.kernel.get(name)
                self.kernel[name] = count if before is None else before + count

    async def _listen(self, address: Address, run: str) -> None:
        """Listen for workers, if the relay does not yet."""
        if self._listener is None:
            self._listener = await listen(*address, lambda: self._current().accept())
            self._emit(Listening(run, *self._listener.sockets[0].getsockname()[:2]))

    def _current(self) -> Gathering:
        assert self._gathering is not None
        return self._gathering

    def _connection(self, tls: Callable[[], TLSChannel] | None) -> Connection:
        options = self._options.upward
        return Connection("worker", self.up, options.silence_timeout, options.name, tls=tls)


async def _while_connected(work: asyncio.Task[None], connection: Connection) -> None:
    """Wait for some work, unless the connection fails meanwhile."""
    lost = asyncio.Event()
    connection.on_lost = lost.set
    ended = asyncio.create_task(lost.wait())
    try:
        if connection.failure is None:
            await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
        if connection.failure is not None:
            raise connection.failure
        work.result()
    finally:
        connection.on_lost = None
        for task in (work, ended):
            task.cancel()
        await asyncio.gather(work, ended, return_exceptions=True)


def _passes(error: AsyncDMTLError) -> bool:
    """Whether workers may come back after this error of the relay's connection to its parent."""
    return isinstance(error, LinkError | IntegrityError | WaitError)
