"""The server of a run, from the first connection to the record of the finished run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Collection, Mapping, Sequence

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.learning.outcome import settled
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.authentication import UNSECURED_SERVER, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Hello
from asyncdmtl.server.admission import Admission, Downlinks
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpointing import CheckpointWriter, open_checkpoints
from asyncdmtl.server.events import Listening, OnEvent, Resumed
from asyncdmtl.server.lateness import Lateness
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.peer_rows import PeerRowsServer
from asyncdmtl.server.peers import Peers
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.rounds import Rounds
from asyncdmtl.server.start import RunStart
from asyncdmtl.server.training_progress import TrainingProgress

log = logging.getLogger(__name__)

# Seconds that a resuming server waits for all workers of the checkpoint, even if fewer would suffice: workers
# try to reconnect every two seconds, and may have a later state than the checkpoint.
RETURN_SECONDS = 5.0


class Server:
    """Runs one training.

    If a worker is lost, or its updates differ from those of other holders, the run goes on as long as the
    other workers hold every partition: the server makes a new plan for them, and they send the round again.
    Workers may join or come back at any time.

    The checkpoints of a finished run stay, so that a server that is killed before it has written its report
    can be resumed; `delete_checkpoints` deletes them.

    Parameters
    ----------
    options : RunOptions
    emit : callable
        A function that is called with each `ServerEvent`.
    security : ServerSecurity
        The proofs that workers must give; by default none.

    Attributes
    ----------
    ledger : Ledger
        The ledger of all bytes so far.

    Raises
    ------
    UsageError
        The checkpoints cannot be used, or are of another run than the options.
    """

    def __init__(
        self, options: RunOptions, emit: OnEvent, security: ServerSecurity = UNSECURED_SERVER
    ) -> None:
        self.ledger = Ledger()
        self._options = options
        self._emit = emit
        self._store, self._resumed = open_checkpoints(options)
        self._run = secrets.token_hex(4) if self._resumed is None else self._resumed.run
        self._rounds: Rounds | None = None
        # Half of the timeout, so that workers that wait for a silent listener do not themselves appear late.
        limit = options.round_timeout / 2
        group = options.multicast
        multicast = None if group is None else MulticastServer(group, self.ledger, limit)
        self._downlinks = Downlinks(multicast, PeerRowsServer(self.ledger) if options.peers else None)
        self._member_log = MemberLog(self._run, emit)
        self._membership = Membership()
        self._admission = Admission(
            self._run, options, self._membership, self.ledger, security, self._member_log,
            self._downlinks,
        )  # fmt: skip

    @property
    def uplink_seconds(self) -> Mapping[str, float]:
        """As `RowTransfer.uplink_seconds`; empty before the first round."""
        return {} if self._rounds is None else self._rounds.uplink_seconds

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run

    def admit(self, connection: Connection, hello: Hello) -> None:
        """Admit or refuse a worker whose connection and greeting another listener has accepted."""
        self._admission.admit(connection, hello)

    @property
    def lateness(self) -> Lateness:
        """The late workers of the run; of none before the first round."""
        return Lateness() if self._rounds is None else self._rounds.lateness

    async def run(self, host: str, port: int) -> RunRecord:
        """Listen on an address, train with the workers that join, and return the record of the run.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        AsyncDMTLError
            As `make`.
        """
        try:
            socket = await listen(host, port, self._admission.accept)
        except BaseException:
            self._unlock()
            raise
        return await self.make(socket)

    async def make(self, socket: asyncio.Server | None = None) -> RunRecord:
        """Train with the workers that are admitted, and return the record of the run.

        Parameters
        ----------
        socket : asyncio.Server, optional
            Listens for workers, and is closed at the end; without it, `admit` is called with each.

        Raises
        ------
        LinkError
            The remaining workers do not hold every partition.
        WaitError
            Workers did not join in time.
        PlacementError
            A partition that must be covered has no holder among the workers that joined.
        DataError
            Declarations, or encoded partitions, do not fit each other.
        StateError
            Workers hold different states of the training, and none has a majority.
        DisagreementError
            As many holders of a partition computed one update as another.
        IntegrityError
            Updates were corrupted in too many rounds in a row.
        """
        try:
            if socket is not None:
                address = socket.sockets[0].getsockname()[:2]
                self._emit(Listening(self._run, *address))
                log.info(
                    "run %s: listening on %s", self._run, format_address(*address), extra={"run": self._run}
                )
            with single_threaded():
                return await (self._start() if self._resumed is None else self._resume(self._resumed))
        except AsyncDMTLError as error:
            await self._write_last_checkpoint()
            await self._membership.tell_all(error)
            raise
        except Exception as error:
            await self._membership.tell_all(AsyncDMTLError(f"internal error: {error!r}"))
            raise
        except asyncio.CancelledError:
            await self._write_last_checkpoint()
            self._admission.resumable = self._store is not None
            stopped = AsyncDMTLError("the server was stopped")
            await self._membership.tell_all(stopped, back=self._store is not None)
            raise
        finally:
            if socket is not None:
                socket.close()
            await self._admission.close()
            await self._membership.close()
            if self._downlinks.multicast is not None:
                await self._downlinks.multicast.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._store is not None:
            self._store.unlock()

    async def _start(self) -> RunRecord:
        """Start a run with the workers that join."""
        start = RunStart(self._options, self._membership, self._admission, self._member_log)
        encoding, declared = await start.complete()
        await self._wait_for_rows(declared)
        return await self._train(encoding, declared, None, self._options.rejoin_timeout)

    async def _resume(self, checkpoint: Checkpoint) -> RunRecord:
        """Go on with the run of a checkpoint."""
        self.ledger.merge(checkpoint.ledger)
        self._membership.resume(checkpoint.encoding, checkpoint.declared, checkpoint.infos)
        self._emit(Resumed(self._run, checkpoint.round))
        log.info(
            "run %s: resumed from the checkpoint of round %d", self._run, checkpoint.round,
            extra={"run": self._run, "round": checkpoint.round},
        )  # fmt: skip
        # A run that has ended would end at once if none of its workers were ready.
        preparing = RETURN_SECONDS if checkpoint.ending is None else self._options.join_timeout
        await wait_for_return(self._membership, checkpoint.workers, preparing)
        return await self._train(
            checkpoint.encoding, checkpoint.declared, checkpoint, self._options.join_timeout
        )

    async def _train(
        self,
        encoding: Encoding,
        declared: Sequence[Declaration],
        checkpoint: Checkpoint | None,
        patience: float,
    ) -> RunRecord:
        """Make all rounds; before the first plan, wait up to `patience` seconds for missing workers."""
        options, membership = self._options, self._membership
        problem = Problem(options.settings, [membership.infos[part.id] for part in declared])
        strategy = options.strategy if checkpoint is None else checkpoint.strategy
        progress = TrainingProgress(self._run, problem, strategy, self._emit)
        progress.take_options(options)
        if checkpoint is not None:
            progress.resume(checkpoint)
        peers = Peers(membership, progress, options.round_timeout)
        writer = (
            None
            if self._store is None
            else CheckpointWriter(self._store, progress, membership, self.ledger, encoding, declared)
        )
        self._rounds = Rounds(options, progress, peers, self.ledger, writer, *self._downlinks)
        began = time.perf_counter()
        assignment = await self._rounds.make(patience)
        return self._record(progress, encoding, assignment, time.perf_counter() - began)

    def _record(
        self, progress: TrainingProgress, encoding: Encoding, assignment: Assignment, seconds: float
    ) -> RunRecord:
        multicast = self._downlinks.multicast
        return RunRecord(
            run=self._run,
            settings=settled(self._options.settings, progress.outcome),
            encoding=encoding,
            plan=assignment.plan,
            candidates=assignment.candidates,
            problem=progress.problem,
            vector_bytes=assignment.side.vector_bytes,
            down_vector_bytes=assignment.side.down_vector_bytes,
            broadcast_bytes=assignment.side.broadcast_bytes,
            rounds=progress.records,
            converged=progress.converged,
            # Copied at the same moment as the kernel's counts, since closing messages are still on their way.
            ledger=self.ledger.copy(),
            # After a resume, the kernel's counts lack those of the server before.
            kernel={} if self._resumed is not None else self._membership.kernel_counts(),
            incidents=tuple(progress.incidents),
            seconds=seconds,
            multicast=multicast.record(assignment.listeners, assignment.network) if multicast else None,
            outcome=progress.outcome,
            critical_strength=progress.critical_strength,
            tests=progress.tests,
            peers=self._downlinks.peers_record(assignment),
            downlink=assignment.downlink,
            speeds={} if self._rounds is None else self._rounds.measured_speeds,
            late=self.lateness.records(),
            links=progress.links,
        )

    async def _wait_for_rows(self, declared: Sequence[Declaration]) -> None:
        """Wait until each partition has a holder that has encoded it; LinkError if none comes in time."""
        membership, clock = self._membership, asyncio.get_running_loop().time
        end = clock() + self._options.rejoin_timeout
        while missing := [part.id for part in declared if part.id not in membership.infos]:
            if clock() >= end or membership.hopeless(missing):
                raise membership.no_holder(missing)
            await membership.change(end - clock())

    async def _write_last_checkpoint(self) -> None:
        """Write a last checkpoint, if a worker or the server can provide the state soon."""
        if self._rounds is not None:
            with contextlib.suppress(AsyncDMTLError):
                await self._rounds.stop()


async def wait_for_return(membership: Membership, workers: Collection[str], preparing: float) -> None:
    """Wait at most `RETURN_SECONDS` until all these workers are back.

    Up to `preparing` seconds it waits while one of them is here and prepares its rows.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    while missing := set(workers) - {member.name for member in membership.present()}:
        here = any(not member.gone for member in membership.members.values() if member.name in missing)
        if (left := began + (preparing if here else RETURN_SECONDS) - clock()) <= 0:
            return
        await membership.change(left)
