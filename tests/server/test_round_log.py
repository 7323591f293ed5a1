from __future__ import annotations

import math

import pytest

from asyncdmtl.server.records import RoundRecord
from asyncdmtl.server.round_log import RoundLog

RECORDS = [
    RoundRecord(n, 1 / (n + 1), math.inf if n == 0 else 0.1 * n, 10 * n, 2**40 + n, 0.25, 0.125)
    for n in range(5)
]


def test_records_come_back_as_they_were() -> None:
    log = RoundLog(RECORDS)
    assert list(log) == RECORDS
    assert (len(log), log[0], log[-1], log[1:3]) == (5, RECORDS[0], RECORDS[-1], tuple(RECORDS[1:3]))
    with pytest.raises(IndexError):
        log[5]


def test_a_copy_does_not_grow_with_its_original() -> None:
    log = RoundLog(RECORDS[:2])
    copied = log.copy()
    assert copied == log
    log.append(RECORDS[2])
    assert list(copied) == RECORDS[:2]
    assert copied != log


def test_rounds_that_are_made_again_are_dropped() -> None:
    assert list(RoundLog(RECORDS).before(3)) == RECORDS[:3]


def test_a_packed_log_takes_56_bytes_a_round() -> None:
    packed = RoundLog(RECORDS).pack()
    assert sum(map(len, packed.values())) == 56 * len(RECORDS)
    assert packed["up_bytes"][:16] == bytes(8) + bytes([10]) + bytes(7)
    assert RoundLog.unpack(packed) == RoundLog(RECORDS)


@pytest.mark.parametrize(
    ("bent", "error"),
    [({"round": b""}, ValueError), ({"seconds": bytes(7)}, ValueError), ({"round": None}, TypeError)],
)
def test_what_is_no_log_is_refused(bent: dict[str, bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        RoundLog.unpack(RoundLog(RECORDS).pack() | bent)
