"""Eigenvalues and singular values by a fixed order of elementwise operations: the same bits everywhere.

LAPACK's last bits, and the signs of its vectors, depend on the BLAS below it. Here reflections make a
symmetric matrix tridiagonal, and divide and conquer finds the eigenvalues of the tridiagonal matrix
(`tridiagonal`). Singular values come from the Gram matrix of the shorter side. Small ones come from a further
Gram matrix of what the large ones leave, so that they keep their digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.sums import norm
from asyncdmtl.arithmetic.tridiagonal import diagonalised, reflected
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError

# Singular values below this share of the largest are computed again, from the matrix without the part of the
# larger ones. A Gram matrix holds squares, so that a value of share s has an error of ε/s of the largest.
_SHARE = 2.0**-5

# Rows whose lengths are below this share of the largest singular value are rounding errors, and are not
# decomposed any further.
_ROUNDING = 2.0**-53


def eigh(S: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (…, n), ascending, and eigenvectors (…, n, n), by columns, of symmetric (…, n, n) matrices.

    Only the lower triangle is read. In each vector the first of the largest magnitudes is positive. The error
    of a value is at most some `n ε` of the largest magnitude among them.

    Raises
    ------
    UsageError
        The matrices are not square, or not finite.
    """
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise UsageError("matrix", "must be square, as shape", S.shape)
    _check_finite(S)
    n = S.shape[-1]
    if S.size == 0:
        return np.zeros(S.shape[:-1]), np.zeros(S.shape)
    stack = S.reshape(-1, n, n)
    lower = np.tril(stack)
    scale = _powers_of_two(np.abs(lower).max(axis=(1, 2)))
    A = np.ldexp(lower, -scale[:, None, None])
    A += np.swapaxes(np.tril(A, -1), 1, 2)
    values, V = _decomposed(A)
    V *= _signs(np.swapaxes(V, 1, 2))[:, None, :]
    return np.ldexp(values, scale[:, None]).reshape(S.shape[:-1]), V.reshape(S.shape)


def left_svd(A: Floats) -> tuple[Floats, Floats]:
    """`U` (m, m) and `σ` (m,), largest first, of a matrix (m, n) that is `U diag(σ) Vᵀ` with `m ≤ n`.

    The error of a value is at most some `m ε` of the largest. In each column the first of the largest
    magnitudes is positive.

    Raises
    ------
    UsageError
        The matrix has more rows than columns, or is not finite.
    """
    if A.ndim != 2 or A.shape[0] > A.shape[1]:
        raise UsageError("matrix", "must have no more rows than columns, as shape", A.shape)
    _check_finite(A)
    m = len(A)
    scale = _powers_of_two(np.abs(A).max(initial=0.0))
    rows, U = np.ldexp(A, -scale), np.eye(m)
    sigma, done, largest = np.zeros(m), 0, 0.0
    while done < m:
        values, V = eigh(gram(rows))
        V = V[:, ::-1]
        rows, U[:, done:] = matmul(np.ascontiguousarray(V.T), rows), matmul(U[:, done:], V)
        lengths = norm(rows, 1)
        largest = max(largest, float(lengths[0]))
        good = int(np.argmin(np.append(values[::-1] >= _SHARE * _SHARE * values[-1], False)))
        good = len(rows) if lengths[0] <= _ROUNDING * largest else good
        sigma[done : done + good] = lengths[:good]
        rows, done = rows[good:], done + good
    order = np.argsort(-sigma, kind="stable")
    U = U[:, order]
    return U * _signs(U.T), np.ldexp(sigma[order], scale)


def svd(A: Floats) -> tuple[Floats, Floats, Floats]:
    """`U` (…, m, r), `σ` (…, r), largest first, and `Vᵀ` (…, r, n) of (…, m, n) matrices, `r = min(m, n)`.

    In each vector of the shorter side the first of the largest magnitudes is positive. Vectors of the longer
    side have length 1 and are orthogonal where their `σ` is large; where `σ` is 0 up to rounding, they may be
    0.

    Raises
    ------
    UsageError
        A matrix is not finite.
    """
    m, n = A.shape[-2:]
    if m > n:
        V, sigma, Ut = svd(np.swapaxes(A, -1, -2))
        return np.swapaxes(Ut, -1, -2), sigma, np.swapaxes(V, -1, -2)
    batch = A.shape[:-2]
    U, sigma, Vt = np.empty((*batch, m, m)), np.empty((*batch, m)), np.empty((*batch, m, n))
    for place in np.ndindex(batch):
        U[place], sigma[place] = left_svd(A[place])
        Vt[place] = matmul(np.ascontiguousarray(U[place].T), A[place])
        Vt[place] /= np.where(sigma[place] > 0.0, sigma[place], 1.0)[:, None]
    return U, sigma, Vt


def singular_values(A: Floats) -> Floats:
    """`σ` (…, min(m, n)), largest first, of (…, m, n) matrices; UsageError if one is not finite.

    The steps are those of `left_svd`, for all matrices together: rows whose values are found become 0.
    """
    _check_finite(A)
    m, n = A.shape[-2:]
    if A.size == 0:
        return np.zeros((*A.shape[:-2], min(m, n)))
    wide = (np.swapaxes(A, -1, -2) if m > n else A).reshape(-1, min(m, n), max(m, n))
    r = wide.shape[1]
    scale = _powers_of_two(np.abs(wide).max(axis=(1, 2)))
    rows = np.ldexp(wide, -scale[:, None, None])
    sigma = np.zeros(rows.shape[:2])
    done, largest = np.zeros(len(rows), np.intp), np.zeros(len(rows))
    place, active = np.arange(r), np.arange(len(rows))
    while len(active):
        values, V = eigh(gram(rows))
        rows = matmul(np.ascontiguousarray(np.swapaxes(V, 1, 2)[:, ::-1]), rows)
        lengths = norm(rows, 2)
        first = lengths.max(axis=1)
        largest = np.maximum(largest, first)
        large = values[:, ::-1] >= _SHARE * _SHARE * values[:, -1:]
        good = np.where(large.all(axis=1), r, np.argmin(large, axis=1))
        good = np.where(first <= _ROUNDING * largest, r, good)
        end = np.minimum(done + good, r)
        for i, k in enumerate(active):
            sigma[k, done[i] : end[i]] = lengths[i, : end[i] - done[i]]
        rows[place < good[:, None]] = 0.0
        on = end < r
        rows, done, largest, active = rows[on], end[on], largest[on], active[on]
    descending = np.sort(sigma, axis=1)[:, ::-1]
    return np.ldexp(descending, scale[:, None]).reshape(*A.shape[:-2], r)


def _decomposed(A: Floats) -> tuple[Floats, Floats]:
    """The result of `eigh` for symmetric (b, n, n) matrices of numbers up to 1, which are overwritten."""
    n = A.shape[1]
    if n == 1:
        return A[:, :, 0], np.ones_like(A)
    reduced = reflected(A)
    largest = np.abs(reduced.diagonal).max(axis=1) + 2.0 * np.abs(reduced.beside).max(axis=1)
    scale = _powers_of_two(largest)
    d, e = (np.ldexp(part, -scale[:, None]) for part in (reduced.diagonal, reduced.beside))
    values, V = diagonalised(d, e)
    return np.ldexp(values, scale[:, None]), reduced.back(V.copy())


def _check_finite(A: Floats) -> None:
    if not np.isfinite(A).all():
        raise UsageError("matrix", "must be finite", float(A[~np.isfinite(A)][0]))


def _powers_of_two(x: Floats) -> NDArray[np.int32]:
    """The exponents of the least powers of two above `x ≥ 0`, and 0 for 0."""
    exponents: NDArray[np.int32] = np.frexp(x)[1]
    return exponents


def _signs(rows: Floats) -> Floats:
    """(…, n): 1 or −1, the sign of the first of the largest magnitudes of every row."""
    if rows.shape[-1] == 0:
        return np.ones(rows.shape[:-1])
    at = np.argmax(np.abs(rows), axis=-1)[..., None]
    return np.where(np.take_along_axis(rows, at, axis=-1)[..., 0] < 0.0, -1.0, 1.0)
