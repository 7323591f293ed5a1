"""ISA-L's erasure-code kernel through ctypes: any matrix over GF(2^8) times rows of bytes.

The shared library comes with the wheels of `pyeclib`, or from the system. Its two functions are documented in
ISA-L's `erasure_code.h`; both run without the GIL.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.field.byte_rows import ByteRows, address

# Bytes of all sources in a copied block: together with tables and results they fit in a core's own cache.
PACKED_BYTES = 768 << 10

# Bytes of sources and results that fit in the cache that cores share (measured with one of 32 MB). Up to
# this, reading rows again is as fast as copying them.
SHARED_BYTES = 20 << 20

# Source rows up to which the hardware's prefetcher follows all rows, so that copying them does not pay.
FEW_ROWS = 16

# Source rows from which copying a block always pays: prefetchers do not follow so many.
MANY_ROWS = 32

# Bytes of a row per call without copying: keeps a length within C's int.
STREAMED_BYTES = 1 << 20

# The most bytes of tables: ISA-L counts them in C's int.
MAX_TABLES = (1 << 31) - 1


class IsalKernel:
    """One matrix (r, k), r and k at least 1, expanded into ISA-L's tables, 32 bytes per coefficient.

    ISA-L reads all k rows at once, 64 bytes at a time, and again for every six rows of the result. From
    memory that is slow: the prefetcher does not follow many rows, and rows a power of two apart compete for
    the same cache sets. So a block of every source is copied side by side first, where that is faster.
    """

    def __init__(self, library: ctypes.CDLL, matrix: Bytes) -> None:
        self._shape: tuple[int, int] = matrix.shape
        tables = coefficient_tables(library)
        if tables is None:
            self._tables = _made_tables(library, matrix)
        else:
            # Copies of ready tables take an eighth of the time.
            self._tables = np.take(tables, matrix.reshape(-1)).view(np.uint8)
        self._tables_at = self._tables.ctypes.data
        self._encode = library.ec_encode_data
        # An odd number of cache lines apart, packed rows spread over all cache sets.
        self._block = max(PACKED_BYTES // self._shape[1] // 128, 8) * 128 + 64

    def __call__(self, sources: ByteRows, out: ByteRows, start: int, stop: int) -> None:
        """Write bytes `start`…`stop` of every row of `out` (r rows) from those of `sources` (k rows)."""
        if self._packs(sources.length, stop - start):
            self._pack(sources, out, start, stop)
        else:
            self._stream(sources, out, start, stop)

    def _packs(self, length: int, part: int) -> bool:
        """Whether copying blocks first makes it faster to code `part` bytes of rows of this length."""
        r, k = self._shape
        again = r > 6 and (k > FEW_ROWS or (r + k) * length > SHARED_BYTES)
        return (k >= MANY_ROWS or again) and part > 2 * self._block

    def prepared(self, sources: ByteRows, out: ByteRows) -> Callable[[], None]:
        """A function that writes `out` (at most 1 MB a row); valid while the arrays and this kernel exist."""
        r, k = self._shape
        source, target = sources.addresses, out.addresses
        return functools.partial(
            self._encode, sources.length, k, r, self._tables_at, address(source), address(target)
        )

    def _stream(self, sources: ByteRows, out: ByteRows, start: int, stop: int) -> None:
        r, k = self._shape
        for at in range(start, stop, STREAMED_BYTES):
            n = min(STREAMED_BYTES, stop - at)
            source, target = sources.addresses + at, out.addresses + at
            self._encode(n, k, r, self._tables_at, address(source), address(target))

    def _pack(self, sources: ByteRows, out: ByteRows, start: int, stop: int) -> None:
        r, k = self._shape
        packed = np.empty(k * self._block, dtype=np.uint8)
        for at in range(start, stop, self._block):
            n = min(self._block, stop - at)
            sources.pack(at, at + n, packed[: k * n].reshape(k, n))
            source = address(packed) + n * np.arange(k, dtype=np.intp)
            target = out.addresses + at
            self._encode(n, k, r, self._tables_at, address(source), address(target))


def _made_tables(library: ctypes.CDLL, matrix: Bytes) -> Bytes:
    """The tables of a matrix (r, k) as the library makes them: 32·r·k bytes."""
    r, k = matrix.shape
    matrix = np.ascontiguousarray(matrix)
    tables = np.zeros(32 * r * k, dtype=np.uint8)
    library.ec_init_tables(k, r, matrix.ctypes.data, tables.ctypes.data)
    return tables


@functools.cache
def coefficient_tables(library: ctypes.CDLL) -> NDArray[np.void] | None:
    """The tables of all 256 coefficients, items of 32 bytes.

    None if the tables of a matrix are not those of its coefficients one after the other: a library may keep
    them in another form, and only makes sure that there is room for so many bytes.
    """
    tables: NDArray[np.void] = _made_tables(library, np.arange(256, dtype=np.uint8)[None, :]).view("V32")
    matrix = np.arange(251, 11, -16, dtype=np.uint8).reshape(3, 5)
    joined = np.take(tables, matrix.reshape(-1)).view(np.uint8)
    return tables if np.array_equal(joined, _made_tables(library, matrix)) else None


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load ISA-L from pyeclib's wheel or from the system; None if neither has it."""
    for path in _candidates():
        try:
            found = ctypes.CDLL(path)
            init, encode = found.ec_init_tables, found.ec_encode_data
        except (OSError, AttributeError):
            continue
        init.argtypes = [ctypes.c_int] * 2 + [ctypes.c_void_p] * 2
        encode.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * 3
        init.restype = encode.restype = None
        return found
    return None


def _candidates() -> Iterator[str]:
    """Paths where ISA-L may be, the most likely first."""
    try:
        files = importlib.metadata.files("pyeclib") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    yield from (str(file.locate()) for file in files if file.name.startswith("libisal"))
    # If an installation has no list of files, the libraries are still next to the package.
    spec = importlib.util.find_spec("pyeclib")
    for package in (spec and spec.submodule_search_locations) or []:
        yield from map(str, sorted(Path(package).with_name("pyeclib.libs").glob("libisal*")))
    if system := ctypes.util.find_library("isal"):
        yield system
