from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from support.table_files import plain

from asyncdmtl.data.cells import as_numbers, read_names, read_texts, texts_of
from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError


def column(*cells: str | None, **options: Any) -> list[Any]:
    return plain(read_texts(cells, "x", "column 'x'", Reading(**options)))


NUMBERS = [str(i) for i in range(20)]


def test_plain_numbers_and_empty_cells_are_numbers() -> None:
    assert column("1", " 2.5 ", "", "-3e-2", None, "1e400") == [1.0, 2.5, None, -0.03, None, np.inf]
    assert column("inf", "-Infinity", "1") == [np.inf, -np.inf, 1.0]
    assert column("", None) == [None, None]
    assert as_numbers(["1", "1_0"], Reading()) is None


@pytest.mark.parametrize("word", ["NA", "n/a", "null", "None", "nan", "#N/A", "<NA>"])
def test_a_word_for_a_missing_value_is_one_among_numbers_and_refused_among_text(word: str) -> None:
    assert column("1", word, "2") == [1.0, None, 2.0]
    with pytest.raises(DataError) as caught:
        column("red", word, "blue", word)
    assert "column 'x' has a cell in 2 of 4 rows that may be a missing value or not" in str(caught.value)
    assert column("red", word, missing=(word,)) == ["red", None]
    assert column("red", word, keep_missing_words=True) == ["red", word]


@pytest.mark.parametrize("mark", ["?", "-", ".", "--", "*"])
def test_a_mark_that_may_be_a_missing_value_is_refused_everywhere(mark: str) -> None:
    for cells in (["red", "blue", mark], [*NUMBERS, mark]):
        with pytest.raises(DataError, match="--missing"):
            column(*cells)
        assert column(*cells, missing=(mark,))[-1] is None
        assert column(*cells, missing=(mark,))[0] in ("red", 0.0)


def test_a_column_of_numbers_with_exceptions_asks() -> None:
    with pytest.raises(
        DataError, match=r"has numbers in 20 of 21 rows, and other cells in 1: --missing n.d."
    ):
        column(*NUMBERS, "n.d.")
    assert column(*NUMBERS, "n.d.", categorical=("x",)) == [*NUMBERS, "n.d."]
    # Many rows without a value do not make numbers categories.
    for words in (["unknown"] * 30, ["tbd", "unknown"] * 15, ["<0.1"] * 30):
        with pytest.raises(DataError, match="has numbers in 20 of 50 rows, and other cells in 30"):
            column(*NUMBERS, *words)
    # Few distinct numbers may be grades: the column is read as text.
    assert column("1", "2", "3", "fail") == ["1", "2", "3", "fail"]


def test_leading_zeros_are_text(caplog: pytest.LogCaptureFixture) -> None:
    assert column("01234", "94110", "7") == ["01234", "94110", "7"]
    assert "column 'x' is taken as text, since numbers such as 01234 begin with a zero" in caplog.text
    assert column("0", "0.5", "-0.25") == [0.0, 0.5, -0.25]


@pytest.mark.parametrize(
    "cells",
    [
        ("1,5", "2,25", "3,0"),
        ("1.234,5", "2", "17,25"),
        ("1,234", "12,345", "7"),
        ("12 %", "13 %", "99 %"),
        ("$1,200.50", "$3", "$17"),
        ("3 €", "4 €", "5,50 €"),
        ("\u22123", "4", "5.5"),
        ("(1.5)", "2", "<0.1"),
        ("0x1F", "1_000", "7"),
    ],
)
def test_numbers_in_another_notation_are_refused(cells: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"looks like numbers in another notation: --decimal , reads 1,5"):
        column(*cells)
    assert len(set(column(*cells, categorical=("x",)))) == 3


def test_numbers_with_a_decimal_comma_are_read_where_it_is_said() -> None:
    assert column("1,5", "1.234,5", "-7", "1.234", "", "2,5e3", decimal=",") == [
        1.5,
        1234.5,
        -7.0,
        1234.0,
        None,
        2500.0,
    ]
    assert column("1.5", "1,234.5", "12,345,678", decimal=".") == [1.5, 1234.5, 12345678.0]
    # With a decimal comma, a point must group three digits; otherwise the cell is no number.
    assert column("1.5", "red", decimal=",") == ["1.5", "red"]


def test_spellings_of_one_value_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        names = read_names(["1", "1.0", "red", "Red", "red ", "blue"], "column 'x'", Reading())
    assert list(names) == ["1", "1", "red", "Red", "red", "blue"]
    assert "column 'x': '1' and '1.0' are taken as the same" in caplog.text
    assert "column 'x': 'Red' and 'red' are taken as different" in caplog.text


def test_known_values_and_spellings_are_kept() -> None:
    assert list(read_names(["NA", "TRUE"], "c", Reading(), known=("NA",))) == ["NA", "True"]
    assert list(read_texts(["TRUE", " false"], "y", "target", Reading(), spelled=True)) == ["TRUE", "false"]


def test_values_of_all_types_are_cells() -> None:
    assert texts_of([None, float("nan"), 1, 2.0, True, b"x", "y"], "c") == [
        None,
        None,
        "1",
        "2",
        "True",
        "x",
        "y",
    ]
    with pytest.raises(DataError, match="must be text in UTF-8"):
        texts_of([b"\xff"], "column 'x'")
