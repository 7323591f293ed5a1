from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.protocol.messages import pieces as module
from asyncdmtl.protocol.messages.base import NO_BODY
from asyncdmtl.protocol.messages.pieces import pieces
from asyncdmtl.protocol.messages.registry import MAX_CONTAINERS, Declare, pack, unpack
from asyncdmtl.protocol.session import WORKER_HEAD_LIMIT


def declaration(name: str, columns: int) -> Declaration:
    column = {"count": 3, "mean": 0.5, "M2": 2.0}
    survey: dict[str, Any] = {
        "columns": [[f"column {i}", column] for i in range(columns)],
        "fingerprints": {"columns": [[f"column {i}", "0123456789abcdef"] for i in range(columns)]},
    }
    return Declaration(name, "task", bytes(16), 3, survey)


def test_what_fits_one_head_is_one_piece() -> None:
    assert list(pieces(())) == [()]
    few = (declaration("p0", 3), declaration("p1", 3))
    assert list(pieces(few)) == [few]


def test_wide_tables_and_many_tasks_are_cut_into_pieces_that_a_server_takes() -> None:
    for declared in (
        [declaration(f"p{i}", 20_000) for i in range(3)],
        [declaration(f"p{i}", 45) for i in range(1200)],
    ):
        found = list(pieces(declared))
        assert len(found) > 1
        assert [part for piece in found for part in piece] == declared
        for piece in found:
            head = pack(Declare(piece))
            assert len(head) < WORKER_HEAD_LIMIT
            read = unpack(head, NO_BODY)
            assert isinstance(read, Declare)
            assert [part.id for part in read.partitions] == [part.id for part in piece]


def test_limits_are_those_of_a_head() -> None:
    assert module._MOST_BYTES < WORKER_HEAD_LIMIT
    assert module._MOST_LISTS < MAX_CONTAINERS


def test_what_no_head_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LISTS", 300)
    with pytest.raises(DataError, match=r"partition 'p1' has too many columns .*--omit.*, got 100"):
        pieces([declaration("p0", 10), declaration("p1", 100)])
    monkeypatch.setattr(module, "MAX_PIECES", 2)
    monkeypatch.setattr(module, "PIECE_LISTS", 10)
    with pytest.raises(DataError, match=r"too many columns together .* 3 partitions of, got 10"):
        pieces([declaration(f"p{i}", 10) for i in range(3)])
