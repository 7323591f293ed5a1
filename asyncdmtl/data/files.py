"""Files of tables, local or at a URL: found by path or pattern, and opened.

::

    FILE.csv, FILE.tsv, FILE.txt, FILE.data   text with a header line (or --header)
    FILE.parquet                              needs pyarrow: pip install 'asyncdmtl[parquet]'
    FOLDER                                    of Parquet files, also with hive partitions (key=value)
    FILE.npz                                  arrays X (rows, features), y and tasks (rows,); perhaps
                                              feature_names (features,), sample_weight (rows,)

Text may be compressed, with .gz, .bz2, .xz, .zip (of one file) or .zst at the end. A name with `://` in it is
a URL, which fsspec opens: pip install 'asyncdmtl[remote]'.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from asyncdmtl.data.reading import normalised
from asyncdmtl.errors import DataError
from asyncdmtl.plan.placement import natural_key

_TEXT = (".csv", ".tsv", ".txt", ".data")
_PACKED = ("", ".gz", ".bz2", ".xz", ".zip", ".zst")

ENDINGS = (*(text + packed for packed in _PACKED for text in _TEXT), ".parquet", ".npz")
"""Endings of the files that can be read, in lower case."""

FOLDER = "/"
"""The ending of a folder of Parquet files, as Spark, Dask and pandas write them."""

# First characters of names that patterns skip, such as Spark's `_SUCCESS`.
_HIDDEN = ("_", ".")

# The endings as error messages name them.
_SHOWN = ".csv, .tsv, .txt, .data (perhaps with .gz, .bz2, .xz, .zip, .zst), .parquet, .npz"


class Source(NamedTuple):
    """A file: its name, its ending, and how to open it for reading bytes, as often as needed.

    `ending` is one of `ENDINGS`, or `FOLDER`.
    """

    name: str
    ending: str
    open: Callable[[], AbstractContextManager[Any]]

    @property
    def stem(self) -> str:
        """The name without directories and ending."""
        base = PurePosixPath(_path_of(self.name)).name
        return normalised(base if self.ending == FOLDER else base[: -len(self.ending)])

    @property
    def is_text(self) -> bool:
        """Whether the file is text, perhaps compressed."""
        return self.ending.startswith(_TEXT)

    @contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """The bytes of a text file, decompressed."""
        packing = "." + self.ending.rpartition(".")[2]
        with self.open() as raw:
            if packing == ".zip":
                with zipfile.ZipFile(raw) as archive, archive.open(self._only_member(archive)) as member:
                    yield member
            elif packing in _OPENERS:
                with _OPENERS[packing](raw) as unpacked:
                    yield unpacked
            else:
                yield raw

    def _only_member(self, archive: zipfile.ZipFile) -> str:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise DataError(f"data file {self.name}", "must be an archive of one file", names[:5])
        return names[0]


def find_files(patterns: Sequence[str]) -> tuple[Source, ...]:
    """All files that the patterns match, each once. Files of one pattern come in natural order.

    A file that is found under two names (a symbolic link, a relative and an absolute path) is one file.

    Parameters
    ----------
    patterns : sequence of str
        Paths, URLs, or either with `*` in it (in paths also `?`, `[…]` and `**`).

    Raises
    ------
    DataError
        A pattern matches no file, an ending is unknown, or a URL cannot be looked up.
    """
    found: dict[object, Source] = {}
    for pattern in patterns:
        sources = _find_remote(pattern) if "://" in pattern else _find_local(pattern)
        if not sources:
            raise DataError("data file", "must be a file that is there, or a pattern of some", pattern)
        for source in sorted(sources, key=lambda source: natural_key(source.name)):
            found.setdefault(_identity(source.name), source)
    return tuple(found.values())


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn any error of a library that reads the file `name` into a DataError."""
    try:
        yield
    except DataError:
        raise
    # pyarrow, NumPy, decompressors and remote storages each raise exceptions of their own.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise DataError("data file", f"must be readable ({reason})", name) from error


def _find_local(pattern: str) -> list[Source]:
    given = Path(pattern).expanduser()
    # A file may have brackets in its name, so a path is a pattern only if no such file exists. Path.glob
    # takes no absolute patterns.
    names = [str(given)] if given.exists() else glob.glob(str(given), recursive=True)  # noqa: PTH207
    sources = []
    for path in map(Path, names):
        if path.is_file() and (path == given or not path.name.startswith(_HIDDEN)):
            sources.append(Source(str(path), _ending(path.name), partial(path.open, "rb")))
        elif path.is_dir() and (path.suffix == ".parquet" or path == given) and _parquet_files(path):
            sources.append(Source(str(path), FOLDER, partial(_refuse, str(path))))
    return sources


def _find_remote(url: str) -> list[Source]:
    try:
        import fsspec
    except ImportError as error:
        raise DataError("data file", "is a URL, which needs: pip install 'asyncdmtl[remote]'", url) from error
    with readable(url):
        files = fsspec.open_files(url, "rb")
        names = [file.fs.unstrip_protocol(file.path) if "*" in url else url for file in files]
        return [
            Source(name, _ending(name), partial(file.fs.open, file.path, "rb"))
            for name, file in zip(names, files, strict=True)
            if "*" not in url or not PurePosixPath(name).name.startswith(_HIDDEN)
        ]


def _ending(name: str) -> str:
    """One of `ENDINGS`, the longest that fits; DataError if there is none."""
    fitting = [ending for ending in ENDINGS if _path_of(name).lower().endswith(ending)]
    if not fitting:
        raise DataError("data file", f"must end in {_SHOWN}", name)
    return max(fitting, key=len)


def _path_of(name: str) -> str:
    """A path, or the part of a URL before its query."""
    return name.partition("?")[0] if "://" in name else name


def _identity(name: str) -> object:
    """A value that is equal for all names of one file."""
    if "://" in name:
        return name
    status = Path(name).stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(Path(name).resolve())


def _parquet_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.parquet") if path.is_file()]


def _refuse(path: str) -> AbstractContextManager[Any]:
    raise DataError("data file", "must be a file, not a folder", path)


def _open_zstd(raw: IO[bytes]) -> IO[bytes]:
    try:
        import zstandard
    except ImportError as error:
        rule = "is compressed with Zstandard, which needs: pip install 'asyncdmtl[zstd]'"
        raise DataError("data file", rule, getattr(raw, "name", ".zst")) from error
    reader: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(raw)
    return reader


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
}
