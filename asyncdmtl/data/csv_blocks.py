"""Blocks of lines of a CSV file. If cells are plain, many numbers are parsed at once, else cell by cell.

The result is always that of the csv module. A block whose lines can be cut at each separator is read without
this module, and NumPy parses its numbers, with the same bits as `float`. If NumPy would read a column
differently from `cells`, `cells` reads it.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError

# Characters of the first block of a file, by which columns of numbers and of text are distinguished.
_FIRST_BLOCK = 1 << 16

# Characters of the other blocks: enough for NumPy to be fast, few enough that memory holds little text.
_BLOCK = 1 << 20

# Separators at which lines may be cut. Other separators may be part of a number, or be several spaces.
_SEPARATORS = ",;\t|:"

# A first line by which spreadsheets say what separates cells.
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|:])"?\r?\n?')

# The most frequent of the MISSING_WORDS among numbers, besides those of `--missing`. The others are found
# too, but more slowly: a block of numbers with any other word in it is read as cells.
_WORDS = ("NA", "N/A", "#N/A", "<NA>", "NULL", "null", "None", "none")

_NEWLINE, _QUOTE, _SPACE, _PLUS, _MINUS, _POINT, _ZERO = b'\n" +-.0'


class Block(Protocol):
    """Whole lines of a file."""

    def __len__(self) -> int:
        """The number of lines."""

    def numbers(self, columns: Sequence[int], reading: Reading) -> Floats | None:
        """Numbers (columns, rows), NaN for a missing value; None if the columns must be read as cells."""

    def cells(self, columns: Sequence[int]) -> Iterator[Sequence[str]]:
        """The cells of each of some columns."""


class BlockReader:
    """Iterates over the blocks of a file, after its first line.

    Parameters
    ----------
    file : file of text
        The file, opened with `newline=""`.
    name : str
        The name of the file in errors.
    separator : str
    reading : Reading
    """

    def __init__(self, file: TextIO, name: str, separator: str, reading: Reading) -> None:
        self._file, self._name, self._separator, self._reading = file, name, separator, reading
        self._width = None if reading.header is None else len(reading.header)
        self._lines = 0

    def first_line(self) -> list[str]:
        """The cells of the first line that is not empty; none if there is no such line.

        A line `sep=;` before it names the separator, as spreadsheets write it.
        """
        text = self._file.readline()
        if (named := _SEPARATOR_LINE.fullmatch(text)) is not None:
            self._separator = self._reading.separator or named[1]
            self._lines += 1
            text = self._file.readline()
        reader = self._csv_reader(itertools.chain([text], iter(self._file.readline, "")))
        line: list[str] = next(filter(None, reader), [])
        self._lines += reader.line_num
        if len(line) == 1 and self._reading.separator is None and any(mark in line[0] for mark in ";\t|"):
            rule = "must have cells between commas, or as --separator says; its first line is"
            raise DataError(f"data file {self._name}", rule, line[0][:100])
        self._width = len(line)
        return line

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order. DataError if a line has another number of cells than the first."""
        size = _FIRST_BLOCK
        while text := self._file.read(size) + self._file.readline():
            size = _BLOCK
            if "\0" in text:
                rule = "must be text without NUL characters: it is damaged, or of another --encoding; from"
                raise DataError(f"data file {self._name}", rule, text[:20])
            plain = PlainBlock.of(text, self._separator, self._width or 0)
            if plain is None:
                yield CellBlock(self._rows(text))
            else:
                self._lines += len(plain)
                yield plain

    def _rows(self, text: str) -> list[list[str]]:
        """The cells of lines. A cell in quotes may continue in the lines that follow."""
        lines = io.StringIO(text, newline="")
        reader = self._csv_reader(itertools.chain(lines, iter(self._file.readline, "")))
        rows = []
        # The reader reads a further line if a cell continues there; otherwise the lines end with a row.
        while lines.tell() < len(text) and (row := next(reader, None)) is not None:
            if row and len(row) != self._width:
                number = self._lines + reader.line_num
                rule = f"must have {self._width} cells in every line, as the first; cells of line {number}"
                raise DataError(f"data file {self._name}", rule, len(row))
            rows.append(row)
        self._lines += reader.line_num
        return list(filter(None, rows))

    def _csv_reader(self, lines: Iterator[str]) -> Any:
        """A reader of the csv module, whose type has no public name."""
        return csv.reader(lines, delimiter=self._separator, skipinitialspace=True, strict=True)


class CellBlock:
    """Lines that the csv module has read."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self._columns, self._rows = list(zip(*rows, strict=True)), len(rows)

    def __len__(self) -> int:
        return self._rows

    def numbers(self, columns: Sequence[int], reading: Reading) -> Floats | None:
        """None, since the lines were read as cells."""
        return None

    def cells(self, columns: Sequence[int]) -> Iterator[Sequence[str]]:
        """The cells of each of some columns."""
        return (self._columns[i] if self._columns else () for i in columns)


class PlainBlock:
    """Lines that can be cut at each separator.

    Parameters
    ----------
    text : str
        Lines without quotes, each with a line feed at its end.
    separator : str
    width : int
        Number of cells in each line.
    """

    def __init__(self, text: str, separator: str, width: int) -> None:
        self._text, self._separator, self._width = text, separator, width
        self._lines = text.split("\n")[:-1]

    @classmethod
    def of(cls, text: str, separator: str, width: int) -> PlainBlock | None:
        """The block of some lines; None if the csv module must read them."""
        if separator not in _SEPARATORS or width < 2:
            return None
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if "\r" in text or "\0" in text:
            return None
        text = text if text.endswith("\n") else text + "\n"
        if '"' in text:
            if not _wraps_cells(text, separator):
                return None
            text = text.replace('"', "")
        block = cls(text, separator, width)
        whole = all(line.count(separator) == width - 1 for line in block._lines)
        return block if whole else None

    def __len__(self) -> int:
        return len(self._lines)

    def cells(self, columns: Sequence[int]) -> Iterator[Sequence[str]]:
        """The cells of each of some columns."""
        if not columns:
            return
        left, right = max(columns) + 1, self._width - min(columns)
        if left <= right:
            rows = [line.split(self._separator, left) for line in self._lines]
        else:
            rows = [line.rsplit(self._separator, right) for line in self._lines]
        for i in columns:
            at = i if left <= right else i - self._width
            yield [row[at].lstrip(" ") for row in rows]

    def numbers(self, columns: Sequence[int], reading: Reading) -> Floats | None:
        """Numbers (columns, rows), NaN for a missing value; None if the columns must be read as cells."""
        grouped = "," if reading.decimal == "." else "."
        if reading.decimal is not None and self._separator != grouped and grouped in self._text:
            return None
        if not columns or self._separator == reading.decimal or self._has_leading_zeros(columns):
            return None
        found = self._parsed(self._lines, columns, reading)
        if found is None:
            found = self._parsed(self._without_missing(reading).split("\n")[:-1], columns, reading)
        if found is None or (np.isnan(found).any() and self._has_doubtful_nan(reading)):
            return None
        # Columns that are contiguous here can be joined faster.
        return np.ascontiguousarray(reading.without_missing(found).T)

    def _parsed(self, lines: Sequence[str], columns: Sequence[int], reading: Reading) -> Floats | None:
        if reading.decimal == ",":
            lines = [line.replace(",", ".") for line in lines]
        try:
            return np.loadtxt(lines, delimiter=self._separator, usecols=columns, comments=None, ndmin=2)
        except ValueError:
            return None

    def _has_doubtful_nan(self, reading: Reading) -> bool:
        """Whether a cell may be a spelling of NaN that `cells` does not read as a missing value."""
        return ("nan" if reading.keep_missing_words else "+nan") in self._text.lower()

    def _without_missing(self, reading: Reading) -> str:
        """The text with "nan" in place of missing values."""
        text = "\n" + self._text
        for word in ("", *reading.missing, *(() if reading.keep_missing_words else _WORDS)):
            for before, after in itertools.product((self._separator, "\n"), repeat=2):
                if (cell := before + word + after) in text:
                    # Replaced twice, since neighbouring cells share a separator.
                    missing = f"{before}nan{after}"
                    text = text.replace(cell, missing).replace(cell, missing)
        return text[1:]

    def _has_leading_zeros(self, columns: Sequence[int]) -> bool:
        """Whether a cell of these columns begins with a zero and a digit."""
        raw = np.frombuffer(f"\n\n{self._text}".encode(), np.uint8)
        separator = ord(self._separator)
        # In ASCII, line ends, tabs, spaces, signs and commas are below the point.
        begins = raw[1:-2] < _POINT
        if separator > _POINT:
            begins |= raw[1:-2] == separator
        begins &= raw[2:-1] == _ZERO
        begins &= raw[3:] - _ZERO < 10
        if not begins.any():
            return False
        found = np.flatnonzero(begins) + 2
        signed = (raw[found - 1] == _PLUS) | (raw[found - 1] == _MINUS)
        found = found[np.isin(raw[found - 1 - signed], (separator, _NEWLINE, _SPACE))]
        # The line feed at 1 begins the first cell.
        marks = np.flatnonzero((raw[1:] == separator) | (raw[1:] == _NEWLINE)) + 1
        of = (np.searchsorted(marks, found) - 1) % self._width
        return bool(np.isin(of, columns).any())


def _wraps_cells(text: str, separator: str) -> bool:
    """Whether all quotes in the lines enclose whole cells without separators, quotes or line ends."""
    raw: NDArray[np.uint8] = np.frombuffer(f"\n{text}".encode(), np.uint8)
    quotes = np.flatnonzero(raw == _QUOTE)
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    ends = (raw == ord(separator)) | (raw == _NEWLINE)
    marks = np.flatnonzero(ends)
    inside = np.searchsorted(marks, opening) != np.searchsorted(marks, closing)
    spaced = raw[opening + 1] == _SPACE
    return bool(ends[opening - 1].all() and ends[closing + 1].all() and not inside.any() and not spaced.any())
