"""Matrix products with the same bits under every BLAS library, kernel, number of threads and NumPy version.

Small and thin products are computed elementwise and added up as halving trees (`sums`). For large products
BLAS is used in a way that is exact: both factors are split into slices of so few bits that all products of
slices, and their sums, are integers below 2⁵³. Such sums are the same in every order. Reference: Ozaki,
Ogita, Oishi, Rump, "Error-free transformations of matrix multiplication by using fast routines of matrix
multiplication and its applications", Numerical Algorithms 59(1), 2012.

The choice between the two depends on shapes, and on whether all numbers are finite.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import blas
from asyncdmtl.arithmetic.sums import fold
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError

Scalar = TypeVar("Scalar", np.float64, np.float32)

# Terms of one product that are multiplied at a time before they are added up: as many as stay in the cache.
_BLOCK = 1 << 15

# Terms of a stack of products that are in memory at a time: 2 MB of float64.
_TERMS = 1 << 18

# Least number of products of a stack that are computed at a time if the stack's axis is the innermost one in
# memory; and the most terms that each of them may have for that, which bounds the memory.
_ABREAST, _NARROW = 256, 1 << 13

# Terms that one operation runs over: three arrays of this size stay in the cache of a core.
_CACHED = 1 << 15

# Columns of the result from which on the innermost loop runs along columns; with fewer it runs along the
# terms of one sum.
_SHORT = 32

# Multiplications from which on exact slices are faster than elementwise products, by measurement; and the
# least size of each dimension for that.
_LARGE, _THICK = 1 << 17, 16

# Columns per row from which on a Gram matrix is computed row by row, which is half the work.
_LONG = 64

# The largest exponents of two powers of two by which a slice, or a product of slices, can be multiplied one
# after the other without over- or underflow: these are integers below 2⁵³.
_SHIFTED = 450

# Terms of a product whose slices are multiplied at a time.
_DEPTH = 256

# Exponents by which sizes along the terms of a product may differ before factors are balanced: of the 66 bits
# of three slices, so many are to spare.
_EVEN = 8

# Slices of each factor. Three slices of some 23 bits hold all digits of every number that is at least 2⁻¹⁶ of
# the largest in its row.
_SLICES = 3


def matmul(A: NDArray[Scalar], B: NDArray[Scalar]) -> NDArray[Scalar]:
    """`A·B` as `np.matmul` has it: of matrices, of stacks of them, or with a vector on either side.

    In float64 the error of a thin product is at most some `ε·log₂(k)` times the sum of magnitudes. The error
    of a product by slices is at most `4 ε k` times the product of the largest magnitudes of row and column.
    In float32 all operations are those of float32.

    Parameters
    ----------
    A : (…, m, k) or (k,) array of float64 or float32
    B : (…, k, n) or (k,) array of the same dtype

    Raises
    ------
    UsageError
        The arrays do not fit each other, or are of another dtype.
    """
    _check(A, B)
    rows = A[None, :] if A.ndim == 1 else A
    columns = B[:, None] if B.ndim == 1 else B
    C = _product(rows, columns)
    if A.ndim == 1:
        C = C[..., 0, :]
    if B.ndim == 1:
        C = C[..., 0]
    return C


def dot(x: NDArray[Scalar], y: NDArray[Scalar]) -> float:
    """`Σ x_i y_i` of two vectors (n,)."""
    if x.ndim != 1 or y.ndim != 1:
        raise UsageError("vectors", "must have one dimension each, as shapes", (x.shape, y.shape))
    return float(matmul(x, y))


def gram(A: NDArray[Scalar]) -> NDArray[Scalar]:
    """`A·Aᵀ` (…, m, m) of (…, m, k), symmetric to the last bit."""
    transposed = np.swapaxes(A, -1, -2)
    _check(A, transposed)
    m, k = A.shape[-2:]
    if not blas.chosen() and _is_large(m, k, m, A.dtype) and np.isfinite(A).all():
        return _blocked_gram(A)  # type: ignore[return-value, arg-type] # float64
    if A.ndim > 2 or m < 2 or m >= _THICK or k < _LONG * m:
        return _product(A, transposed)
    # There are few long rows: each is multiplied with itself and those below it, which is half the work.
    squared = np.empty((m, m), A.dtype)
    for i in range(m):
        squared[i, i:] = squared[i:, i] = _product(A[i:], A[i][:, None])[:, 0]
    return squared


class Factor:
    """The left factor of many products, split into slices once.

    Products are always computed by slices, so that their bits are the same everywhere, but may differ from
    those of `matmul`. Columns of the factor are first scaled to one size, so that the error does not depend
    on the units of features. It is at most `4 ε k` times the product of the largest magnitudes of row and
    column, in these units.

    Parameters
    ----------
    A : (…, m, k) float64 array, finite
    """

    def __init__(self, A: Floats) -> None:
        self._whole = A if blas.chosen() else None
        if self._whole is not None:
            return
        self._bits = _slice_bits(A.shape[-1])
        units = np.frexp(np.abs(A).max(axis=-2, keepdims=True))[1].astype(np.int32)
        slices, self._exponents = _slices(_shifted(A, -units), self._bits)
        self._slices = np.concatenate(slices, axis=-1)
        self._units: NDArray[np.int32] = np.swapaxes(units, -1, -2)

    def of(self, chosen: NDArray[np.bool_] | Indices | Sequence[int] | slice) -> Factor:
        """The factor of some matrices of a stack, chosen along its first axis."""
        part = copy(self)
        if self._whole is not None:
            part._whole = self._whole[chosen]
            return part
        part._slices, part._exponents = self._slices[chosen], self._exponents[chosen]
        part._units = self._units[chosen]
        return part

    def times(self, B: Floats) -> Floats:
        """`A·B` for a finite `B` (…, k, n)."""
        if self._whole is not None:
            return _by_blas(self._whole, B)
        return _product_of_slices(self._slices, self._exponents, _shifted(B, self._units), self._bits)


def _check(A: NDArray[Scalar], B: NDArray[Scalar]) -> None:
    if A.dtype != B.dtype or A.dtype not in (np.float64, np.float32):
        raise UsageError("factors", "must both be float64 or float32", (A.dtype, B.dtype))
    inner = B.shape[-2 if B.ndim > 1 else -1] if B.ndim else -1
    if A.ndim == 0 or B.ndim == 0 or A.shape[-1] != inner:
        raise UsageError("factors", "must fit each other, as shapes", (A.shape, B.shape))


def _product(A: NDArray[Scalar], B: NDArray[Scalar]) -> NDArray[Scalar]:
    """(…, m, k)·(…, k, n)."""
    if blas.chosen():
        return _by_blas(A, B)
    m, k, n = A.shape[-2], A.shape[-1], B.shape[-1]
    batch: tuple[int, ...] = A.shape[:-2]
    if batch != B.shape[:-2]:
        batch = np.broadcast_shapes(batch, B.shape[:-2])
        A, B = _with_dimensions(A, len(batch) + 2), _with_dimensions(B, len(batch) + 2)
    if k == 0 or 0 in (m, n, *batch):
        return np.zeros((*batch, m, n), A.dtype)
    if _is_large(m, k, n, A.dtype) and np.isfinite(A).all() and np.isfinite(B).all():
        return _blocked_product(A, B)  # type: ignore[return-value, arg-type] # float64
    return _added_product(A, B, batch)


def _is_large(m: int, k: int, n: int, dtype: np.dtype[Any]) -> bool:
    return m * k * n >= _LARGE and min(m, k, n) >= _THICK and dtype == np.float64


def _by_blas(A: NDArray[Scalar], B: NDArray[Scalar]) -> NDArray[Scalar]:
    # NumPy warns of numbers that are not finite, as the methods here do not.
    with np.errstate(all="ignore"):
        product: NDArray[Scalar] = np.matmul(A, B)
    return product


def _added_product(A: NDArray[Scalar], B: NDArray[Scalar], batch: tuple[int, ...]) -> NDArray[Scalar]:
    """The product by elementwise operations, in an order of additions that depends on its shape alone.

    Terms whose indices have the same remainder by a width are added one after another; these sums are then
    added as a tree. The width follows from the shape of one product, not from how many the stack has. The
    order of axes in memory changes the time only.
    """
    m, k, n = A.shape[-2], A.shape[-1], B.shape[-1]
    width = min(k, max(1, _BLOCK // (m * n)))
    if n < _SHORT and width > n:
        left, right, axis = A[..., :, None, :], B.swapaxes(-1, -2)[..., None, :, :], -1
    else:
        left, right, axis = A[..., :, :, None], B[..., None, :, :], -2
    if not batch or math.prod(batch) * m * n * width <= _TERMS:
        return _added_terms(left, right, axis, width)
    C = np.empty((*batch, m, n), A.dtype)
    numbers = m * n * width * math.prod(batch[1:])
    abreast = numbers <= _NARROW and (_innermost(A) or _innermost(B))
    size = max(_ABREAST if abreast else 1, _TERMS // numbers)
    for start in range(0, batch[0], size):
        part = slice(start, start + size)
        one, other = (factor[part] if len(factor) > 1 else factor for factor in (left, right))
        C[part] = _added_terms(one, other, axis, width)
    return C


def _innermost(A: NDArray[Scalar]) -> bool:
    """Whether the first axis is the innermost one in memory."""
    return A.strides[0] == A.itemsize and A.shape[0] > 1


def _added_terms(left: NDArray[Scalar], right: NDArray[Scalar], axis: int, width: int) -> NDArray[Scalar]:
    """The sums along an axis of the products of two arrays, which are broadcast against each other."""
    # Moves the axis to the front; `np.moveaxis` would take some microseconds.
    order = (left.ndim + axis, *range(left.ndim + axis), *range(left.ndim + axis + 1, left.ndim))
    left, right = left.transpose(order), right.transpose(order)
    rest: tuple[int, ...] = tuple(map(max, left.shape[1:], right.shape[1:]))
    # Numbers of terms at the levels of the halving tree that do not fit the cache.
    levels: list[int] = [width]
    most = max(1, _CACHED // math.prod(rest))
    while levels[-1] > most:
        levels.append(levels[-1] - levels[-1] // 2)
    # Terms and the smaller factor have the memory layout of the larger one, so that operations run along all.
    strides = left.strides if left.size >= right.size else right.strides
    outwards: list[int] = sorted(range(left.ndim), key=lambda i: -strides[i])
    inverse = sorted(range(left.ndim), key=outwards.__getitem__)
    if left.size >= right.size:
        right = np.ascontiguousarray(right.transpose(outwards)).transpose(inverse)
    else:
        left = np.ascontiguousarray(left.transpose(outwards)).transpose(inverse)
    shape: tuple[int, ...] = (levels[-1], *rest)
    lying = [len(levels) + 1, *(shape[i] for i in outwards)]
    memory = _WORKSPACE.array(lying, left.dtype).transpose(0, *(1 + i for i in inverse))
    added = _branch(left, right, memory, levels, slice(0, levels[-1]))
    return fold(added).copy()


def _branch(
    left: NDArray[Scalar], right: NDArray[Scalar], memory: NDArray[Scalar], levels: list[int], terms: slice
) -> NDArray[Scalar]:
    """Compute `terms` of the tree's last level among `levels`; the result is in `memory[0]`.

    The tree is walked depth first, so that few terms are in use at a time. Additions are the same as those of
    `sums.fold`, which goes level by level.
    """
    if len(levels) == 1:
        return _products(left, right, memory, levels[0], terms)
    half, above = levels[-1], levels[:-1]
    head = _branch(left, right, memory, above, terms)
    behind = slice(half + terms.start, min(half + terms.stop, above[-1]))
    if behind.start < behind.stop:
        other = _branch(left, right, memory[1:], above, behind)
        np.add(head[: len(other)], other, out=head[: len(other)])
    return head


def _products(
    left: NDArray[Scalar], right: NDArray[Scalar], memory: NDArray[Scalar], width: int, terms: slice
) -> NDArray[Scalar]:
    """The products of some terms, in `memory[0]`; each term `width` further on is added in turn."""
    added = memory[0, : terms.stop - terms.start]
    np.multiply(left[terms], right[terms], out=added)
    for start in range(terms.start + width, len(left), width):
        stop = min(start + len(added), len(left))
        head, here = added[: stop - start], memory[1, : stop - start]
        np.multiply(left[start:stop], right[start:stop], out=here)
        np.add(head, here, out=head)
    return added


class _Workspace(threading.local):
    """Memory for terms, kept by each thread: allocating it anew for each product would cost page faults."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array that is valid until the next one is asked for."""
        size = math.prod(shape) * dtype.itemsize
        if self._buffer.nbytes < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size].view(dtype).reshape(shape)


_WORKSPACE = _Workspace()


def _with_dimensions(A: NDArray[Scalar], dimensions: int) -> NDArray[Scalar]:
    return A.reshape(*(1,) * (dimensions - A.ndim), *A.shape)


def _blocked_product(A: Floats, B: Floats) -> Floats:
    """The product by BLAS, `_DEPTH` terms at a time and in order, so that slices stay in the cache."""
    A, B = _balanced(A, B)
    C = _sliced_product(A[..., :_DEPTH], B[..., :_DEPTH, :])
    for start in range(_DEPTH, A.shape[-1], _DEPTH):
        block = slice(start, start + _DEPTH)
        C += _sliced_product(A[..., block], B[..., block, :])
    return C


def _blocked_gram(A: Floats) -> Floats:
    """`A·Aᵀ` with the bits of `_blocked_product`: both factors have the same slices and need no balance."""
    C = _sliced_gram(A[..., :_DEPTH])
    for start in range(_DEPTH, A.shape[-1], _DEPTH):
        C += _sliced_gram(A[..., start : start + _DEPTH])
    return C


def _balanced(A: Floats, B: Floats) -> tuple[Floats, Floats]:
    """Factors with the same product; the k-th column of one and row of the other have about the same size.

    Slices hold digits below the largest number of a row, so that they would lose those of terms in which a
    small number of one factor meets a large one of the other. Factors that are even enough are left alone.
    """
    left = np.frexp(np.abs(A).max(axis=-2, keepdims=True))[1]
    right = np.frexp(np.abs(B).max(axis=-1, keepdims=True))[1].swapaxes(-1, -2)
    moved = ((left - right) // 2).astype(np.int32)
    # For each matrix of a stack by itself, so that no result depends on the others.
    spread = moved.max(axis=-1, keepdims=True) - moved.min(axis=-1, keepdims=True)
    moved[np.broadcast_to(spread <= _EVEN, moved.shape)] = 0
    if not moved.any():
        return A, B
    return np.ldexp(A, -moved), np.ldexp(B, moved.swapaxes(-1, -2))


def _sliced_product(A: Floats, B: Floats) -> Floats:
    """The product by BLAS, exact, from slices of both factors that hold integers."""
    bits = _slice_bits(A.shape[-1])
    rows, row_exponents = _slices(A, bits)
    return _product_of_slices(np.concatenate(rows, axis=-1), row_exponents, B, bits)


def _sliced_gram(A: Floats) -> Floats:
    """`A·Aᵀ` as `_sliced_product` has it, from half as many products of slices."""
    bits = _slice_bits(A.shape[-1])
    (first, second, third), exponents = _slices(A, bits)
    C = np.matmul(second, second.swapaxes(-1, -2)) + _with_transpose(first, third)
    C = C * 2.0**-bits + _with_transpose(first, second)
    C = C * 2.0**-bits + np.matmul(first, first.swapaxes(-1, -2))
    return _shifted(C, exponents - bits, exponents.swapaxes(-1, -2) - bits)


def _with_transpose(A: Floats, B: Floats) -> Floats:
    """`A·Bᵀ + B·Aᵀ`."""
    product: Floats = np.matmul(A, B.swapaxes(-1, -2))
    return product + product.swapaxes(-1, -2)


def _product_of_slices(rows: Floats, row_exponents: NDArray[np.int32], B: Floats, bits: int) -> Floats:
    """The product of `B` (…, k, n) with a factor whose slices are side by side, (…, m, 3k)."""
    k = B.shape[-2]
    columns, column_exponents = _slices(B.swapaxes(-1, -2), bits)
    right = np.concatenate(columns[::-1], axis=-1).swapaxes(-1, -2)
    C: Floats | None = None
    for order in reversed(range(_SLICES)):
        exact = np.matmul(rows[..., : (order + 1) * k], right[..., (_SLICES - 1 - order) * k :, :])
        C = exact if C is None else C * 2.0**-bits + exact
    assert C is not None
    return _shifted(C, row_exponents - bits, column_exponents.swapaxes(-1, -2) - bits)


def _slice_bits(k: int) -> int:
    """Bits of a slice: a sum of `3k` products of two signed slices must stay below 2⁵³."""
    return (55 - (_SLICES * k - 1).bit_length()) // 2


def _slices(rows: Floats, bits: int) -> tuple[list[Floats], NDArray[np.int32]]:
    """Slices `A_i`, integers of at most `2^(bits − 1)`, with `A ≈ 2^(exponent) Σ_i 2^(−bits·(i + 1)) A_i`.

    There is one exponent for each row: that of its largest number.
    """
    exponents = np.frexp(np.abs(rows).max(axis=-1, keepdims=True))[1].astype(np.int32) + 1
    rest = _shifted(rows, bits - exponents)
    slices = []
    for _ in range(_SLICES):
        slices.append(np.rint(rest))
        rest -= slices[-1]
        rest *= 2.0**bits
    return slices, exponents


def _shifted(A: Floats, *exponents: NDArray[np.int32]) -> Floats:
    """`A` times powers of two, each result rounded once; in C order."""
    if all(np.abs(e).max() <= _SHIFTED for e in exponents):
        shifted = np.multiply(A, np.ldexp(1.0, exponents[0]), order="C")
        for e in exponents[1:]:
            shifted *= np.ldexp(1.0, e)
        return shifted
    result: Floats = np.ldexp(np.ascontiguousarray(A), functools.reduce(np.add, exponents))
    return result
