from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError
from asyncdmtl.field.byte_rows import address, check_apart, check_rows


def numbered(rows: int, length: int) -> Bytes:
    return np.arange(rows * length, dtype=np.uint8).reshape(rows, length)


def test_a_matrix_and_its_rows_have_the_same_addresses() -> None:
    matrix = numbered(4, 6)
    whole, single = check_rows("sources", matrix, 4, 6), check_rows("sources", list(matrix), 4, None)
    assert whole.count == single.count == 4
    assert whole.length == single.length == 6
    assert whole.addresses.tolist() == single.addresses.tolist()
    assert (whole.low, whole.high) == (single.low, single.high) == (address(matrix[0]), address(matrix[3]))
    assert whole.views is matrix
    assert [row.tobytes() for row in single.views] == [row.tobytes() for row in matrix]


def test_blocks_of_several_rows_and_single_rows_go_together() -> None:
    matrix = numbered(5, 3)
    rows = check_rows("sources", [matrix[:2], matrix[4], matrix[2:2]], 3, 3)
    assert [row.tobytes() for row in rows.views] == [matrix[i].tobytes() for i in (0, 1, 4)]
    chosen = rows.take(np.array([0, 2]))
    assert [row.tobytes() for row in chosen.views] == [matrix[0].tobytes(), matrix[4].tobytes()]
    assert rows.take(np.arange(3)) is rows


@pytest.mark.parametrize("single", [False, True])
def test_parts_of_rows_are_cut_and_packed(single: bool) -> None:
    matrix = numbered(3, 8)
    rows = check_rows("sources", list(matrix) if single else matrix, 3, 8)
    assert [part.tobytes() for part in rows.cut(2, 5)] == [row[2:5].tobytes() for row in matrix]
    into = np.zeros((3, 3), dtype=np.uint8)
    rows.pack(2, 5, into)
    assert np.array_equal(into, matrix[:, 2:5])


def test_rows_in_reverse_order_and_repeated_rows_are_found() -> None:
    matrix = numbered(3, 4)
    backwards = check_rows("sources", matrix[::-1], 3, 4)
    assert (backwards.low, backwards.high) == (address(matrix), address(matrix[2]))
    repeated = np.broadcast_to(matrix[0], (3, 4))
    assert set(check_rows("sources", repeated, 3, 4).addresses.tolist()) == {address(matrix)}


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        (numbered(3, 4), "must have 2 rows"),
        (numbered(2, 5), "rows of 4 bytes"),
        (numbered(2, 4).astype(np.int8), "2-D array of uint8"),
        (np.zeros(4, np.uint8), "2-D array of uint8"),
        (np.zeros((4, 4), np.uint8)[:2].T[:2], "contiguous rows"),
        ([np.zeros(4, np.uint8), np.zeros(5, np.uint8)], r"rows\[1\] must be 4 bytes"),
        ([np.zeros(4, np.uint8), [0] * 4], r"rows\[1\] must be a 1-D array"),
        ([np.zeros(8, np.uint8)[::2]], "must be contiguous"),
    ],
)
def test_rows_that_break_a_rule_are_refused(rows: Bytes, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        check_rows("rows", rows, 2, 4)


def test_no_row_tells_no_length() -> None:
    assert check_rows("rows", [], 0, 4).length == 4
    with pytest.raises(UsageError, match="without rows"):
        check_rows("rows", [], 0, None)


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        (lambda m: m[1:3], "must not overlap the sources"),
        (lambda m: m.reshape(-1)[2:10].reshape(2, 4), "must not overlap the sources"),
        (lambda m: np.lib.stride_tricks.as_strided(m[6:], (2, 4), (2, 1)), "that do not overlap"),
        (lambda m: [m[6], m[6]], "that do not overlap"),
        (lambda m: [m[7], m[3]], "must not overlap the sources"),
    ],
)
def test_results_must_not_overlap(out: Callable[[Bytes], Bytes], complaint: str) -> None:
    matrix = numbered(9, 4)
    with pytest.raises(UsageError, match=complaint):
        check_apart(check_rows("sources", matrix[:4], 4, 4), check_rows("out", out(matrix), 2, 4))


def test_rows_between_the_sources_are_apart() -> None:
    matrix = numbered(6, 4)
    check_apart(check_rows("sources", matrix[::2], 3, 4), check_rows("out", matrix[1::2], 3, 4))
    check_apart(check_rows("sources", matrix, 6, 4), check_rows("out", numbered(0, 4), 0, 4))
