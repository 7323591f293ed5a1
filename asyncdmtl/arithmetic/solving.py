"""Triangular factors of matrices, and solutions of symmetric systems, for whole stacks at once.

References: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, sections 4.2 (Cholesky's factor, by
outer products) and 5.2 (reflections); for inverses, Goodnight, "A Tutorial on the SWEEP Operator", The
American Statistician 33(3), 1979.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import blas
from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import norm
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError

# The most numbers of the matrices that are inverted at a time: half a megabyte, which stays in the cache.
_SWEPT = 1 << 16


def cholesky(S: Floats) -> Floats:
    """`L` (…, n, n), lower triangular, with `L·Lᵀ = S`; only the lower triangle of `S` is read.

    Raises
    ------
    UsageError
        A matrix is not square, or not positive definite to rounding.
    """
    L, least = _factored(S)
    if not (least > 0.0).all():
        raise UsageError("matrix", "must be positive definite, with pivots above 0", float(least.min()))
    return L


def positive_definite(S: Floats) -> NDArray[np.bool_]:
    """Whether symmetric matrices (…, n, n) have a Cholesky factor; UsageError if they are not square."""
    return _factored(S)[1] > 0.0


def solve_triangular(L: Floats, B: Floats, *, transposed: bool = False) -> Floats:
    """`X` (…, n, m) with `L·X = B`, or `Lᵀ·X = B` if `transposed`, for lower triangular `L` (…, n, n).

    Raises
    ------
    UsageError
        Shapes that do not fit each other.
    """
    n = L.shape[-1]
    if L.ndim < 2 or B.ndim < 2 or L.shape[-2] != n or B.shape[-2] != n:
        raise UsageError("system", "must fit its right-hand side, as shapes", (L.shape, B.shape))
    batch = np.broadcast_shapes(L.shape[:-2], B.shape[:-2])
    X = np.broadcast_to(B, (*batch, n, B.shape[-1])).copy()
    for j in reversed(range(n)) if transposed else range(n):
        X[..., j, :] /= L[..., j, j][..., None]
        if transposed:
            X[..., :j, :] -= L[..., j, :j][..., :, None] * X[..., j, :][..., None, :]
        else:
            X[..., j + 1 :, :] -= L[..., j + 1 :, j][..., :, None] * X[..., j, :][..., None, :]
    return X


def solve(S: Floats, B: Floats) -> Floats:
    """`X` with `S·X = B` for symmetric positive definite `S` (…, n, n) and `B` (…, n) or (…, n, m).

    `B` is a stack of vectors if it has one dimension less than `S`.

    Raises
    ------
    UsageError
        As `cholesky` and `solve_triangular`.
    """
    vectors = B.ndim == S.ndim - 1
    columns = B[..., None] if vectors else B
    if blas.chosen():
        X = blas.solve(S, columns)
    else:
        L = cholesky(S)
        X = solve_triangular(L, solve_triangular(L, columns), transposed=True)
    return X[..., 0] if vectors else X


def inverse(S: Floats) -> Floats:
    """`S⁻¹` of symmetric positive definite matrices (…, n, n), symmetric to the last bit.

    Raises
    ------
    UsageError
        A matrix is not square, or not positive definite to rounding.
    """
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise UsageError("matrix", "must be square, as shape", S.shape)
    if blas.chosen():
        return blas.inverse(S)
    n = S.shape[-1]
    if S.size == 0:
        return np.zeros(S.shape)
    stack = S.reshape(-1, n, n)
    inverted = np.empty(stack.shape)
    at_once = max(1, _SWEPT // (n * n or 1))
    for first in range(0, len(stack), at_once):
        part = slice(first, first + at_once)
        inverted[part] = _swept(stack[part].transpose(1, 2, 0).copy()).transpose(2, 0, 1)
    return inverted.reshape(S.shape)


def _swept(B: Floats) -> Floats:
    """The inverses of matrices (n, n, b), which are overwritten, by sweeping one variable after the other."""
    for k in range(len(B)):
        pivots = B[k, k].copy()
        if not ((pivots > 0.0) & (pivots < np.inf)).all():
            raise UsageError("matrix", "must be positive definite, with pivots above 0", float(pivots.min()))
        column, row = B[:, k].copy(), B[k] / pivots
        B -= column[:, None] * row
        B[k], B[:, k] = row, column / -pivots
        B[k, k] = 1.0 / pivots
    return 0.5 * (B + B.transpose(1, 0, 2))


def qr(A: Floats) -> tuple[Floats, Floats]:
    """`Q` (m, r) with orthonormal columns and `R` (r, n), upper triangular, with `Q·R = A`; `r = min(m, n)`.

    Raises
    ------
    UsageError
        `A` has another number of dimensions.
    """
    R, reflectors = _reflected(A)
    # Columns are stored as rows, as in `_reflected`.
    Q = np.eye(len(reflectors), len(A))
    for j, (v, beta) in reversed(list(enumerate(reflectors))):
        _reflect(Q[j:, j:], v, beta)
    return Q.T, R


def triangular_factor(A: Floats) -> Floats:
    """`R` of `qr`: `RᵀR = AᵀA`.

    Short columns keep their relative accuracy beside long ones. Squares may over- or underflow.
    """
    return _reflected(A)[0]


def _factored(S: Floats) -> tuple[Floats, Floats]:
    """Cholesky's factor, and the least pivot of each matrix. A pivot of 0 or less: there is no factor."""
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise UsageError("matrix", "must be square, as shape", S.shape)
    L, least = np.tril(S), np.full(S.shape[:-2], np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for j in range(S.shape[-1]):
            pivots = L[..., j, j]
            # A pivot that is NaN or infinite has no root to divide by, either.
            sound = (pivots > 0.0) & (pivots < np.inf)
            least = np.where(sound, np.minimum(least, pivots), np.where(least > 0.0, 0.0, least))
            roots = np.sqrt(np.where(sound, pivots, 1.0))
            L[..., j, j] = roots
            L[..., j + 1 :, j] /= roots[..., None]
            column = L[..., j + 1 :, j]
            L[..., j + 1 :, j + 1 :] -= column[..., :, None] * column[..., None, :]
    return np.tril(L), least


def _reflected(A: Floats) -> tuple[Floats, list[tuple[Floats, float]]]:
    """`R` of a QR, and the reflections `I − β v vᵀ` that make it; the k-th begins at row k."""
    if A.ndim != 2:
        raise UsageError("matrix", "must have two dimensions, as shape", A.shape)
    r = min(A.shape)
    reflectors: list[tuple[Floats, float]] = []
    # Columns are stored as rows, so that each is contiguous in memory.
    B = A.T.copy()
    for j in range(r):
        v = B[j, j:].copy()
        length, first = float(norm(v)), float(v[0])
        signed = length if first >= 0.0 else -length
        v[0] += signed
        beta = 1.0 / (length * (length + abs(first))) if length > 0.0 else 0.0
        _reflect(B[j + 1 :, j:], v, beta)
        B[j, j], B[j, j + 1 :] = -signed, 0.0
        reflectors.append((v, beta))
    return B[:, :r].T, reflectors


def _reflect(rows: Floats, v: Floats, beta: float) -> None:
    """Reflect each row, in place."""
    along = matmul(rows, v) * beta
    for row, share in zip(rows, along.tolist(), strict=True):
        row -= share * v
