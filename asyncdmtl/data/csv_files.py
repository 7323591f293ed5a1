"""Columns of text files: comma-separated values, or values with another separator."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.cells import as_numbers
from asyncdmtl.data.csv_blocks import BlockReader
from asyncdmtl.data.files import Source, readable
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
    chosen = choose(_names(source, reading))
    found = _read_once(source, reading, chosen, text)
    # Some blocks of such a column were numbers and later ones are not: it is read again as text.
    mixed = {name for name, parts in found.items() if len({type(part) for part in parts}) > 1}
    if mixed:
        found |= _read_once(source, reading, {name: chosen[name] for name in mixed}, mixed)
    return {name: _joined(parts) for name, parts in found.items()}


def _names(source: Source, reading: Reading) -> list[str]:
    """The names of the columns, from the first line or from the option `--header`."""
    if reading.header is not None:
        return [normalised(name) for name in reading.header]
    with _opened(source, reading) as reader:
        return [normalised(name) for name in reader.first_line()]


def _joined(parts: Sequence[Floats | list[str]]) -> Floats | list[str]:
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    if numbers:
        return np.concatenate(numbers)
    return [cell for part in parts for cell in part]


def _read_once(
    source: Source, reading: Reading, chosen: Mapping[str, int], text: Collection[str]
) -> dict[str, list[Floats | list[str]]]:
    """The blocks of some columns: numbers up to the first block with a cell that is no number, then cells."""
    found: dict[str, list[Floats | list[str]]] = {name: [] for name in chosen}
    textual = [name for name in chosen if name in text]
    numeric = [name for name in chosen if name not in text]
    # Equal cells share one string, since columns of text have few distinct values.
    kept: dict[str, str] = {}
    with _opened(source, reading) as reader:
        if reading.header is None:
            reader.first_line()
        for block in reader:
            matrix = block.numbers([chosen[name] for name in numeric], reading)
            if matrix is not None:
                for name, column in zip(numeric, matrix, strict=True):
                    found[name].append(column)
                several = textual
            else:
                several = list(chosen)
            for name, cells in zip(several, block.cells([chosen[name] for name in several]), strict=True):
                numbers = None if name in textual else as_numbers(cells, reading)
                if numbers is not None:
                    found[name].append(numbers)
                    continue
                found[name].append([kept.setdefault(cell, cell) for cell in cells])
                if name in numeric:
                    numeric.remove(name)
                    textual.append(name)
    return found


@contextmanager
def _opened(source: Source, reading: Reading) -> Iterator[BlockReader]:
    """A reader of the lines of a file."""
    separator = reading.separator or ("\t" if source.ending.startswith(".tsv") else ",")
    with readable(source.name), source.unpacked() as raw:
        try:
            with io.TextIOWrapper(raw, reading.encoding, newline="") as file:
                yield BlockReader(file, source.name, separator, reading)
        except UnicodeError as error:
            rule = f"must be text in {reading.encoding.removesuffix('-sig')} (--encoding names another)"
            raise DataError(f"data file {source.name}", rule, str(error)) from error
