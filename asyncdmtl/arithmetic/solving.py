"""Triangular factors, and the symmetric systems that they solve, of whole stacks at once.

Reference: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, sections 4.2 (Cholesky's factor, by
outer products) and 5.2 (reflections).
"""

from __future__ import annotations

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import norm
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError


def cholesky(S: Floats) -> Floats:
    """`L` (…, n, n), lower triangular, with `L·Lᵀ = S`; only the lower triangle of `S` is read.

    Raises
    ------
    UsageError
        A matrix is not square, or not positive definite to rounding.
    """
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise UsageError("matrix", "must be square, as shape", S.shape)
    L = np.tril(S)
    n = S.shape[-1]
    for j in range(n):
        pivots = L[..., j, j]
        if not (pivots > 0.0).all() or not np.isfinite(pivots).all():
            raise UsageError("matrix", "must be positive definite, with pivots above 0", float(pivots.min()))
        L[..., j, j] = np.sqrt(pivots)
        L[..., j + 1 :, j] /= L[..., j, j][..., None]
        column = L[..., j + 1 :, j]
        L[..., j + 1 :, j + 1 :] -= column[..., :, None] * column[..., None, :]
    return np.tril(L)


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

    `B` is one of vectors if it has one dimension less than `S`.

    Raises
    ------
    UsageError
        As `cholesky` and `solve_triangular`.
    """
    vectors = B.ndim == S.ndim - 1
    L = cholesky(S)
    X = solve_triangular(L, solve_triangular(L, B[..., None] if vectors else B), transposed=True)
    return X[..., 0] if vectors else X


def triangular_factor(A: Floats) -> Floats:
    """`R` (r, n), upper triangular, with `RᵀR = AᵀA`, of a matrix (m, n); `r = min(m, n)`.

    By reflections: every column keeps its digits, however long others are. Squares may over- or underflow.

    Raises
    ------
    UsageError
        `A` has another number of dimensions.
    """
    if A.ndim != 2:
        raise UsageError("matrix", "must have two dimensions, as shape", A.shape)
    r = min(A.shape)
    # Columns as rows: those are long, and lie in one piece.
    B = A.T.copy()
    for j in range(r):
        x = B[j, j:]
        length = float(norm(x))
        if length == 0.0:
            continue
        first = float(x[0])
        signed = length if first >= 0.0 else -length
        v = x.copy()
        v[0] += signed
        beta = 1.0 / (length * (length + abs(first)))
        rest = B[j + 1 :, j:]
        along = matmul(rest, v) * beta
        for row, share in zip(rest, along.tolist(), strict=True):
            row -= share * v
        x[0], x[1:] = -signed, 0.0
    return B[:, :r].T
