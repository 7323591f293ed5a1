"""Writing the checkpoints of a run, and finding the one from which a server continues."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import SEALED, Declaration
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.events import Checkpointed
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.records import RunOptions
from asyncdmtl.server.training_progress import TrainingProgress

log = logging.getLogger(__name__)


def open_checkpoints(options: RunOptions) -> tuple[CheckpointStore | None, Checkpoint | None]:
    """Lock the directory of checkpoints, if there is one, and read the checkpoint to resume from.

    Raises
    ------
    UsageError
        The directory cannot be used, or its checkpoints are of another run than the options.
    """
    if options.checkpoint is None:
        return None, None
    store = CheckpointStore(options.checkpoint)
    store.lock()
    try:
        return store, _load(store, options)
    except BaseException:
        store.unlock()
        raise


def delete_checkpoints(options: RunOptions) -> None:
    """Delete the checkpoints of a finished run. Before its report is kept, a killed server needs them.

    If another server uses their directory already, they are its own.
    """
    if options.checkpoint is None:
        return
    try:
        store = CheckpointStore(options.checkpoint)
        store.lock()
    except UsageError as error:
        log.warning("the checkpoints of the finished run are not deleted: %s", error)
        return
    try:
        store.clear()
    finally:
        store.unlock()


def _load(store: CheckpointStore, options: RunOptions) -> Checkpoint | None:
    """The checkpoint to resume from, if there is one; UsageError if it is of another run than the options."""
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
    if options.blind != any(SEALED in part.survey for part in checkpoint.declared):
        rule = "needs --blind if, and only if, the run that is resumed had it"
        raise UsageError("--resume", rule, "--blind" if options.blind else "a blind run, but no --blind")
    return checkpoint


class CheckpointWriter:
    """Writes the checkpoints of one run.

    Parameters
    ----------
    store : CheckpointStore
    progress : TrainingProgress
    membership : Membership
    ledger : Ledger
    encoding : Encoding
    declared : sequence of Declaration
        All partitions, in natural order.
    """

    def __init__(
        self,
        store: CheckpointStore,
        progress: TrainingProgress,
        membership: Membership,
        ledger: Ledger,
        encoding: Encoding,
        declared: Sequence[Declaration],
    ) -> None:
        self._store = store
        self._progress = progress
        self._membership = membership
        self._ledger = ledger
        self._encoding = encoding
        self._declared = tuple(declared)
        # One save at a time: a second one, when the server is stopped, waits for the first.
        self._saving = asyncio.Lock()

    async def save(self, state: Bytes | None, prepared: Checkpoint | None = None) -> None:
        """Write a checkpoint. If this fails after training has begun, the run goes on.

        Parameters
        ----------
        state : uint8 array or None
            The state of the training; None for the state before the first round, and for one that only
            the workers hold.
        prepared : Checkpoint, optional
            The checkpoint of the round that the state is of, as `prepare` made it then; without it, one of
            the run as it stands is made.

        Raises
        ------
        UsageError
            The first checkpoint cannot be written.
        """
        progress, began = self._progress, time.perf_counter()
        checkpoint = prepared or self.prepare()
        if state is not None:
            checkpoint = replace(checkpoint, state=state)
        try:
            async with self._saving:
                size = await _whole(asyncio.to_thread(self._store.save, checkpoint))
        except UsageError as error:
            if not progress.records:
                raise
            progress.note("", "Checkpoint", str(error))
            return
        if state is not None:
            progress.keep_saved(checkpoint.round, state, over=checkpoint.over)
        checkpointed = Checkpointed(checkpoint.round, size, time.perf_counter() - began)
        progress.emit(checkpointed)
        log.info(
            "run %s round %d: checkpoint of %d bytes", progress.run, progress.round, size,
            extra={"run": progress.run, **vars(checkpointed)},
        )  # fmt: skip

    def prepare(self) -> Checkpoint:
        """The checkpoint of the run as it stands, without the state of the training."""
        progress = self._progress
        return Checkpoint(
            run=progress.run,
            settings=progress.problem.settings,
            strategy=progress.strategy,
            encoding=self._encoding,
            declared=self._declared,
            infos=progress.problem.infos,
            workers=tuple(member.name for member in self._membership.present()),
            plans=progress.plans,
            round=progress.round,
            over=progress.over,
            rounds=progress.records.copy(),
            incidents=tuple(progress.incidents),
            ledger=self._ledger.copy(),
            distrusted=tuple(sorted(progress.distrusted)),
            state=np.empty(0, np.uint8),
            ending=progress.ending,
        )


async def _whole(saving: Coroutine[Any, Any, int]) -> int:
    """The result of a save, whose thread is waited for even if this task is cancelled."""
    task = asyncio.ensure_future(saving)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
