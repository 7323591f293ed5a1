"""Tables in files (CSV, Parquet, NumPy's `.npz`), here or behind a URL: found, opened, read as columns.

::

    FILE.csv, FILE.tsv    UTF-8, a header line; also with .gz at the end
    FILE.parquet          needs pyarrow: pip install 'asyncdmtl[parquet]'
    FILE.npz              arrays X (rows, features), y and tasks (rows,); perhaps feature_names (features,),
                          sample_weight (rows,)

What has `://` in it is a URL, which fsspec opens: pip install 'asyncdmtl[remote]'.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from asyncdmtl.data.columns import Column, Texts, as_column, as_text, text_column, to_text
from asyncdmtl.errors import DataError
from asyncdmtl.plan.placement import natural_key

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npz")
# In CSV a column of these words alone is one of true and false, with any other word it is text. Written in
# one way, they are the same categories in both.
_TRUTH = {word: word.title() for word in ("true", "True", "TRUE", "false", "False", "FALSE")}

# An index as R and pandas write it, as pandas calls that when it reads it again, and as it is in Parquet.
_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


class Source(NamedTuple):
    """A file: what to call it, and how to open it for reading bytes, as often as needed."""

    name: str
    open: Callable[[], AbstractContextManager[Any]]

    @property
    def ending(self) -> str:
        """One of `ENDINGS`; DataError if it has another."""
        for ending in ENDINGS:
            if self._path.lower().endswith(ending):
                return ending
        raise DataError("data file", f"must end in {', '.join(ENDINGS)}", self.name)

    @property
    def stem(self) -> str:
        """Its name without directories and ending."""
        return PurePosixPath(self._path).name[: -len(self.ending)]

    @property
    def _path(self) -> str:
        return self.name.partition("?")[0] if "://" in self.name else self.name


def find_files(patterns: Sequence[str]) -> tuple[Source, ...]:
    """All files that the patterns mean, each once; those of one pattern in natural order.

    Parameters
    ----------
    patterns : sequence of str
        Paths, URLs, or either with `*` in it (in paths also `?`, `[…]` and `**`).

    Raises
    ------
    DataError
        A pattern without a file, an unknown ending, or a URL that cannot be looked up.
    """
    found: dict[str, Source] = {}
    for pattern in patterns:
        sources = _find_remote(pattern) if "://" in pattern else _find_local(pattern)
        if not sources:
            raise DataError("data file", "must be a file that is there, or a pattern of some", pattern)
        for source in sorted(sources, key=lambda source: natural_key(source.name)):
            if source.ending:
                found.setdefault(source.name, source)
    return tuple(found.values())


def read_columns(
    source: Source,
    *,
    key: str,
    only: Collection[str] | None = None,
    omit: Collection[str] = (),
    text: Collection[str] = (),
) -> dict[str, Column]:
    """The columns of a file, in its order.

    Parameters
    ----------
    source : Source
    key : str
        A column of names, kept as they stand in the file ("007", "NA") but for spaces around them; None where
        there is none.
    only : collection of str, optional
        Columns to read besides `key`, as far as they are there; default all.
    omit : collection of str
        Columns not to read, whatever they hold.
    text : collection of str
        Columns to read as text, even if they look like numbers.

    Returns
    -------
    mapping of name to (rows,) array
        As `learning.columns.as_column` gives them. Features of an `.npz` without names are `x0`, `x1`, ….

    Raises
    ------
    DataError
        Names the file and what is wrong: it cannot be read, has no column `key` or none of those to omit, has
        two columns of one name, or values that are neither numbers nor text nor true and false.
    """
    if source.ending == ".parquet":
        columns = _read_parquet(source, key, only, omit)
    elif source.ending == ".npz":
        columns = _read_npz(source, key, only, omit)
    else:
        columns = _read_csv(source, key, only, omit, text)
    return {name: to_text(column) if name in text else column for name, column in columns.items()}


def _find_local(pattern: str) -> list[Source]:
    path = Path(pattern).expanduser()
    # A file may have brackets in its name. And Path.glob knows no absolute patterns.
    names = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)  # noqa: PTH207
    return [Source(name, partial(Path(name).open, "rb")) for name in names if Path(name).is_file()]


def _find_remote(url: str) -> list[Source]:
    try:
        import fsspec
    except ImportError as error:
        raise DataError("data file", "is a URL, which needs: pip install 'asyncdmtl[remote]'", url) from error
    with _explained(url):
        files = fsspec.open_files(url, "rb")
        names = [file.fs.unstrip_protocol(file.path) if "*" in url else url for file in files]
        return [Source(name, partial(f.fs.open, f.path, "rb")) for name, f in zip(names, files, strict=True)]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever goes wrong in a library becomes a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    # pandas, pyarrow, NumPy, gzip and each kind of remote storage have errors of their own.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise DataError("data file", f"must be readable ({reason})", name) from error


def _choose(
    source: Source, names: Sequence[str], key: str, wanted: Collection[str] | None, omit: Collection[str]
) -> dict[str, int]:
    """Columns to read → their position: `key`, and those `wanted` or else all that have a name."""
    if absent := sorted(set(omit) - set(names)):
        rule = f"must have the columns to omit {absent}"
        raise DataError(f"data file {source.name}", rule, [name for name in names if name])
    # What pandas calls an index, and writes without a name, is the number of a row and no feature.
    asked = {key, *(wanted or ())}
    unnamed = [i for i, name in enumerate(names) if _UNNAMED.fullmatch(name) and name not in asked]
    if wanted is None and unnamed:
        log.warning("%s: column %d has no name and is left out", source.name, unnamed[0] + 1)
    named = [(name, i) for i, name in enumerate(names) if i not in unnamed and name not in omit]
    chosen = [(name, i) for name, i in named if wanted is None or name in wanted or name == key]
    found = dict(chosen)
    if key not in found:
        rule = f"must have a column {key!r}"
        raise DataError(f"data file {source.name}", rule, [name for name in names if name])
    if len(found) < len(chosen):
        twice = sorted({name for name, i in chosen if found[name] != i})
        raise DataError(f"data file {source.name}", "must have columns with different names", twice)
    return found


def _read_csv(
    source: Source,
    key: str,
    wanted: Collection[str] | None,
    omit: Collection[str],
    text: Collection[str],
) -> dict[str, Column]:
    # Here and not above: who reads no such file need not wait for pandas. Before 3.1 it reads one number in
    # three to the last place but one, and replicas would differ.
    import pandas as pd

    separator = "\t" if ".tsv" in source.ending else ","
    packed = source.ending.endswith(".gz")
    names = _csv_header(source, separator, packed)
    chosen = _choose(source, names, key, wanted, omit)
    with _explained(source.name), source.open() as raw:
        # All columns, since of columns that it may pass over, pandas does not mind having too many in a line.
        frame = pd.read_csv(
            raw,
            sep=separator,
            compression="gzip" if packed else None,
            encoding="utf-8-sig",
            header=0,
            names=list(range(len(names))),
            skipinitialspace=True,
            low_memory=False,  # else a long column may be of two minds
            # The sign keeps names from being taken for missing values: NA is a country.
            converters={chosen[key]: "={}".format},
            dtype={i: str for name, i in chosen.items() if name in text and name != key},
        )
    columns: dict[str, Column] = {}
    for name, i in chosen.items():
        what = f"column {name!r} of {source.name}"
        if frame[i].dtype.kind in "iufb":
            columns[name] = as_column(frame[i].to_numpy(), what)
            continue
        values = frame[i].to_numpy(dtype=object, na_value=None).tolist()
        if name == key:
            columns[name] = _as_names([value[1:] for value in values])
        else:
            columns[name] = as_column(text_column([_TRUTH.get(value, value) for value in values]), what)
    return columns


def _csv_header(source: Source, separator: str, packed: bool) -> list[str]:
    """The names in the first line; refuses lines that are longer, which pandas would read shifted."""
    with _explained(source.name), source.open() as raw:
        text = io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, "utf-8-sig", newline="")
        lines = (line for line in csv.reader(text, delimiter=separator) if line)
        names, first = next(lines, []), next(lines, [])
    if len(first) > len(names):
        rule = f"must have no line with more values than the {len(names)} names in the first"
        raise DataError(f"data file {source.name}", rule, len(first))
    return [name.strip() for name in names]


def _read_parquet(
    source: Source, key: str, wanted: Collection[str] | None, omit: Collection[str]
) -> dict[str, Column]:
    try:
        from pyarrow import types
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        rule = "is Parquet, which needs: pip install 'asyncdmtl[parquet]'"
        raise DataError("data file", rule, source.name) from error
    with _explained(source.name), source.open() as raw:
        file = ParquetFile(raw)
        chosen = _choose(source, file.schema_arrow.names, key, wanted, omit)
        table = file.read(columns=list(chosen))
    columns: dict[str, Column] = {}
    for name in chosen:
        values = table.column(name)
        if types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        what = f"column {name!r} of {source.name}"
        if name == key:
            columns[name] = _as_names(values.to_pylist())
        elif types.is_integer(values.type) or types.is_floating(values.type):
            columns[name] = as_column(values.to_numpy(zero_copy_only=False), what)
        elif types.is_temporal(values.type) or types.is_nested(values.type):
            rule = "must be numbers, text, or true and false (--omit can leave it out)"
            raise DataError(what, rule, str(values.type))
        else:
            columns[name] = as_column(text_column(values.to_pylist()), what)
    return columns


def _read_npz(
    source: Source, key: str, wanted: Collection[str] | None, omit: Collection[str]
) -> dict[str, Column]:
    with _explained(source.name), source.open() as raw, np.load(raw, allow_pickle=False) as file:
        found = {
            name: file[name] for name in ("X", "y", "tasks", "sample_weight", "feature_names") if name in file
        }
    what = f"data file {source.name}"
    X = found.pop("X", np.empty(0))
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise DataError(what, "must have an array X (rows, features) of numbers", X.shape)
    labels = found.pop("feature_names", np.array([f"x{i}" for i in range(X.shape[1])]))
    if labels.shape != X.shape[1:]:
        raise DataError(what, f"must have {X.shape[1]} feature_names", labels.shape)
    if any(array.shape != X.shape[:1] for array in found.values()):
        rule = f"must have arrays of {len(X)} values, as X has rows"
        raise DataError(what, rule, {name: array.shape for name, array in found.items()})
    arrays = [*X.astype(np.float64).T, *found.values()]
    chosen = _choose(source, [*map(str, labels), *found], key, wanted, omit)
    return {
        name: _as_names(arrays[i].tolist()) if name == key else as_column(arrays[i], f"{name!r} of {what}")
        for name, i in chosen.items()
    }


def _as_names(values: list[Any]) -> Texts:
    """Names as text without spaces around them; None where there is none."""
    # NaN is the one value that does not equal itself.
    names = ["" if value is None or value != value else as_text(value).strip() for value in values]
    return text_column([name or None for name in names])
