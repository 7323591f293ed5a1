"""A worker in a run, which reconnects after lost connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.blinding.reasons import without_details
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.prepared_rows import PreparedRows
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import UNSECURED_WORKER, StandbyOrdered, WorkerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.route import Address, Route
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.worker.jobs import JobStream
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.reconnection import Reconnection
from asyncdmtl.worker.state import WorkerState

log = logging.getLogger(__name__)


class Worker:
    """A worker in a run, which reconnects after lost connections.

    Parameters
    ----------
    options : WorkerOptions
    partitions : sequence of Stored, or PreparedRows
        The partitions that are stored here. None of their rows is ever sent.
    security : WorkerSecurity
        The proofs that the server must give; by default none.
    observer : WorkerObserver, optional
        Gets calls at the steps of the worker.
    jobs : JobStream, optional
        Takes part in the jobs of a server with a stream of jobs; without it such a server is an error.

    Attributes
    ----------
    state : WorkerState
        The worker's state in the run.
    ledger : Ledger
        The ledger of all bytes that the worker sent and received.
    """

    def __init__(
        self,
        options: WorkerOptions,
        partitions: Sequence[Stored] | PreparedRows,
        security: WorkerSecurity = UNSECURED_WORKER,
        observer: WorkerObserver | None = None,
        jobs: JobStream | None = None,
    ) -> None:
        self.state = WorkerState(options.name, options.group_secret, agrees=options.group_proofs is not None)
        self.ledger = Ledger()
        self._options = options
        self._security = security
        self._observer = observer or WorkerObserver()
        self._jobs = jobs
        self._partitions = OwnPartitions(partitions, options.test_fraction, options.least_rows)

    async def run(self, host: str, port: int, *others: Address) -> TaskModels:
        """Join the server's run; return the final models, of all tasks or under `personal` of its own tasks.

        If the connection is lost, the worker reconnects and goes on, unless `max_wait` passes without a
        round.

        Parameters
        ----------
        host, port : str and int
            Where the server listens, or a relay that leads to it.
        *others : host and port
            Other addresses, which are tried in this order if the first one does not serve.

        Raises
        ------
        AuthenticationError
            The server did not prove its identity, or asks for a proof that this worker cannot give.
        LinkError
            The server cannot be reached, or was lost.
        StreamOver
            The server made a stream of jobs, which is over.
        PeerError
            The server refused this worker or failed, and reported the reason.
        WaitError
            The server did not answer in time.
        IntegrityError
            The decoded vectors are not those that the other workers computed.
        """
        try:
            return await self._run([(host, port), *others])
        finally:
            if self._jobs is not None:
                await self._jobs.close()

    async def _run(self, addresses: Sequence[Address]) -> TaskModels:
        """As `run`."""
        route = Route(addresses, self._security, self._connection)
        reconnection = Reconnection(self._options.max_wait, asyncio.get_running_loop().time)
        with single_threaded():
            return await reconnection.follow(
                route,
                lambda connection: self._connected(connection, reconnection),
                joined=lambda: self.state.run is not None,
                note=self._note_retry,
                told=self._told,
            )

    async def _connected(self, connection: Connection, reconnection: Reconnection) -> TaskModels:
        """Take part over one connection."""
        name = self._options.name
        log.info("worker %s: connected to %s", name, connection.peer, extra=self.state.log_fields())
        part = Participation(
            connection, self._options, self._partitions, self.state, reconnection, self._observer
        )
        try:
            return await self._take_part(part, connection, reconnection)
        finally:
            await part.close()

    def _note_retry(self, error: AsyncDMTLError) -> None:
        name = self._options.name
        log.warning("worker %s: %s; trying again", name, error, extra=self.state.log_fields())

    async def _take_part(
        self, part: Participation, connection: Connection, reconnection: Reconnection
    ) -> TaskModels:
        """Take part in the run over a connection, or in all jobs of the server's stream."""
        try:
            return await part.run(self._security.secret)
        except StandbyOrdered:
            if self._jobs is None:
                rule = "must make one run, not a stream of jobs, in which this worker takes no part"
                raise UsageError("server", rule, connection.peer) from None
            reconnection.note_welcome()
            reconnection.note_progress()
            await self._jobs.follow(connection)

    def _told(self, error: AsyncDMTLError) -> AsyncDMTLError:
        """The error as the server is told of it: a server that is blind must not read values in it."""
        return without_details(error) if self._options.blind else error

    @property
    def trained_with(self) -> tuple[Encoding, Settings]:
        """The encoding and the settings of the run; known once `run` has returned."""
        return self._partitions.encoded_with

    def _connection(self, tls: Callable[[], TLSChannel] | None) -> Connection:
        options = self._options
        return Connection("worker", self.ledger, options.silence_timeout, options.name, tls=tls)
