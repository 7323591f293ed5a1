"""Columns of text files: comma-separated values and their relatives."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.cells import Reading, normalised, plain_numbers
from asyncdmtl.data.files import Source, readable
from asyncdmtl.errors import DataError

Choose = Callable[[Sequence[str]], Mapping[str, int]]

# Lines that are read before their columns of numbers are converted, so that memory holds few cells as text.
_LINES = 8192


def read_cells(
    source: Source, reading: Reading, choose: Choose, text: Collection[str]
) -> dict[str, Floats | list[str]]:
    """The cells of some columns.

    Parameters
    ----------
    source : Source
    reading : Reading
    choose : callable
        Given the names of all columns, the names and positions of those to read.
    text : collection of str
        Columns of which the cells are wanted as text, even if they are plain numbers.

    Returns
    -------
    mapping of name to (rows,) float64 array, if all cells are plain numbers or empty, or list of cells.

    Raises
    ------
    DataError
        The file cannot be read, or a line has another number of cells than the first.
    """
    chosen = choose(_names(source, reading))
    found = _read_once(source, reading, chosen, set(text) | (set(chosen) if reading.decimal else set()))
    # A column that turned out to be no numbers after some blocks is read again as text.
    mixed = {name for name, parts in found.items() if len({type(part) for part in parts}) > 1}
    if mixed:
        found |= _read_once(source, reading, {name: chosen[name] for name in mixed}, mixed)
    return {name: _joined(parts) for name, parts in found.items()}


def _names(source: Source, reading: Reading) -> list[str]:
    """The names of the columns, from the first line or from the option `--header`."""
    if reading.header is not None:
        return [normalised(name) for name in reading.header]
    with _lines(source, reading) as lines:
        return [normalised(name) for name in next(lines, [])]


def _joined(parts: Sequence[Floats | list[str]]) -> Floats | list[str]:
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    if numbers:
        return np.concatenate(numbers)
    return [cell for part in parts for cell in part]


def _read_once(
    source: Source, reading: Reading, chosen: Mapping[str, int], text: Collection[str]
) -> dict[str, list[Floats | list[str]]]:
    """The blocks of some columns: numbers where all cells of a block are plain numbers, else cells."""
    found: dict[str, list[Floats | list[str]]] = {name: [] for name in chosen}
    kept: dict[str, str] = {}
    with _lines(source, reading) as lines:
        if reading.header is None:
            next(lines, None)
        while block := list(itertools.islice(lines, _LINES)):
            columns = list(zip(*block, strict=True))
            for name, i in chosen.items():
                cells: Sequence[str] = columns[i]
                numbers = None if name in text else plain_numbers(cells)
                # Equal cells share one string, since columns of text have few distinct values.
                block_cells = numbers if numbers is not None else [kept.setdefault(c, c) for c in cells]
                found[name].append(block_cells)
                if numbers is None and name not in text:
                    text = {*text, name}
    return found


@contextmanager
def _lines(source: Source, reading: Reading) -> Iterator[Iterator[list[str]]]:
    """The lines of a file as lists of cells, all of one length; empty lines are passed over."""
    separator = reading.separator or ("\t" if source.ending.startswith(".tsv") else ",")
    with readable(source.name), source.unpacked() as raw:
        try:
            with io.TextIOWrapper(raw, reading.encoding, newline="") as file:
                lines = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
                yield _checked(lines, source.name, reading)
        except UnicodeError as error:
            rule = f"must be text in {reading.encoding.removesuffix('-sig')} (--encoding names another)"
            raise DataError(f"data file {source.name}", rule, str(error)) from error


def _checked(lines: Iterator[list[str]], name: str, reading: Reading) -> Iterator[list[str]]:
    length = None if reading.header is None else len(reading.header)
    for line in lines:
        if not line:
            continue
        if length is None:
            length = len(line)
            if length == 1 and reading.separator is None and any(mark in line[0] for mark in ";\t|"):
                rule = "must have cells between commas, or as --separator says; its first line is"
                raise DataError(f"data file {name}", rule, line[0][:100])
        if len(line) != length:
            number = lines.line_num  # type: ignore[attr-defined]
            rule = f"must have {length} cells in every line, as the names in the first; line {number} has"
            raise DataError(f"data file {name}", rule, len(line))
        yield line
