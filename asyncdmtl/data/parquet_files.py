"""Columns of Parquet files, and of folders of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.files import FOLDER, NO_VALUE, Source, check_copies, readable
from asyncdmtl.errors import DataError

Choose = Callable[[Sequence[str]], Mapping[str, int]]


def read_cells(source: Source, choose: Choose, text: Collection[str]) -> dict[str, Floats | list[Any]]:
    """Read the chosen columns.

    Parameters
    ----------
    source : Source
    choose : callable
        Takes the names of all columns, and returns the names and positions of the columns to read.
    text : collection of str
        Columns of names or categories: they may be dates and times, and whole numbers are not rounded.

    Returns
    -------
    mapping of name to (rows,) float64 array, for a column of numbers, or list of values.

    Raises
    ------
    DataError
        The file cannot be read, pyarrow is not installed, or a column has a type other than numbers, text and
        truth values.
    """
    chosen, table = _read(source, choose)
    return {
        name: _cells(table.column(i), f"column {name!r} of {source.name}", name in text)
        for i, name in enumerate(chosen)
    }


def _read(source: Source, choose: Choose) -> tuple[list[str], Any]:
    """The names of the chosen columns, and an Arrow table of these columns."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        rule = "is Parquet, which needs: pip install 'asyncdmtl[parquet]'"
        raise DataError("data file", rule, source.name) from error
    with readable(source.name):
        if source.ending == FOLDER:
            return _read_folder(source, choose)
        with source.open() as raw:
            file = ParquetFile(raw)
            names = list(file.schema_arrow.names)
            chosen = choose(names)
            # pyarrow returns columns in the order of the file.
            table = file.read(columns=[names[i] for i in chosen.values()])
            return list(chosen), table.select([names[i] for i in chosen.values()])


def _read_folder(source: Source, choose: Choose) -> tuple[list[str], Any]:
    """As `_read`, of all parts. Keys are numbers if all are whole numbers without leading zeros."""
    import pyarrow as pa
    from pyarrow import compute, dataset
    from pyarrow.parquet import ParquetFile

    keys = pa.schema([(name, pa.string()) for name, _ in source.parts[0].keys])
    folder = dataset.dataset(
        [part.name for part in source.parts],
        format="parquet",
        partitioning=dataset.HivePartitioning(keys, null_fallback=NO_VALUE),
        partition_base_dir=source.name,
    )
    check_copies([part for part in source.parts if ParquetFile(part.name).metadata.num_rows])
    names = list(folder.schema.names)
    chosen = choose(names)
    table = folder.to_table(columns=[names[i] for i in chosen.values()])
    for i, name in enumerate(table.column_names):
        if name in keys.names:
            texts = table.column(i)
            if compute.all(compute.match_substring_regex(texts, "^(0|-?[1-9][0-9]{0,17})$")).as_py():
                table = table.set_column(i, name, texts.cast(pa.int64()))
    return list(chosen), table


def _cells(values: Any, what: str, is_text: bool) -> Floats | list[Any]:
    """A column of an Arrow table as numbers or as a list of values."""
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if types.is_null(kind):
        return np.full(len(values), np.nan)
    if types.is_nested(kind) or (types.is_temporal(kind) and not is_text):
        raise DataError(
            what,
            "must be numbers, text, or true and false (--omit leaves it out, --categorical makes categories)",
            str(kind),
        )
    if is_text or not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        cells: list[Any] = values.to_pylist()
        return cells
    if types.is_decimal(kind):
        return np.array([np.nan if value is None else float(value) for value in values.to_pylist()])
    return np.array(values.to_numpy(zero_copy_only=False), np.float64)
