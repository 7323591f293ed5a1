from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncdmtl.data.cells import as_numbers
from asyncdmtl.data.csv_blocks import BlockReader, CellBlock, PlainBlock
from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError

CELLS = st.sampled_from(
    [
        "1", "-2.5", " 3", "4 ", "+1e-05", "0", "-0.0", "0.1", "00.5", "007", "-01", "1e400", "5e-324", "inf",
        "-Infinity", "", " ", "NA", "nan", "NaN", "-nan", "+nan", "null", "None", "red", "a b", "school 05",
        "1_000", "0x10", "1e", "٣", "\u00a05", "é", '"1"', '"a"', '" b"', '"c,d"', '"e\nf"', '"g""h"', '""',
        "123456789012345678", "0.30000000000000004", "-999", "-999.0", "1.5", "9,5" , "9.007199254740993e15",
    ]
)  # fmt: skip

READINGS = st.sampled_from(
    [
        Reading(),
        Reading(missing=("-999", "red")),
        Reading(keep_missing_words=True),
        Reading(decimal=","),
        Reading(decimal="."),
        Reading(separator=";", decimal=","),
    ]
)


def blocks(text: str, reading: Reading, header: Sequence[str]) -> list[PlainBlock | CellBlock]:
    reader = BlockReader(io.StringIO(text, newline=""), "a.csv", reading.separator or ",", reading)
    assert reader.first_line() == list(header)
    return list(reader)  # type: ignore[arg-type]


def as_cells(block: PlainBlock | CellBlock) -> list[list[str]]:
    return [list(cells) for cells in block.cells([0, 1, 2])]


@settings(max_examples=40)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), READINGS, st.sampled_from("\n\r"))
@example([("1", "", ""), ("", "", "3")], Reading(), "\n")
@example([("007", "1", "x"), ("1", "2", "x")], Reading(), "\n")
@example([("-999", "1", "2"), ("1", "-999.0", "2")], Reading(missing=("-999",)), "\n")
def test_plain_blocks_mean_what_the_csv_module_says(
    rows: list[tuple[str, str, str]], reading: Reading, end: str
) -> None:
    separator = reading.separator or ","
    text = "".join(separator.join(row) + end.replace("\r", "\r\n") for row in rows)
    plain = PlainBlock.of(text, separator, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainBlock, "of", lambda *_: None)
        try:
            (by_cells,) = blocks(f"a{separator}b{separator}c\n{text}", reading, "abc")
        except (DataError, csv.Error):
            assert plain is None
            return
    if plain is None:
        return
    assert as_cells(plain) == as_cells(by_cells)
    for i, cells in enumerate(as_cells(by_cells)):
        found = plain.numbers([i], reading)
        if found is not None:
            expected = as_numbers(cells, reading)
            assert expected is not None
            assert found.tobytes() == expected.tobytes() or np.array_equal(found[0], expected, equal_nan=True)
            assert (np.signbit(found[0]) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize(
    ("text", "reading", "values"),
    [
        ("a,1,2.5\nb,-3,4e1\n", Reading(), [[1.0, -3.0], [2.5, 40.0]]),
        ("a,1,2\r\nb,3,4", Reading(), [[1.0, 3.0], [2.0, 4.0]]),
        ("a,,NA\nb,nan,\n", Reading(), [[np.nan, np.nan], [np.nan, np.nan]]),
        ('"a",1,"2"\n"b",3,"4"\n', Reading(), [[1.0, 3.0], [2.0, 4.0]]),
        ("a,-999,2\nb,3,-999.0\n", Reading(missing=("-999",)), [[np.nan, 3.0], [2.0, np.nan]]),
        ("a;1,5;2\nb;3;-4,25\n", Reading(separator=";", decimal=","), [[1.5, 3.0], [2.0, -4.25]]),
        ("007,1,2\n008,3,4\n", Reading(), [[1.0, 3.0], [2.0, 4.0]]),
    ],
)
def test_numbers_are_parsed_together(text: str, reading: Reading, values: list[list[float]]) -> None:
    block = PlainBlock.of(text, reading.separator or ",", 3)
    assert block is not None
    assert len(block) == 2
    np.testing.assert_array_equal(block.numbers([1, 2], reading), values)


def test_columns_that_are_no_numbers_are_left_to_the_cells() -> None:
    block = PlainBlock.of("007,1,+nan\n1,x,2\n", ",", 3)
    assert block is not None
    assert [block.numbers([i], Reading()) for i in range(3)] == [None] * 3


@pytest.mark.parametrize(
    "text",
    ["a,b\n", "a,b,c,d\n", 'a,"b,c",d\n', 'a,"b""c",d\n', 'a,5" pipe,d\n', "a,b,c\rd,e,f\n", "\na,b,c\n"],
)
def test_lines_that_need_the_csv_module(text: str) -> None:
    assert PlainBlock.of(text, ",", 3) is None


def test_a_cell_that_goes_on_in_the_next_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.data.csv_blocks._FIRST_BLOCK", 5)
    monkeypatch.setattr("asyncdmtl.data.csv_blocks._BLOCK", 5)
    text = 'a,b,c\n1,2,3\n4,"x\ny\nz\n\n\nw",6\n7,8,9\n'
    found = blocks(text, Reading(), "abc")
    assert [type(block) for block in found] == [PlainBlock, CellBlock, PlainBlock]
    assert [as_cells(block) for block in found] == [
        [["1"], ["2"], ["3"]],
        [["4"], ["x\ny\nz\n\n\nw"], ["6"]],
        [["7"], ["8"], ["9"]],
    ]
    with pytest.raises(DataError, match="cells of line 10, got 2"):
        blocks(text + "1,2\n", Reading(), "abc")


def test_damaged_text_is_refused() -> None:
    with pytest.raises(DataError, match="must be text without NUL characters"):
        blocks("a,b\n1,2\0\n", Reading(), "ab")
