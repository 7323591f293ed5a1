"""Columns of text files: comma-separated values, or values with another separator."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.cells import as_numbers
from asyncdmtl.data.csv_blocks import Block, BlockReader
from asyncdmtl.data.files import NO_VALUE, Source, check_copies, readable
from asyncdmtl.data.reading import Reading, normalised
from asyncdmtl.errors import DataError

Choose = Callable[[Sequence[str]], Mapping[str, int]]


def read_cells(
    source: Source, reading: Reading, choose: Choose, text: Collection[str]
) -> dict[str, Floats | list[str]]:
    """Read the cells of the chosen columns.

    Parameters
    ----------
    source : Source
    reading : Reading
    choose : callable
        Takes the names of all columns, and returns the names and positions of the columns to read.
    text : collection of str
        Columns whose cells are returned as text even if they are numbers.

    Returns
    -------
    mapping of name to (rows,) float64 array, if all cells are numbers or missing values, or list of cells.

    Raises
    ------
    DataError
        The file cannot be read, or a line has another number of cells than the first.
    """
    parts = _parts(source, reading)
    chosen = choose(parts[0].names)
    # In a single file the positions are those chosen; in a folder, each part may have an order of its own.
    if len(parts) == 1:
        parts = [parts[0]._replace(positions=chosen)]
    found = _read_all(parts, reading, chosen, text)
    # Some blocks of such a column were numbers and later ones are not: it is read again as text.
    mixed = {name for name, blocks in found.items() if len({type(block) for block in blocks}) > 1}
    if mixed:
        found |= _read_all(parts, reading, mixed, mixed)
    return {name: _joined(blocks) for name, blocks in found.items()}


class _Part(NamedTuple):
    """A file, and the positions of its columns; after the last come the values that its folder gives."""

    source: Source
    names: list[str]
    positions: Mapping[str, int]


def _parts(source: Source, reading: Reading) -> list[_Part]:
    """The file, or the parts of a folder that are not empty; DataError if their columns differ."""
    parts: list[_Part] = []
    for file in source.parts or (source,):
        names = _names(file, reading)
        if names or not source.parts:
            names += [name for name, _ in file.keys]
            parts.append(_Part(file, names, {name: i for i, name in enumerate(names)}))
    if not parts:
        raise DataError("data file", "must be a folder with files that are not empty", source.name)
    for part in parts[1:]:
        if differing := set(part.names) ^ set(parts[0].names):
            rule = f"must have the same columns as {parts[0].source.name}; only one of them has"
            raise DataError(f"data file {part.source.name}", rule, sorted(differing))
    return parts


def _names(source: Source, reading: Reading) -> list[str]:
    """The names of the columns, from the first line or from the option `--header`."""
    if reading.header is not None:
        return [normalised(name) for name in reading.header]
    with _opened(source, reading) as reader:
        return [normalised(name) for name in reader.first_line()]


def _joined(blocks: Sequence[Floats | list[str]]) -> Floats | list[str]:
    numbers = [block for block in blocks if isinstance(block, np.ndarray)]
    if numbers:
        return np.concatenate(numbers)
    return [cell for block in blocks for cell in block]


class _Columns:
    """The columns that were read so far, each as blocks: numbers up to the first other cell, then cells.

    Parameters
    ----------
    names : collection of str
    text : collection of str
        Columns that are read as cells from the beginning.
    """

    def __init__(self, names: Collection[str], text: Collection[str]) -> None:
        self.blocks: dict[str, list[Floats | list[str]]] = {name: [] for name in names}
        self._numeric = {name: name not in text for name in names}
        # Equal cells share one string, since columns of text have few distinct values.
        self._kept: dict[str, str] = {}

    def read(self, part: _Part, reading: Reading) -> int:
        """Read a file, and return the number of its rows."""
        rows = 0
        with _opened(part.source, reading) as reader:
            if reading.header is None:
                reader.first_line()
            for block in reader:
                self._add(block, part, reading)
                rows += len(block)
        return rows

    def _add(self, block: Block, part: _Part, reading: Reading) -> None:
        given = {k: "" if v == NO_VALUE else v for k, v in part.source.keys if k in self.blocks}
        several = [name for name in self.blocks if name not in given]
        numeric = [name for name in several if self._numeric[name]]
        matrix = block.numbers([part.positions[name] for name in numeric], reading)
        if matrix is not None:
            for name, column in zip(numeric, matrix, strict=True):
                self.blocks[name].append(column)
            several = [name for name in several if not self._numeric[name]]
        for name, cells in zip(several, block.cells([part.positions[name] for name in several]), strict=True):
            self._add_cells(name, cells, reading)
        for name, value in given.items():
            self._add_cells(name, [value] * len(block), reading)

    def _add_cells(self, name: str, cells: Sequence[str], reading: Reading) -> None:
        numbers = as_numbers(cells, reading) if self._numeric[name] else None
        if numbers is None:
            self._numeric[name] = False
            self.blocks[name].append([self._kept.setdefault(cell, cell) for cell in cells])
        else:
            self.blocks[name].append(numbers)


def _read_all(
    parts: Sequence[_Part], reading: Reading, chosen: Collection[str], text: Collection[str]
) -> dict[str, list[Floats | list[str]]]:
    """The blocks of some columns of all parts; DataError if two parts have the same rows."""
    columns = _Columns(chosen, text)
    check_copies([part.source for part in parts if columns.read(part, reading)])
    return columns.blocks


@contextmanager
def _opened(source: Source, reading: Reading) -> Iterator[BlockReader]:
    """A reader of the lines of a file."""
    separator = reading.separator or source.separator
    with readable(source.name), source.unpacked() as raw:
        try:
            with io.TextIOWrapper(raw, reading.encoding, newline="") as file:
                yield BlockReader(file, source.name, separator, reading)
        except UnicodeError as error:
            rule = f"must be text in {reading.encoding.removesuffix('-sig')} (--encoding names another)"
            raise DataError(f"data file {source.name}", rule, str(error)) from error
