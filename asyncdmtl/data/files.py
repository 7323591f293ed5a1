"""Files of tables, local or at a URL: found by path or pattern, and opened.

::

    FILE.csv, FILE.tsv, FILE.txt, FILE.data   text with a header line (or --header)
    FILE.zip                                  an archive of one such file
    FILE.parquet                              needs pyarrow: pip install 'asyncdmtl[parquet]'
    FOLDER                                    of Parquet files or of text files, which are the parts of one
                                              table; also with hive partitions (key=value)
    FILE.npz                                  arrays X (rows, features), y and tasks (rows,); perhaps
                                              feature_names (features,), sample_weight (rows,)

Text may be compressed, with .gz, .bz2, .xz, .zip (of one file) or .zst at the end. A name with `://` in it is
a URL, which fsspec opens: pip install 'asyncdmtl[remote]'.
"""

from __future__ import annotations

import glob
import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import unquote

from asyncdmtl.data.reading import normalised
from asyncdmtl.data.unpacking import PACKED_ENDINGS, member_name, unpacked
from asyncdmtl.errors import DataError
from asyncdmtl.plan.placement import natural_key

_TEXT = (".csv", ".tsv", ".txt", ".data")

# The ending of an archive whose only file has one of the endings above.
_ARCHIVE = ".zip"

ENDINGS = (
    *(text + packed for packed in ("", *PACKED_ENDINGS) for text in _TEXT), _ARCHIVE, ".parquet", ".npz",
)  # fmt: skip
"""Endings of the files that can be read, in lower case."""

STDIN = ("-", "/dev/stdin")
"""Names for standard input."""

FOLDER = "/"
"""The ending of a folder of files, as Spark, Dask and pandas write them."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""A missing value in the name of a folder `key=value`."""

# First characters of names that patterns and folders skip, such as Spark's `_SUCCESS`.
_HIDDEN = ("_", ".")

# The endings as error messages name them.
_SHOWN = ".csv, .tsv, .txt, .data (perhaps with .gz, .bz2, .xz, .zip, .zst), .zip, .parquet, .npz"


class Source(NamedTuple):
    """A file: its name, its ending, and how to open it for reading bytes, as often as needed.

    `ending` is one of `ENDINGS`, or `FOLDER`. A folder has `parts`, all of one format, which are read as one
    table. A part has `keys`: the names and values that hive partitions (`key=value`) give all of its rows.
    """

    name: str
    ending: str
    open: Callable[[], AbstractContextManager[Any]]
    parts: tuple[Source, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()

    @property
    def stem(self) -> str:
        """The name without directories and ending."""
        base = PurePosixPath(_path_of(self.name)).name
        if self.ending == FOLDER:
            return normalised(base)
        # An archive is named after itself, whatever the file in it is called.
        inside = base.lower().endswith(self.ending)
        return normalised(base[: -len(self.ending if inside else _ARCHIVE)])

    @property
    def folder(self) -> str:
        """The name of the folder that it is in; empty for the current one."""
        return normalised(PurePosixPath(_path_of(self.name)).parent.name)

    @property
    def is_text(self) -> bool:
        """Whether the file is text, perhaps compressed; of a folder, whether its parts are."""
        return self.parts[0].is_text if self.parts else self.ending.startswith(_TEXT)

    @property
    def separator(self) -> str:
        """The character between cells of a text file, unless an option gives another."""
        return "\t" if self.ending.startswith(".tsv") else ","

    def digest(self) -> bytes:
        """A digest of the content: of the file, or of the parts of a folder in order."""
        content = hashlib.blake2b(digest_size=16, usedforsecurity=False)
        for part in self.parts or (self,):
            with readable(part.name), part.open() as raw:
                while block := raw.read(1 << 20):
                    content.update(block)
        return content.digest()

    @contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """The bytes of a text file, decompressed."""
        with self.open() as raw, unpacked(raw, self.name, self.ending) as bytes_:
            yield bytes_


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


def standard_input() -> Source:
    """Standard input, as a file of CSV; it is read whole, since a file is opened more than once."""
    content = sys.stdin.buffer.read()
    return Source("standard input", ".csv", partial(io.BytesIO, content))


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


def check_copies(parts: Sequence[Source]) -> None:
    """Raise DataError if two parts have the same content and keys, so that rows would count twice."""
    sizes: dict[int, list[Source]] = {}
    for part in parts if len(parts) > 1 else ():
        sizes.setdefault(Path(part.name).stat().st_size, []).append(part)
    for alike in sizes.values():
        seen: dict[object, str] = {}
        for part in alike if len(alike) > 1 else ():
            other = seen.setdefault((part.keys, part.digest()), part.name)
            if other != part.name:
                raise DataError("data files", f"must not have the same rows: as {other}", part.name)


def _find_local(pattern: str) -> list[Source]:
    given = Path(pattern).expanduser()
    # A file may have brackets in its name, so a path is a pattern only if no such file exists. Path.glob
    # takes no absolute patterns.
    names = [str(given)] if given.exists() else glob.glob(str(given), recursive=True)  # noqa: PTH207
    sources = []
    for path in map(Path, names):
        if path.is_file() and (path == given or not path.name.startswith(_HIDDEN)):
            sources.append(_local_file(path))
        elif path.is_dir() and (path == given or path.suffix in _FOLDER_ENDINGS):
            sources += _folder(path)
    if given.is_dir() and not sources:
        raise DataError("data file", "must be a file, or a folder of text files or Parquet files", pattern)
    return sources


def _local_file(path: Path, keys: tuple[tuple[str, str], ...] = ()) -> Source:
    opener = partial(path.open, "rb")
    return Source(str(path), _ending(path.name, opener), opener, keys=keys)


def _folder(folder: Path) -> list[Source]:
    """The folder as one file, if there are files of tables in it."""
    parts = []
    for path in sorted(folder.rglob("*"), key=lambda path: natural_key(str(path))):
        inner = path.relative_to(folder)
        known = path.name.lower().endswith((*_TEXT, *PACKED_ENDINGS, ".parquet"))
        if known and path.is_file() and not any(part.startswith(_HIDDEN) for part in inner.parts):
            parts.append(_local_file(path, _hive_keys(inner)))
    kinds = {part.is_text: part.name for part in parts}
    if len(kinds) > 1:
        raise DataError("data file", "must be a folder of text or of Parquet, not of both", [*kinds.values()])
    if len({tuple(name for name, _ in part.keys) for part in parts}) > 1:
        raise DataError("data file", "must be a folder whose parts all lie under the same keys", str(folder))
    return [Source(str(folder), FOLDER, partial(_refuse, str(folder)), tuple(parts))] if parts else []


def _hive_keys(path: PurePath) -> tuple[tuple[str, str], ...]:
    """The keys and values in the names of the folders above a file, as Spark and Hive write them."""
    pairs = [folder.partition("=") for folder in path.parts[:-1] if "=" in folder]
    return tuple((normalised(unquote(key)), unquote(value)) for key, _, value in pairs)


def _find_remote(url: str) -> list[Source]:
    try:
        import fsspec
    except ImportError as error:
        raise DataError("data file", "is a URL, which needs: pip install 'asyncdmtl[remote]'", url) from error
    with readable(url):
        try:
            files = fsspec.open_files(url, "rb")
        except ImportError as error:
            rule = (
                f"is a URL, which needs another package ({error}); for HTTP: pip install 'asyncdmtl[remote]'"
            )
            raise DataError("data file", rule, url) from error
        sources = []
        for file in files:
            name = file.fs.unstrip_protocol(file.path) if "*" in url else url
            if "*" not in url or not PurePosixPath(name).name.startswith(_HIDDEN):
                opener = partial(file.fs.open, file.path, "rb")
                sources.append(Source(name, _ending(name, opener), opener))
        return sources


def _ending(name: str, opener: Callable[[], AbstractContextManager[Any]]) -> str:
    """One of `ENDINGS`, the longest that fits; DataError if there is none.

    For an archive it is that of its only file, with `.zip`.
    """
    fitting = [ending for ending in ENDINGS if _path_of(name).lower().endswith(ending)]
    if not fitting:
        raise DataError("data file", f"must end in {_SHOWN}", name)
    longest = max(fitting, key=len)
    if longest != _ARCHIVE:
        return longest
    with readable(name), opener() as raw:
        member = member_name(raw, name)
    inside = [ending for ending in _TEXT if member.lower().endswith(ending)]
    if not inside:
        rule = f"must be an archive of one file that ends in {', '.join(_TEXT)}"
        raise DataError(f"data file {name}", rule, member)
    return inside[0] + _ARCHIVE


def _path_of(name: str) -> str:
    """A path, or the part of a URL before its query."""
    return name.partition("?")[0] if "://" in name else name


def _identity(name: str) -> object:
    """A value that is equal for all names of one file."""
    if "://" in name:
        return name
    status = Path(name).stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(Path(name).resolve())


def _refuse(path: str) -> AbstractContextManager[Any]:
    raise DataError("data file", "must be a file, not a folder", path)


# Endings of folders that patterns find.
_FOLDER_ENDINGS = (*_TEXT, ".parquet")
