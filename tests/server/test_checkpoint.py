from __future__ import annotations

from dataclasses import replace

import msgpack
import numpy as np
import pytest
from support.checkpoints import CHECKPOINT, facts

from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import CHECK_BYTES, LENGTHS, MAGIC, Checkpoint, _check
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.server.round_log import RoundLog


def test_all_that_is_packed_is_unpacked() -> None:
    assert facts(Checkpoint.unpack(CHECKPOINT.pack())) == facts(CHECKPOINT)


def test_no_changed_byte_goes_unnoticed() -> None:
    content = CHECKPOINT.pack()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        with pytest.raises(ValueError, match="it "):
            Checkpoint.unpack(bytes(changed))


def test_a_long_run_of_many_workers_has_small_checkpoints() -> None:
    ledger = Ledger()
    for round_ in range(100):
        for worker in range(200):
            ledger.count(f"worker-{worker}", "up", "uplink", round_, payload=4_000_000, size=4_000_200)
            ledger.count(f"worker-{worker}", "down", "downlink", round_, payload=9_000_000, size=9_000_300)
    rounds = RoundLog(RoundRecord(n, 0.5 + n, 0.25, 10**9, 2 * 10**9, 0.125) for n in range(50_000))
    made = replace(CHECKPOINT, ledger=ledger, rounds=rounds)
    content = made.pack()
    assert len(content) < made.state.nbytes + 5_000_000
    back = Checkpoint.unpack(content)
    assert back.rounds == rounds
    assert back.ledger.total() == ledger.total()


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
