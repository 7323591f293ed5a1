"""Decompression of text files, with a limit on the sizes that they unpack to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from asyncdmtl.errors import DataError

PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zip", ".zst")
"""Endings of compressed files."""

# Bytes that any file may unpack to. Larger ones are bounded by their ratio.
_FREE_BYTES = 1 << 27

# Times its own size that a larger file may unpack to. Tables of text shrink to some tenth of their size; a
# file that shrank further than this was made to fill the reader's memory.
_MOST_RATIO = 1000

# Bytes that are unpacked at a time.
_BLOCK = 1 << 16


@contextmanager
def unpacked(raw: IO[bytes], name: str, ending: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Parameters
    ----------
    raw : binary file
        Must be able to seek.
    name : str
        The name in errors.
    ending : str
        The end of the file's name; with none of `PACKED_ENDINGS`, the bytes are those of the file.

    Raises
    ------
    DataError
        The file unpacks to more than a thousand times its size, is an archive of several files, or needs a
        package that is not installed.
    """
    if ending.endswith(".zip"):
        with zipfile.ZipFile(raw) as archive:
            member = _only_member(archive, name)
            _check_size(member.file_size, member.compress_size, name)
            with archive.open(member) as opened:
                yield opened
        return
    opener = next((opener for packing, opener in _OPENERS.items() if ending.endswith(packing)), None)
    if opener is None:
        yield raw
        return
    size = raw.seek(0, io.SEEK_END)
    raw.seek(0)
    with opener(raw) as opened, io.BufferedReader(_Limited(opened, size, name), _BLOCK) as limited:
        yield limited


def member_name(raw: IO[bytes], name: str) -> str:
    """The name of the only file in a zip archive; DataError if there is another number of files."""
    with zipfile.ZipFile(raw) as archive:
        return _only_member(archive, name).filename


class _Limited(io.RawIOBase):
    """Reads from a decompressor, and raises DataError if there is too much."""

    def __init__(self, file: IO[bytes], packed: int, name: str) -> None:
        self._file, self._packed, self._name, self._read = file, packed, name, 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes, and count them."""
        block = self._file.read(len(buffer))
        self._read += len(block)
        _check_size(self._read, self._packed, self._name)
        buffer[: len(block)] = block
        return len(block)


def _check_size(size: int, packed: int, name: str) -> None:
    if size > max(_FREE_BYTES, _MOST_RATIO * packed):
        rule = f"must not unpack to more than {_MOST_RATIO} times its size (else unpack it first)"
        raise DataError(f"data file {name}", rule, f"{packed} bytes that become {size} or more")


def _only_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The only file in an archive, without hidden ones such as those that macOS adds."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
    ]
    if len(members) != 1:
        rule = "must be an archive of one file (unpack it, and give --data the folder or a pattern)"
        raise DataError(f"data file {name}", rule, [member.filename for member in members[:5]])
    return members[0]


def _open_zstd(raw: IO[bytes]) -> IO[bytes]:
    try:
        import zstandard
    except ImportError as error:
        rule = "is compressed with Zstandard, which needs: pip install 'asyncdmtl[zstd]'"
        raise DataError("data file", rule, getattr(raw, "name", ".zst")) from error
    reader: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return reader


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
}
