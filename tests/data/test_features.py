from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from asyncdmtl.data.columns import as_column
from asyncdmtl.data.features import CategoryColumn, EncodedColumn, NumberColumn, encode_numbers, read_column
from asyncdmtl.errors import DataError, UsageError


def encode(column: EncodedColumn, values: Any) -> list[list[float]]:
    found = as_column(values, "values")
    if isinstance(column, NumberColumn):
        numbers: list[list[float]] = encode_numbers([column], {column.name: found}).T.tolist()
        return numbers
    out = np.full((len(found), len(column.features)), 7.0)
    column.encode(found, out)
    rows: list[list[float]] = out.tolist()
    return rows


def test_numbers_are_imputed_shifted_and_scaled() -> None:
    column = NumberColumn("x", impute=3.0, shift=1.0, scale=0.5)
    assert column.features == ("x",)
    assert encode(column, [1.0, None, 4.0]) == [[0.0], [4.0], [6.0]]
    assert encode(column, ["1", None, "4e0"]) == [[0.0], [4.0], [6.0]]
    with pytest.raises(DataError, match="column 'x' must be numbers, got 'many'"):
        encode(column, ["1", "many"])
    for infinite in ([np.inf], ["inf"]):
        with pytest.raises(DataError, match="column 'x' must be finite"):
            encode(column, infinite)


def test_every_category_has_an_indicator() -> None:
    column = CategoryColumn("c", ("a", "b", "10"), missing=False)
    assert column.features == ("c=a", "c=b", "c=10")
    assert encode(column, ["b", "a"]) == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert encode(column, [10.0]) == [[0.0, 0.0, 1.0]]


def test_two_levels_share_an_indicator() -> None:
    column = CategoryColumn("c", ("False", "True"), missing=False)
    assert column.features == ("c=True",)
    assert encode(column, [True, False]) == [[1.0], [0.0]]
    column = CategoryColumn("c", ("a",), missing=True)
    assert column.features == ("c missing",)
    assert encode(column, ["a", None]) == [[0.0], [1.0]]


def test_a_missing_value_is_a_category() -> None:
    column = CategoryColumn("c", ("a", "b"), missing=True)
    assert column.features == ("c=a", "c=b", "c missing")
    assert encode(column, ["b", None]) == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert encode(column, [None, None]) == [[0.0, 0.0, 1.0]] * 2


@pytest.mark.parametrize("values", [("a", "b"), ("a", "b", "c")])
def test_an_unknown_category_is_zeros_and_a_warning(
    values: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    column = CategoryColumn("c", values, missing=False)
    with caplog.at_level(logging.WARNING):
        assert encode(column, ["a", "q", None])[1:] == [[0.0] * len(column.features)] * 2
    assert "column 'c': 2 of 3 values" in caplog.text
    assert "'q'" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"impute": 0.0, "shift": 0.0},
        {"impute": 0.0, "shift": 0.0, "scale": 0.0},
        {"impute": 0.0, "shift": 0.0, "scale": -1.0},
        {"impute": 0.0, "shift": 0.0, "scale": 1},
        {"impute": float("inf"), "shift": 0.0, "scale": 1.0},
        {"impute": 0.0, "shift": 0.0, "scale": 1.0, "more": 1},
        {"values": ["a"], "missing": False},
        {"values": ["a", "a"], "missing": False},
        {"values": ["a", 2], "missing": False},
        {"values": "ab", "missing": False},
        {"values": ["a", "b"], "missing": 0},
    ],
)
def test_a_column_that_makes_no_sense_is_refused(content: Any) -> None:
    with pytest.raises(UsageError, match="column 'x'"):
        read_column("x", content)
