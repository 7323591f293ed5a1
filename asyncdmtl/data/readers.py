"""Columns of a file in any format, read by the rules of `cells`."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from asyncdmtl.data import csv_files, npz_files, parquet_files
from asyncdmtl.data.cells import read_names, read_texts, texts_of, warn_of_number_texts
from asyncdmtl.data.columns import Column, as_column, is_numeric, text_column, to_text
from asyncdmtl.data.files import Source
from asyncdmtl.data.reading import Reading, normalised
from asyncdmtl.errors import DataError

log = logging.getLogger(__name__)

# From the first on, float64 rounds whole numbers; from the second on, numbers are measurements, not integers.
_ROUNDED, _LARGE = 2.0**53, 2.0**64

# Names of a column that holds a row index: empty as R and pandas write it in CSV, "Unnamed: 0" as pandas
# reads that back, and pandas' name for it in Parquet.
_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")

# The most names of columns that an error lists.
_SHOWN_NAMES = 20


@dataclass(frozen=True)
class Wanted:
    """The columns to read, and how to read each of them.

    Attributes
    ----------
    key : str
        The column that holds names of tasks.
    target : str or None
        The column of the target, whose text keeps its spelling.
    only : collection of str or None
        Columns to read besides `key`, if the file has them; None for all.
    omit : collection of str
        Columns that are not read.
    known : mapping of column to collection of str
        Columns to read as categories even if all cells are numbers, each with its known categories.
    verbatim : collection of str
        Columns whose cells are read as text without any change.
    needed : collection of str
        Columns, besides `key`, that the file must have.
    key_value : str or None
        The value of `key` in all rows of a file that lacks it. With None, such a file is refused.
    """

    key: str
    target: str | None = None
    only: Collection[str] | None = None
    omit: Collection[str] = ()
    known: Mapping[str, Collection[str]] = field(default_factory=dict)
    verbatim: Collection[str] = ()
    needed: Collection[str] = ()
    key_value: str | None = None


def read_columns(source: Source, wanted: Wanted, reading: Reading) -> dict[str, Column]:
    """The columns of a file, in its order.

    Names of columns are in Unicode normalisation form C, without spaces around them. Features of an `.npz`
    without names are `x0`, `x1`, ….

    Returns
    -------
    mapping of name to (rows,) array: float64 with NaN, or text with None, for missing values.

    Raises
    ------
    DataError
        The file cannot be read, lacks `wanted.key` or a column to omit, has two columns of one name, or a
        column can be read in two ways or in none.
    """

    def choose(names: Sequence[str]) -> dict[str, int]:
        return _choose(source, [normalised(name) for name in names], wanted)

    text = {wanted.key, *wanted.known, *wanted.verbatim, *reading.categorical}
    cells: Mapping[str, object]
    if source.is_text:
        cells = csv_files.read_cells(source, reading, choose, text)
    elif source.ending == ".npz":
        cells = npz_files.read_cells(source, choose, text)
    else:
        cells = parquet_files.read_cells(source, choose, text)
    columns = {name: _column(name, values, source, wanted, reading) for name, values in cells.items()}
    for name, column in columns.items():
        if is_numeric(column) and ((np.abs(column) >= _ROUNDED) & (np.abs(column) < _LARGE)).any():
            log.warning(
                "column %r of %s has whole numbers beyond 2^53, which are rounded: --categorical or --omit, "
                "if they are identifiers",
                name, source.name,
            )  # fmt: skip
    if wanted.key not in columns and wanted.key_value is not None:
        rows = len(next(iter(columns.values())))
        columns[wanted.key] = text_column([wanted.key_value] * rows)
    return columns


def _column(name: str, cells: object, source: Source, wanted: Wanted, reading: Reading) -> Column:
    what = f"column {name!r} of {source.name}"
    if isinstance(cells, np.ndarray):
        column = as_column(cells, what)
        numbers = reading.without_missing(column) if is_numeric(column) else column
        as_text = name in {*wanted.known, *wanted.verbatim, *reading.categorical}
        return to_text(numbers) if as_text else numbers
    assert isinstance(cells, list)
    texts = texts_of(cells, what)
    if name in wanted.verbatim:
        return text_column([text or None for text in texts])
    if name == wanted.key:
        return read_names(texts, what, reading)
    if name in wanted.known:
        return read_names(texts, what, reading, known=wanted.known[name])
    if source.is_text:
        return read_texts(texts, name, what, reading, spelled=name == wanted.target)
    # Formats with types (Parquet, `.npz`) declare a column as text, so that its cells are not parsed as
    # numbers.
    column = read_names(texts, what, reading, spelled=name == wanted.target)
    if name not in reading.categorical:
        warn_of_number_texts(column, what)
    return column


def check_columns(source: Source, columns: Collection[str], names: Collection[str]) -> None:
    """Raise DataError unless a file has columns with these names; the error shows similar names."""
    for name in names:
        if not columns:
            raise DataError("data file", "must not be empty", source.name)
        if name not in columns:
            shown = [column for column in columns if column][:_SHOWN_NAMES]
            rule = f"must have a column {name!r}{_similar(name, columns)}"
            raise DataError(f"data file {source.name}", rule, shown)


def _similar(name: str, columns: Collection[str]) -> str:
    """What an error about an absent column adds: the names that are like it, whatever their case."""
    lower: dict[str, str] = {column.lower(): column for column in columns if column}
    close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3)]
    # Names at whose commas an option was cut.
    close += [each for each in columns if each.startswith(f"{name},") and each not in close]
    return f" (similar: {', '.join(map(repr, close))})" if close else ""


def _choose(source: Source, names: Sequence[str], wanted: Wanted) -> dict[str, int]:
    """The columns to read, with their positions: the key, and the wanted ones or all that have a name."""
    if absent := sorted(set(wanted.omit) - set(names)):
        rule = f"must have the columns to omit {absent}{_similar(absent[0], names)}"
        raise DataError(f"data file {source.name}", rule, [name for name in names if name][:_SHOWN_NAMES])
    asked = {wanted.key, *(wanted.only or ())}
    # A row index that was written without a name is no feature.
    unnamed = [i for i, name in enumerate(names) if _UNNAMED.fullmatch(name) and name not in asked]
    if wanted.only is None and unnamed:
        log.warning("%s: column %d has no name and is left out", source.name, unnamed[0] + 1)
    named = [(name, i) for i, name in enumerate(names) if i not in unnamed and name not in wanted.omit]
    chosen = [(name, i) for name, i in named if wanted.only is None or name in asked]
    found = dict(chosen)
    key = () if wanted.key_value is not None and found else (wanted.key,)
    check_columns(source, names, [*key, *wanted.needed])
    if len(found) < len(chosen):
        twice = sorted({name for name, i in chosen if found[name] != i})
        raise DataError(f"data file {source.name}", "must have columns with different names", twice)
    return found
