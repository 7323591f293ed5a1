from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import UsageError
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import Checkpoint, Store
from asyncdmtl.server.records import Incident, RoundRecord

SETTINGS = make_settings()
PARTITIONS = make_partitions(2, "squared")


def make_checkpoint() -> Checkpoint:
    ledger = Ledger()
    ledger.count("w0", "up", "uplink", 3, payload=7, size=19)
    ledger.count("w0", "up", "uplink", 3, payload=1, size=2)
    return Checkpoint(
        run="abc",
        settings=SETTINGS,
        strategy="relay",
        encoding=Encoding.empty(),
        declared=tuple(part.declaration() for part in PARTITIONS),
        infos=tuple(part.info(SETTINGS) for part in PARTITIONS),
        workers=("w0", "w1"),
        plans=3,
        round=4,
        over=False,
        rounds=(RoundRecord(3, 0.5, float("inf"), 10, 20, 0.25),),
        incidents=(Incident(2, "w1", "was lost"),),
        ledger=ledger,
        distrusted=(("w1", "p0"),),
        state=np.arange(100, dtype=np.uint8),
    )


CHECKPOINT = make_checkpoint()


def facts(checkpoint: Checkpoint) -> dict[str, object]:
    plain = {**vars(checkpoint), "ledger": checkpoint.ledger.as_list(), "state": checkpoint.state.tobytes()}
    return plain | {"kinds": checkpoint.ledger.kinds(), "bytes": checkpoint.ledger.round_bytes(3, "up")}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.load() is None
    size = store.save(CHECKPOINT)
    found = store.load()
    assert found is not None
    assert facts(found) == facts(CHECKPOINT)
    assert [file.stat().st_size for file in store.files] == [size]


def test_the_last_two_are_kept_and_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
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
    store = Store(tmp_path)
    store.save(replace(CHECKPOINT, round=1))
    store.save(replace(CHECKPOINT, round=2))
    content = store.files[0].read_bytes()
    store.files[0].write_bytes(content[: int(len(content) * share)])
    found = store.load()
    assert found is not None
    assert found.round == 1
    # What cannot be used does not push out what can.
    store.save(replace(CHECKPOINT, round=3))
    assert [Checkpoint.unpack(file.read_bytes()).round for file in store.files] == [3, 1]


def test_no_changed_byte_goes_unnoticed() -> None:
    content = CHECKPOINT.pack()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        with pytest.raises(ValueError, match="it "):
            Checkpoint.unpack(bytes(changed))


def test_checkpoints_of_which_none_can_be_used_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(CHECKPOINT)
    (file,) = store.files
    file.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=f"--checkpoint must have a checkpoint .*{file.name}"):
        store.load()
    assert file.exists()


def test_an_unfinished_file_is_no_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(CHECKPOINT)
    (tmp_path / "00000001.unfinished").write_bytes(b"the server was killed here")
    found = store.load()
    assert found is not None
    assert found.round == CHECKPOINT.round


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--checkpoint must be a directory"):
        Store(tmp_path / "file")


def test_a_directory_is_for_one_server_at_a_time(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.lock()
    with pytest.raises(UsageError, match="--checkpoint must not be in use by another server"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
