from __future__ import annotations

import datetime
import hashlib
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from asyncdmtl.data.columns import (
    Column,
    as_column,
    as_text,
    is_missing,
    is_numeric,
    text_column,
    to_numbers,
    to_text,
    update_digest,
)
from asyncdmtl.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, 2], [1.0, 2.0]),
        (np.array([1, 2], dtype=np.uint8), [1.0, 2.0]),
        (np.array([True, False]), ["True", "False"]),
        ([True, None, False], ["True", None, "False"]),
        (["b", None, NAN, "a"], ["b", None, None, "a"]),
        (np.array(["x", "yy"]), ["x", "yy"]),
        ([None, None], [NAN, NAN]),
        ([Decimal("0.5"), None, 2, np.float32(1.5)], [0.5, NAN, 2.0, 1.5]),
        ([], []),
    ],
)
def test_values_become_numbers_or_text(values: Any, column: list[Any]) -> None:
    made = as_column(values, "c")
    if is_numeric(made):
        np.testing.assert_array_equal(made, np.array(column, dtype=np.float64))
    else:
        assert made.tolist() == column
    assert is_missing(made).tolist() == [value is None or value != value for value in column]


@pytest.mark.parametrize(
    "values",
    [
        [1, "a"],
        ["a", True],
        [1, True],
        [datetime.date(2026, 1, 1)],
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.array([1j]),
        [b"a"],
        np.zeros((2, 2)),
        [10**400, None],
    ],
)
def test_values_of_other_kinds_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match="column 'c'"):
        as_column(values, "column 'c'")


def test_numbers_and_text_turn_into_each_other() -> None:
    assert [as_text(v) for v in (3.0, -0.0, 0.1, np.float32(0.5), 1e300, True, 7, "x")] == [
        *("3", "0", "0.1", "0.5", "1e+300", "True", "7", "x")
    ]
    assert to_text(np.array([1.0, NAN])).tolist() == ["1", None]
    np.testing.assert_array_equal(to_numbers(text_column(["1", None, "2.5"]), "c"), [1.0, NAN, 2.5])
    with pytest.raises(DataError, match="column 'c' must be numbers, got 'two'"):
        to_numbers(text_column(["1", None, "two"]), "column 'c'")
    with pytest.raises(DataError, match="column 'c' must be numbers, got ''"):
        to_numbers(text_column(["1", None, ""]), "column 'c'")


def digest(*columns: Column) -> bytes:
    h = hashlib.blake2b()
    for column in columns:
        update_digest(h, column)
    return h.digest()


def test_digests_tell_columns_apart_but_not_kinds_of_nan() -> None:
    columns = [
        [np.array([1.0, 2.0])],
        [np.array([1.0]), np.array([2.0])],
        [np.array([1.0, NAN])],
        [text_column(["1", "2"])],
        [text_column(["12", ""])],
        [text_column(["12", None])],
        [text_column(["12"]), text_column([None])],
        [text_column(["1", "\ud800"])],
    ]
    assert len({digest(*some) for some in columns}) == len(columns)
    other_nan = np.array([0xFFF8_0000_0000_0001], dtype=np.uint64).view(np.float64)
    assert digest(as_column(other_nan, "c")) == digest(as_column([None], "c"))
