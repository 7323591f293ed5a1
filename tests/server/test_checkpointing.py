from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import CHECKPOINT, PARTITIONS, SETTINGS, facts
from support.members import make_member
from support.problems import run_options

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.checkpointing import CheckpointWriter, delete_checkpoints, open_checkpoints
from asyncdmtl.server.events import Checkpointed, IncidentNoted, ServerEvent
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.records import RoundRecord, RunOptions
from asyncdmtl.server.training_progress import TrainingProgress

PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
STATE = make_trainer(PROBLEM, {}).state()


def options(folder: Path, **changes: Any) -> RunOptions:
    return run_options(**{"settings": SETTINGS, "checkpoint": folder} | changes)


def test_without_a_directory_there_are_no_checkpoints() -> None:
    assert open_checkpoints(run_options()) == (None, None)


def test_a_new_run_takes_an_empty_directory_for_itself(tmp_path: Path) -> None:
    store, found = open_checkpoints(options(tmp_path))
    assert store is not None
    assert found is None
    with pytest.raises(UsageError):
        open_checkpoints(options(tmp_path))
    store.unlock()


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(CHECKPOINT)
    for _ in range(2):
        # The directory is free again after the error.
        with pytest.raises(UsageError, match="--checkpoint must be a directory without checkpoints, unless"):
            open_checkpoints(options(tmp_path))


def test_checkpoints_of_a_finished_run_are_deleted_unless_another_server_uses_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(CHECKPOINT)
    store.lock()
    delete_checkpoints(options(tmp_path))
    assert len(store.files) == 1
    assert "not deleted: --checkpoint must not be in use by another server" in caplog.text
    store.unlock()
    delete_checkpoints(options(tmp_path))
    assert list(tmp_path.iterdir()) == []
    store.lock()
    store.unlock()
    delete_checkpoints(run_options())


def test_a_run_is_resumed_from_its_last_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, found = open_checkpoints(options(tmp_path, resume=True))
    assert found is None
    assert f"there is no checkpoint in {tmp_path} yet: this is a new run" in caplog.text
    assert store is not None
    store.save(CHECKPOINT)
    store.unlock()
    for strategy in ("relay", "auto"):
        store, found = open_checkpoints(options(tmp_path, resume=True, strategy=strategy))
        assert store is not None
        assert found is not None
        assert facts(found) == facts(CHECKPOINT)
        store.unlock()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": replace(SETTINGS, rounds=77)},
            r"--resume needs the options of .*'rounds': \(3, 77\)",
        ),
        ({"strategy": "central"}, "--resume needs --strategy relay, as before, got 'central'"),
    ],
)
def test_a_run_is_resumed_under_its_own_options(changes: Any, message: str, tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(CHECKPOINT)
    with pytest.raises(UsageError, match=message):
        open_checkpoints(options(tmp_path, resume=True, **changes))


async def make_writer(folder: Path) -> tuple[CheckpointWriter, TrainingProgress, list[ServerEvent]]:
    """A writer in round 4 of a run with one worker."""
    told: list[ServerEvent] = []
    progress = TrainingProgress("abc", PROBLEM, "relay", told.append, round=4, plans=2)
    membership = Membership()
    membership.add(make_member("w0", PARTITIONS, ready=True))
    membership.add(make_member("w1", PARTITIONS))
    declared = [part.declaration() for part in PARTITIONS]
    store = CheckpointStore(folder)
    return (
        CheckpointWriter(store, progress, membership, Ledger(), Encoding.empty(), declared), progress, told,
    )  # fmt: skip


async def test_a_checkpoint_says_where_the_training_stands(tmp_path: Path) -> None:
    writer, progress, told = await make_writer(tmp_path)
    progress.distrusted = {("w1", "p0"), ("w0", "p1")}
    await writer.save(STATE)
    written = CheckpointStore(tmp_path).load()
    assert written is not None
    assert (written.run, written.round, written.plans, written.workers) == ("abc", 4, 2, ("w0",))
    assert written.distrusted == (("w0", "p1"), ("w1", "p0"))
    assert written.state.tobytes() == STATE.tobytes()
    assert progress.saved is not None
    assert progress.saved.state is STATE
    (event,) = told
    assert isinstance(event, Checkpointed)
    (file,) = CheckpointStore(tmp_path).files
    assert (event.round, event.bytes) == (4, file.stat().st_size)


async def test_the_state_before_the_first_round_is_not_written(tmp_path: Path) -> None:
    writer, progress, _ = await make_writer(tmp_path)
    await writer.save(None)
    written = CheckpointStore(tmp_path).load()
    assert written is not None
    assert written.state.tolist() == []
    assert progress.saved is None


async def test_one_checkpoint_is_written_at_a_time_even_if_the_first_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, going, most = CheckpointStore.save, list[int](), list[int]()
    begun, release = threading.Event(), threading.Event()

    def slow(store: CheckpointStore, checkpoint: Checkpoint) -> int:
        going.append(checkpoint.round)
        most.append(len(going))
        begun.set()
        release.wait(10.0)
        size = save(store, checkpoint)
        going.pop()
        return size

    monkeypatch.setattr(CheckpointStore, "save", slow)
    writer, *_ = await make_writer(tmp_path)
    first = asyncio.create_task(writer.save(STATE))
    await asyncio.to_thread(begun.wait, 10.0)
    first.cancel()
    second = asyncio.create_task(writer.save(STATE))
    await asyncio.sleep(0)
    release.set()
    await second
    assert first.cancelled()
    assert most == [1, 1]
    assert len(CheckpointStore(tmp_path).files) == 2


async def test_a_disk_that_fails_ends_no_run_that_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise UsageError("--checkpoint", "must be a directory that can be written", "full")

    monkeypatch.setattr(CheckpointStore, "save", fail)
    writer, progress, told = await make_writer(tmp_path)
    with pytest.raises(UsageError, match="must be a directory that can be written"):
        await writer.save(STATE)
    progress.records.append(RoundRecord(3, 0.5, 0.5, 1, 1, 1.0))
    await writer.save(np.array(STATE))
    assert told == [
        IncidentNoted(4, "", "Checkpoint", "--checkpoint must be a directory that can be written, got 'full'")
    ]
    assert progress.saved is None
