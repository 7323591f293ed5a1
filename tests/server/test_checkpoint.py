from __future__ import annotations

import msgpack
import numpy as np
import pytest
from support.checkpoints import CHECKPOINT, facts

from asyncdmtl.server.checkpoint import CHECK_BYTES, LENGTHS, MAGIC, Checkpoint, _check


def test_all_that_is_packed_is_unpacked() -> None:
    assert facts(Checkpoint.unpack(CHECKPOINT.pack())) == facts(CHECKPOINT)


def test_no_changed_byte_goes_unnoticed() -> None:
    content = CHECKPOINT.pack()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        with pytest.raises(ValueError, match="it "):
            Checkpoint.unpack(bytes(changed))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"nonsense", "no checkpoint of this version"),
        (MAGIC + bytes(10), "truncated"),
        (MAGIC + LENGTHS.pack(5, 5) + bytes(CHECK_BYTES), "bytes instead of 50"),
    ],
)
def test_other_files_are_no_checkpoints(content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Checkpoint.unpack(content)


def test_facts_that_are_missing_make_no_sense() -> None:
    facts = msgpack.packb({"run": "abc"})
    content = MAGIC + LENGTHS.pack(len(facts), 0) + facts + np.empty(0, np.uint8).tobytes()
    with pytest.raises(ValueError, match="it makes no sense: KeyError"):
        Checkpoint.unpack(content + _check(content))
