"""GF(2^8): its arithmetic, and products of a matrix with long rows of bytes.

An element is a byte, a polynomial over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d, as in ISA-L);
2 generates the multiplicative group. Addition and subtraction are XOR.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError
from asyncdmtl.field import isal
from asyncdmtl.field.byte_rows import ByteRows, check_apart, check_rows
from asyncdmtl.field.threads import WORK_PER_THREAD, in_threads

POLYNOMIAL = 0x11D
KERNEL_VARIABLE = "ASYNCDMTL_KERNEL"

Kernel: TypeAlias = Literal["auto", "isa-l", "numpy"]

# The most bytes of a row that the NumPy kernel processes at a time: their sums (8 bytes each) stay in the
# cache.
_LOOKUP_BLOCK = 1 << 15

# The fewest bytes of such a block: with shorter blocks the cost of making tables would dominate.
_LOOKUP_BLOCK_MIN = 1 << 12

# Bytes of the blocks of all sources together; as indices of 8 bytes each they take 16 MB.
_LOOKUP_TOTAL = 1 << 21

# The most bytes of sources and result for which a product keeps the arrays of its last call. With larger
# arrays, checking them again takes no noticeable share of the time.
_REMEMBERED = 1 << 20

_UINT8 = np.dtype(np.uint8)


def _tables() -> tuple[Bytes, Bytes]:
    """All products, (256, 256), and all inverses, (256,), from the powers of the generator 2."""
    power = np.zeros(510, dtype=np.uint8)
    logarithm = np.zeros(256, dtype=np.intp)
    x = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = x
        logarithm[x] = exponent
        x <<= 1
        if x > 255:
            x ^= POLYNOMIAL
    product = np.zeros((256, 256), dtype=np.uint8)
    product[1:, 1:] = power[logarithm[1:, None] + logarithm[1:]]
    inverse = np.zeros(256, dtype=np.uint8)
    inverse[1:] = power[255 - logarithm[1:]]
    product.flags.writeable = inverse.flags.writeable = False
    return product, inverse


PRODUCTS, INVERSES = _tables()


def multiply(a: Bytes, b: Bytes) -> Bytes:
    """Multiply elementwise: uint8 arrays of any shapes that broadcast.

    Raises
    ------
    UsageError
        A dtype is not uint8, or the shapes do not broadcast.
    """
    a, b = elements("a", a), elements("b", b)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise UsageError("b", f"must broadcast with shape {a.shape}", f"shape {b.shape}") from None
    return np.asarray(PRODUCTS[a, b])


def inverse(a: Bytes) -> Bytes:
    """Multiplicative inverse of every element: uint8, any shape.

    Raises
    ------
    UsageError
        The dtype is not uint8, or an element is 0.
    """
    a = elements("a", a)
    if not a.all():
        raise UsageError("a", "must be non-zero to have an inverse", 0)
    return np.asarray(INVERSES[a])


def matmul(a: Bytes, b: Bytes) -> Bytes:
    """Multiply matrices: `a` (r, k) times `b` (k, c), uint8, gives (r, c). To use `a` several times, make a
    `Product`.

    Raises
    ------
    UsageError
        Not matrices of uint8, or shapes that do not fit.
    """
    return Product(a)(np.ascontiguousarray(elements("b", b)))


def dense_product(a: Bytes, b: Bytes) -> Bytes:
    """`matmul` without checks or a search for structure: faster for a matrix `a` that is used once."""
    if len(a) > 2 * b.shape[1]:
        # The kernel takes 32 bytes for each entry of `a`, and is fastest with long rows of `b`.
        return np.ascontiguousarray(dense_product(b.T, np.ascontiguousarray(a.T)).T)
    out = np.zeros((len(a), b.shape[1]), dtype=np.uint8)
    if a.size and b.size:
        b = np.ascontiguousarray(b)
        sources, results = check_rows("b", b, len(b), None), check_rows("out", out, len(out), None)
        in_threads(partial(_kernel(kernel_name(), a), sources, results), a.size, b.shape[1])
    return out


def kernel_name() -> Literal["isa-l", "numpy"]:
    """The kernel for "auto" on this machine: "isa-l" if the library is found and correct, else "numpy".

    The environment variable ASYNCDMTL_KERNEL ("auto", "isa-l" or "numpy") forces it.

    Raises
    ------
    UsageError
        The variable has another value, or asks for ISA-L, which is not installed.
    """
    return _resolve(KERNEL_VARIABLE, os.environ.get(KERNEL_VARIABLE, "auto"))


class Product:
    """A matrix over GF(2^8), prepared for many multiplications with rows of bytes.

    The matrix never changes, and threads may share a product. Structure saves multiplications: zero columns
    are not read, unit rows become copies, rows of zeros become fills, and equal rows are computed once.

    If a call has the same two small arrays (up to 1 MB) as the last one, only the kernel runs, without
    checks. A product keeps these arrays alive. Their memory must not be moved, as `resize` with
    `refcheck=False` does.

    Parameters
    ----------
    matrix : uint8 array (r, k)
        Either may be 0.
    kernel : "auto", "isa-l" or "numpy"
        The kernel that multiplies; `kernel_name()` says what "auto" means. Results are the same.

    Attributes
    ----------
    matrix : uint8 array (r, k), read-only
    kernel : "isa-l" or "numpy"

    Raises
    ------
    UsageError
        `matrix` is no matrix of uint8, the kernel is unknown, or ISA-L is not installed.
    """

    matrix: Bytes
    kernel: Literal["isa-l", "numpy"]

    def __init__(self, matrix: Bytes, kernel: Kernel = "auto") -> None:
        self.matrix = elements("matrix", matrix).copy()
        if self.matrix.ndim != 2:
            raise UsageError("matrix", "must have two axes", f"shape {self.matrix.shape}")
        self.matrix.flags.writeable = False
        self.kernel = kernel_name() if kernel == "auto" else _resolve("kernel", kernel)

        support = np.count_nonzero(self.matrix, axis=1)
        unit = (support == 1) & (self.matrix == 1).any(axis=1)
        self._zeros = np.flatnonzero(support == 0).tolist()
        self._units = [(i, int(self.matrix[i].argmax())) for i in np.flatnonzero(unit).tolist()]
        first: dict[bytes, int] = {}
        self._repeats: list[tuple[int, int]] = []
        for i in np.flatnonzero((support > 0) & ~unit).tolist():
            if (same := first.setdefault(self.matrix[i].tobytes(), i)) != i:
                self._repeats.append((i, same))
        self._rows = np.fromiter(first.values(), dtype=np.intp, count=len(first))
        self._columns = np.flatnonzero(self.matrix[self._rows].any(axis=0))
        self._work = len(self._rows) * len(self._columns)
        self._compute = _kernel(self.kernel, self.matrix[np.ix_(self._rows, self._columns)])
        self._remembered: _Call | None = None

    @overload
    def __call__(
        self, sources: Bytes | Sequence[Bytes], out: Bytes | None = None, *, threads: int | None = None
    ) -> Bytes: ...

    @overload
    def __call__(
        self, sources: Bytes | Sequence[Bytes], out: Sequence[Bytes], *, threads: int | None = None
    ) -> Sequence[Bytes]: ...

    def __call__(
        self,
        sources: Bytes | Sequence[Bytes],
        out: Bytes | Sequence[Bytes] | None = None,
        *,
        threads: int | None = None,
    ) -> Bytes | Sequence[Bytes]:
        """Multiply: `matrix` (r, k) times `sources` (k, L) gives (r, L), bytes all.

        Parameters
        ----------
        sources : uint8 array (k, L) with contiguous rows, or sequence of k contiguous uint8 arrays (L,)
            An item of the sequence may also be an array of several rows.
        out : the same for r rows, optional
            The result is written here, and returned. Rows must overlap neither each other nor the sources.
        threads : int, optional
            The most threads. Default: as many as there are cores, if the product is large.

        Raises
        ------
        UsageError
            Counts, lengths, dtypes or memory layout break these rules.
        """
        if threads is not None and threads < 1:
            raise UsageError("threads", "must be at least 1", threads)
        call = self._remembered
        if call is not None and sources is call.sources and out is call.out and call.suits(threads):
            call.compute()
            return call.out
        r, k = self.matrix.shape
        if k == 0 and out is not None and not isinstance(sources, np.ndarray) and not len(sources):
            # Without a source, the length is that of the result.
            length = out.shape[-1] if isinstance(out, np.ndarray) else len(out[0]) if len(out) else 0
            sources = np.empty((0, length), dtype=np.uint8)
        read = check_rows("sources", sources, k, None)
        result = np.empty((r, read.length), dtype=np.uint8) if out is None else out
        written = check_rows("out", result, r, read.length)
        if out is not None:
            if not all(row.flags.writeable for row in ([out] if isinstance(out, np.ndarray) else out)):
                raise UsageError("out", "must be writeable", "a read-only array")
            check_apart(read, written)
        in_threads(partial(self._span, read, written), self._work, read.length, threads)
        if isinstance(sources, np.ndarray) and isinstance(out, np.ndarray):
            self._remember(sources, out, read, written)
        return result

    def __repr__(self) -> str:
        r, k = self.matrix.shape
        return f"<Product: {r} × {k} over GF(2^8), {self.kernel}>"

    def _remember(self, sources: Bytes, out: Bytes, read: ByteRows, written: ByteRows) -> None:
        """Prepare for another call with these arrays, if they are small."""
        kernel, length = self._compute, read.length
        small = sources.nbytes + out.nbytes <= _REMEMBERED and self._work * length <= WORK_PER_THREAD
        # A view would keep its whole base alive; and the kernel alone does not use structure.
        own, dense = sources.base is None is out.base, self._work == self.matrix.size > 0
        if small and own and dense and length and isinstance(kernel, isal.IsalKernel):
            self._remembered = _Call(sources, out, kernel.prepared(read, written), (read, written))

    def _span(self, sources: ByteRows, out: ByteRows, start: int, stop: int) -> None:
        for i in self._zeros:
            out.views[i][start:stop] = 0
        for i, j in self._units:
            out.views[i][start:stop] = sources.views[j][start:stop]
        if self._work and start < stop:
            self._compute(sources.take(self._columns), out.take(self._rows), start, stop)
        for i, same in self._repeats:
            out.views[i][start:stop] = out.views[same][start:stop]


class _Call:
    """A product of arrays that were checked before, ready to be computed again."""

    __slots__ = ("_rows", "_seen", "compute", "out", "sources")

    def __init__(
        self, sources: Bytes, out: Bytes, compute: Callable[[], object], rows: tuple[ByteRows, ByteRows]
    ) -> None:
        self.sources, self.out, self.compute = sources, out, compute
        # Kept here, because C holds only addresses, which keep no array alive.
        self._rows = rows
        self._seen = (sources.shape, sources.strides, out.shape, out.strides)

    def suits(self, threads: int | None) -> bool:
        """Whether one thread suffices and the arrays are unchanged: their shapes may be set in place."""
        sources, out = self.sources, self.out
        seen = (sources.shape, sources.strides, out.shape, out.strides)
        same = seen == self._seen and sources.dtype is out.dtype is _UINT8
        return same and out.flags.writeable and (threads is None or threads == 1)


class _Lookup:
    """The NumPy kernel: one look-up in a table of 256 words multiplies a byte by eight coefficients."""

    def __init__(self, matrix: Bytes) -> None:
        self._matrix = matrix
        self._block = min(_LOOKUP_BLOCK, max(_LOOKUP_BLOCK_MIN, _LOOKUP_TOTAL // max(matrix.shape[1], 1)))

    def __call__(self, sources: ByteRows, out: ByteRows, start: int, stop: int) -> None:
        for at in range(start, stop, self._block):
            end = min(at + self._block, stop)
            # Converted once here rather than in every look-up.
            index = [row.astype(np.intp) for row in sources.cut(at, end)]
            for i in range(0, len(self._matrix), 8):
                sums = self._eight(self._matrix[i : i + 8], index)
                for j in range(i, min(i + 8, len(self._matrix))):
                    out.views[j][at:end] = sums[:, j - i]

    @staticmethod
    def _eight(matrix: Bytes, index: list[NDArray[np.intp]]) -> Bytes:
        """Up to eight rows of the product, side by side in the columns of the result, (n, 8)."""
        table = np.zeros((len(index), 256, 8), dtype=np.uint8)
        table[:, :, : len(matrix)] = PRODUCTS[matrix].transpose(1, 2, 0)
        total = np.zeros(len(index[0]), dtype=np.uint64)
        term = np.empty_like(total)
        for words, where in zip(table.view(np.uint64)[:, :, 0], index, strict=True):
            # No index is out of range; a mode other than "raise" lets NumPy write to `term` directly.
            np.take(words, where, out=term, mode="wrap")
            total ^= term
        return total.view(np.uint8).reshape(-1, 8)


def elements(argument: str, value: Bytes) -> Bytes:
    """`value` as an array of field elements of any shape; UsageError naming `argument` if it is not uint8."""
    array = np.asarray(value)
    if array.dtype != np.uint8:
        raise UsageError(argument, "must have dtype uint8", array.dtype)
    return array


def _kernel(name: Literal["isa-l", "numpy"], matrix: Bytes) -> isal.IsalKernel | _Lookup:
    library = isal.library() if name == "isa-l" else None
    # C counts the tables' bytes in an int; an empty matrix is never computed.
    if library is None or not 0 < 32 * matrix.size <= isal.MAX_TABLES:
        return _Lookup(matrix)
    return isal.IsalKernel(library, matrix)


def _resolve(argument: str, kernel: str) -> Literal["isa-l", "numpy"]:
    if kernel not in ("auto", "isa-l", "numpy"):
        raise UsageError(argument, "must be 'auto', 'isa-l' or 'numpy'", kernel)
    if kernel == "numpy":
        return "numpy"
    if _isal_works():
        return "isa-l"
    if kernel == "isa-l":
        raise UsageError(argument, "may be 'isa-l' only where a sound libisal is installed", kernel)
    return "numpy"


@functools.cache
def _isal_works() -> bool:
    """Whether ISA-L is found and agrees with the tables here: a build from elsewhere may be faulty.

    The check covers all coefficients times all bytes, and the counts of rows and lengths that take different
    paths in the library.
    """
    if (library := isal.library()) is None:
        return False
    byte = np.arange(256, dtype=np.uint8)
    for r, k, length in ((256, 1, 256), (7, 5, 255), (13, 300, 67), (1, 2, 1)):
        matrix = (byte[:r, None] if k == 1 else PRODUCTS[3 : 3 + r, np.arange(7, 7 + k) % 256]).copy()
        sources = PRODUCTS[np.arange(1, 1 + k) % 256, :length].copy()
        result = np.empty((r, length), dtype=np.uint8)
        expected = np.empty_like(result)
        read = check_rows("sources", sources, k, length)
        isal.IsalKernel(library, matrix)(read, check_rows("out", result, r, length), 0, length)
        _Lookup(matrix)(read, check_rows("out", expected, r, length), 0, length)
        if not np.array_equal(result, expected):
            return False
    return True
