"""Table files that are written and read for tests."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from asyncdmtl.data.columns import Column, is_numeric
from asyncdmtl.data.files import find_files
from asyncdmtl.data.readers import Wanted, read_columns
from asyncdmtl.data.reading import Reading


def write_text(folder: Path, text: str, name: str = "a.csv") -> Path:
    """Write a text file, compressed if the name ends in .gz."""
    path = folder / name
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def read_file(
    path: Path | str, key: str = "t", reading: Reading | None = None, **wanted: Any
) -> dict[str, list[Any]]:
    """The columns of one file as lists, with None for missing values."""
    (source,) = find_files([str(path)])
    columns = read_columns(source, Wanted(key, **wanted), reading or Reading())
    return {name: plain(column) for name, column in columns.items()}


def plain(column: Column) -> list[Any]:
    if is_numeric(column):
        return [None if np.isnan(value) else value for value in column.tolist()]
    return list(column)
