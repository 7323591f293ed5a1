from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from support.checkpoints import CHECKPOINT, facts

from asyncdmtl.errors import UsageError
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpoint_store import CheckpointStore


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new" / "folder")
    assert store.load() is None
    size = store.save(CHECKPOINT)
    found = store.load()
    assert found is not None
    assert facts(found) == facts(CHECKPOINT)
    assert [file.stat().st_size for file in store.files] == [size]


def test_the_last_two_are_kept_and_the_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for round_ in range(5):
        store.save(replace(CHECKPOINT, round=round_))
    assert [Checkpoint.unpack(file.read_bytes()).round for file in store.files] == [4, 3, 0]
    for file in store.files[:2]:
        file.write_bytes(file.read_bytes()[:-1])
    found = store.load()
    assert found is not None
    assert found.round == 0
    store.clear()
    assert store.files == []


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1, 3), Fraction(99, 100)])
def test_of_a_truncated_checkpoint_the_one_before_is_used(tmp_path: Path, share: Fraction) -> None:
    store = CheckpointStore(tmp_path)
    store.save(replace(CHECKPOINT, round=1))
    store.save(replace(CHECKPOINT, round=2))
    content = store.files[0].read_bytes()
    store.files[0].write_bytes(content[: int(len(content) * share)])
    found = store.load()
    assert found is not None
    assert found.round == 1
    # A damaged checkpoint does not displace a valid one.
    store.save(replace(CHECKPOINT, round=3))
    assert [Checkpoint.unpack(file.read_bytes()).round for file in store.files] == [3, 1]


def test_checkpoints_of_which_none_can_be_used_are_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(CHECKPOINT)
    (file,) = store.files
    file.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=f"--checkpoint must have a checkpoint .*{file.name}"):
        store.load()
    assert file.exists()


def test_an_unfinished_file_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(CHECKPOINT)
    (tmp_path / "00000001.unfinished").write_bytes(b"the server was killed here")
    found = store.load()
    assert found is not None
    assert found.round == CHECKPOINT.round


def test_copies_of_other_names_are_left_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(replace(CHECKPOINT, round=1))
    others = [
        tmp_path / "backup-00000009.checkpoint",
        tmp_path / "0.checkpoint",
        tmp_path / "copy.unfinished",
    ]
    for other in others:
        other.write_bytes(store.files[0].read_bytes())
    for round_ in (2, 3, 4):
        store.save(replace(CHECKPOINT, round=round_))
    assert [Checkpoint.unpack(file.read_bytes()).round for file in store.files] == [4, 3, 1]
    store.clear()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_checkpoints_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new")
    store.save(CHECKPOINT)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE(store.files[0].stat().st_mode) == 0o600


def test_no_link_is_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious", encoding="utf-8")
    store = CheckpointStore(folder)
    (folder / "00000000.unfinished").symlink_to(victim)
    store.save(CHECKPOINT)
    assert victim.read_text(encoding="utf-8") == "precious"
    assert [file.is_symlink() for file in store.files] == [False]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--checkpoint must be a directory"):
        CheckpointStore(tmp_path / "file")


def test_a_directory_is_for_one_server_at_a_time(tmp_path: Path) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    first.lock()
    with pytest.raises(UsageError, match="--checkpoint must not be in use by another server"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


@pytest.mark.parametrize(
    "number", [errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOSYS]
)
def test_file_systems_that_neither_lock_nor_flush_directories_are_used(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    flush = os.fsync
    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(
        "os.fsync", lambda handle: refuse() if stat.S_ISDIR(os.fstat(handle).st_mode) else flush(handle)
    )
    store = CheckpointStore(tmp_path)
    store.lock()
    store.save(CHECKPOINT)
    store.save(CHECKPOINT)
    assert store.load() is not None
    store.unlock()
    for words in ("cannot be locked", "cannot be flushed to the disk"):
        assert sum(words in record.message for record in caplog.records) == 1


def test_a_file_system_that_flushes_nothing_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("os.fsync", refuse)
    CheckpointStore(tmp_path).save(CHECKPOINT)
    assert CheckpointStore(tmp_path).load() is not None
    assert len(caplog.records) == 1


def test_a_system_without_locks_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    CheckpointStore(tmp_path).lock()
    assert "cannot be locked" in caplog.text


def test_other_errors_of_the_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(UsageError, match="--checkpoint must be a directory that can be written to"):
        CheckpointStore(tmp_path).save(CHECKPOINT)


def test_checkpoints_that_cannot_be_deleted_do_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    store = CheckpointStore(tmp_path)
    store.save(CHECKPOINT)
    monkeypatch.setattr(Path, "unlink", refuse)
    store.clear()
    assert "cannot be cleared (Read-only file system): delete its checkpoints" in caplog.text


def test_the_latest_checkpoint_is_cleared_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    for _ in range(2):
        store.save(CHECKPOINT)
    latest, before = store.files
    removed: list[Path] = []
    monkeypatch.setattr(Path, "unlink", lambda file, **_: removed.append(file))
    store.clear()
    assert removed == [before, latest]
