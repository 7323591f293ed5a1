"""The server of a run, from the first greeting to the last goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Collection, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.learning.training import single_threaded
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.authentication import UNSECURED_SERVER, ServerSecurity
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.checkpoint import Checkpoint, Store
from asyncdmtl.server.events import Checkpointed, Listening, OnEvent, Resumed
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.multicast import MulticastServer
from asyncdmtl.server.peers import Peers
from asyncdmtl.server.progress import Progress
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.rounds import Rounds

log = logging.getLogger(__name__)

# Seconds that a server which resumes a run gives its workers to come back, even if fewer would do: they try
# again every two seconds, and may know more than the checkpoint.
RETURN = 5.0


class Server:
    """Runs one training from the first greeting to the last goodbye.

    A worker that is lost, or whose updates differ from those of other holders, does not end the run while
    the others still hold every partition: a new plan is made for them, and they send the round again. Workers
    may come, or come back, at any time.

    Parameters
    ----------
    options : RunOptions
    emit : callable
        Called with each `ServerEvent`.
    security : ServerSecurity
        What workers must prove; by default nothing.

    Raises
    ------
    UsageError
        The checkpoints cannot be used, or are of another run than the options.
    """

    def __init__(
        self,
        options: RunOptions,
        emit: OnEvent,
        security: ServerSecurity = UNSECURED_SERVER,
    ) -> None:
        self._options = options
        self._emit = emit
        self._store = None if options.checkpoint is None else Store(options.checkpoint)
        self._resumed = None if self._store is None else _open(self._store, options)
        self._run = secrets.token_hex(4) if self._resumed is None else self._resumed.run
        self._ledger = Ledger()
        self._rounds: Rounds | None = None
        self._multicast = (
            None
            if options.multicast is None
            # Others wait for a worker that does not answer: they must not be taken for those who are late.
            else MulticastServer(options.multicast, self._ledger, options.round_timeout / 2)
        )
        self._membership = Membership(
            self._run,
            options.settings,
            workers=options.workers,
            cover=options.cover,
            join_timeout=options.join_timeout,
            silence_timeout=options.silence_timeout,
            ledger=self._ledger,
            emit=emit,
            security=security,
            multicast=self._multicast,
        )

    @property
    def ledger(self) -> Ledger:
        """Every byte so far."""
        return self._ledger

    async def run(self, host: str, port: int) -> RunRecord:
        """Listen on an address, train with the workers that join, and return what it cost.

        Raises
        ------
        LinkError
            The address cannot be had, or the workers that are left do not hold every partition.
        WaitError
            Workers did not join in time.
        PlacementError
            Those that joined lack a partition that must be covered.
        DataError
            What they declared, or the partitions that came of it, do not fit each other.
        IntegrityError
            Workers ended with different models.
        """
        try:
            server = await listen(host, port, self._membership.accept)
        except BaseException:
            self._unlock()
            raise
        try:
            address = server.sockets[0].getsockname()[:2]
            self._emit(Listening(self._run, *address))
            log.info("run %s: listening on %s", self._run, format_address(*address), extra={"run": self._run})
            with single_threaded():
                return await (self._start() if self._resumed is None else self._resume(self._resumed))
        except AsyncDMTLError as error:
            await self._write_last()
            await self._membership.tell_all(error)
            raise
        except Exception as error:
            await self._membership.tell_all(AsyncDMTLError(f"internal error: {error!r}"))
            raise
        except asyncio.CancelledError:
            await self._write_last()
            stopped = AsyncDMTLError("the server was stopped")
            await self._membership.tell_all(stopped, back=self._store is not None)
            raise
        finally:
            server.close()
            await self._membership.close()
            if self._multicast is not None:
                await self._multicast.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._store is not None:
            self._store.unlock()

    async def _start(self) -> RunRecord:
        encoding, declared = await self._membership.complete()
        await self._encoded(declared)
        return await self._train(encoding, declared, None, self._options.rejoin_timeout)

    async def _resume(self, checkpoint: Checkpoint) -> RunRecord:
        self._ledger.merge(checkpoint.ledger)
        self._membership.resume(checkpoint.encoding, checkpoint.declared, checkpoint.infos)
        self._emit(Resumed(self._run, checkpoint.round))
        log.info(
            "run %s: resumed from the checkpoint of round %d", self._run, checkpoint.round,
            extra={"run": self._run, "round": checkpoint.round},
        )  # fmt: skip
        await self._returned(checkpoint.workers)
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
        options, membership = self._options, self._membership
        problem = Problem(options.settings, [membership.infos[part.id] for part in declared])
        strategy = options.strategy if checkpoint is None else checkpoint.strategy
        progress = Progress(self._run, problem, strategy, self._emit)
        if checkpoint is not None:
            progress.resume(checkpoint)
        peers = Peers(membership, progress, options.round_timeout)

        async def save(state: Bytes | None) -> None:
            await self._save(progress, encoding, declared, state)

        rounds = Rounds(
            options, progress, peers, self._ledger, None if self._store is None else save, self._multicast
        )
        self._rounds = rounds
        began = time.perf_counter()
        assignment = await rounds.make(patience)
        if self._store is not None:
            self._store.clear()
        return self._recorded(progress, encoding, assignment, time.perf_counter() - began)

    def _recorded(
        self, progress: Progress, encoding: Encoding, assignment: Assignment, seconds: float
    ) -> RunRecord:
        multicast = self._multicast
        return RunRecord(
            run=self._run,
            settings=self._options.settings,
            encoding=encoding,
            plan=assignment.plan,
            candidates=assignment.candidates,
            problem=progress.problem,
            vector_bytes=assignment.side.vector_bytes,
            broadcast_bytes=assignment.side.broadcast_bytes,
            rounds=tuple(progress.records),
            converged=progress.converged,
            # At the same moment as the kernel's counts: goodbyes are still on their way.
            ledger=self._ledger.copy(),
            # The kernel did not count for the server before.
            kernel={} if self._resumed is not None else self._membership.kernel_counts(),
            incidents=tuple(progress.incidents),
            seconds=seconds,
            broadcast=None
            if multicast is None
            else multicast.record(assignment.listeners, assignment.network),
        )

    async def _encoded(self, declared: Sequence[Declaration]) -> None:
        """Wait until each partition has a holder that could encode it; LinkError if nobody comes who can."""
        membership, clock = self._membership, asyncio.get_running_loop().time
        end = clock() + self._options.rejoin_timeout
        while missing := [part.id for part in declared if part.id not in membership.infos]:
            if clock() >= end or membership.hopeless(missing):
                raise membership.nobody_holds(missing)
            await membership.change(end - clock())

    async def _returned(self, workers: Collection[str]) -> None:
        """Wait until all these are back, but not for long."""
        clock = asyncio.get_running_loop().time
        end = clock() + RETURN
        while (left := end - clock()) > 0 and set(workers) - {m.name for m in self._membership.present()}:
            await self._membership.change(left)

    async def _save(
        self, progress: Progress, encoding: Encoding, declared: Sequence[Declaration], state: Bytes | None
    ) -> None:
        """Write down where the training stands; if the disk fails a run that has begun, that goes on."""
        assert self._store is not None
        began = time.perf_counter()
        checkpoint = Checkpoint(
            run=self._run,
            settings=self._options.settings,
            strategy=progress.strategy,
            encoding=encoding,
            declared=tuple(declared),
            infos=progress.problem.infos,
            workers=tuple(member.name for member in self._membership.present()),
            plans=progress.plans,
            round=progress.round,
            over=progress.over,
            rounds=tuple(progress.records),
            incidents=tuple(progress.incidents),
            ledger=self._ledger.copy(),
            distrusted=tuple(sorted(progress.distrusted)),
            state=np.empty(0, np.uint8) if state is None else state,
        )
        try:
            size = await asyncio.to_thread(self._store.save, checkpoint)
        except UsageError as error:
            if not progress.records:
                raise
            progress.note("", "Checkpoint", str(error))
            return
        if state is not None:
            progress.keep(state)
        checkpointed = Checkpointed(progress.round, size, time.perf_counter() - began)
        self._emit(checkpointed)
        log.info(
            "run %s round %d: checkpoint of %d bytes", self._run, progress.round, size,
            extra={"run": self._run, **vars(checkpointed)},
        )  # fmt: skip

    async def _write_last(self) -> None:
        """Write down where the training stands if it can be told: there will be no better time."""
        if self._rounds is not None:
            with contextlib.suppress(AsyncDMTLError):
                await self._rounds.stop()


def _open(store: Store, options: RunOptions) -> Checkpoint | None:
    """Have the checkpoints to oneself, and read the last one if the run is to be resumed."""
    store.lock()
    try:
        return _load(store, options)
    except BaseException:
        store.unlock()
        raise


def _load(store: Store, options: RunOptions) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one; UsageError if it is of another run than the options."""
    if not options.resume:
        if store.files:
            rule = "must be a directory without checkpoints, unless --resume goes on from them"
            raise UsageError("--checkpoint", rule, str(options.checkpoint))
        return None
    checkpoint = store.load()
    if checkpoint is None:
        log.warning("there is no checkpoint in %s yet: this is a new run", options.checkpoint)
        return None
    ours, theirs = options.settings.as_dict(), checkpoint.settings.as_dict()
    if different := {name: (theirs[name], ours[name]) for name in ours if ours[name] != theirs[name]}:
        raise UsageError("--resume", "needs the options of the run that is resumed; then and now", different)
    if options.strategy not in ("auto", checkpoint.strategy):
        raise UsageError("--resume", f"needs --strategy {checkpoint.strategy}, as before", options.strategy)
    return checkpoint
