"""Eigenvalues and singular values by a fixed order of elementwise operations: the same bits everywhere.

LAPACK's last bits, and the signs of its vectors, depend on the BLAS below it. Here matrices are turned by
Jacobi's rotations, half a matrix's pairs at a time in the order of a round-robin tournament, and whole stacks
of matrices at once. Reference: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, sections 8.5
and 8.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import norm, total
from asyncdmtl.errors import UsageError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# Sweeps over all pairs: six to ten are enough, as rotations converge quadratically in the end.
_SWEEPS = 40


def eigh(S: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (…, n), ascending, and eigenvectors (…, n, n), by columns, of symmetric (…, n, n) matrices.

    Only the lower triangle is read. In each vector the first of the largest magnitudes is positive.

    Raises
    ------
    UsageError
        The matrices are not square, or not finite.
    """
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise UsageError("matrix", "must be square, as shape", S.shape)
    if not np.isfinite(S).all():
        raise UsageError("matrix", "must be finite", float(S[~np.isfinite(S)][0]))
    n = S.shape[-1]
    stack = S.reshape(-1, n, n).astype(np.float64)
    lower = np.tril(stack)
    A = lower + np.swapaxes(np.tril(stack, -1), -1, -2)
    V = np.broadcast_to(np.eye(n), A.shape).copy()
    scale = np.abs(A).max(axis=(1, 2), initial=0.0)
    A /= np.where(scale > 0.0, scale, 1.0)[:, None, None]
    for _ in range(_SWEEPS):
        if not _sweep(A, V):
            break
    values = np.diagonal(A, axis1=1, axis2=2) * scale[:, None]
    order = np.argsort(values, axis=1, kind="stable")
    values = np.take_along_axis(values, order, axis=1)
    V = _with_signs(np.take_along_axis(V, order[:, None, :], axis=2))
    return values.reshape(S.shape[:-1]), V.reshape(S.shape)


def svd(A: Floats) -> tuple[Floats, Floats, Floats]:
    """`U` (…, m, r), `σ` (…, r), largest first, and `Vᵀ` (…, r, n) of (…, m, n) matrices, `r = min(m, n)`.

    In each column of the factor on the shorter side the first of the largest magnitudes is positive. Where
    `σ` is 0 the vectors of the longer side are 0.

    Raises
    ------
    UsageError
        A matrix is not finite.
    """
    if A.shape[-2] < A.shape[-1]:
        V, sigma, Ut = svd(np.swapaxes(A, -1, -2))
        return np.swapaxes(Ut, -1, -2), sigma, np.swapaxes(V, -1, -2)
    if not np.isfinite(A).all():
        raise UsageError("matrix", "must be finite", float(A[~np.isfinite(A)][0]))
    m, n = A.shape[-2:]
    stack = A.reshape(-1, m, n)
    scale = np.abs(stack).max(axis=(1, 2), initial=0.0)
    # Columns as rows, so that those of a pair lie together.
    B = np.swapaxes(stack, 1, 2) / np.where(scale > 0.0, scale, 1.0)[:, None, None]
    V = np.broadcast_to(np.eye(n), (len(B), n, n)).copy()
    for _ in range(_SWEEPS):
        if not _one_sided_sweep(B, V):
            break
    sigma = norm(B, axis=2)
    order = np.argsort(-sigma, axis=1, kind="stable")
    sigma = np.take_along_axis(sigma, order, axis=1)
    B = np.take_along_axis(B, order[:, :, None], axis=1)
    V = np.take_along_axis(V, order[:, :, None], axis=1)
    signs = _signs(V)
    V *= signs
    B *= signs
    U = np.swapaxes(B / np.where(sigma > 0.0, sigma, 1.0)[:, :, None], 1, 2)
    batch = A.shape[:-2]
    return U.reshape(*batch, m, n), (sigma * scale[:, None]).reshape(*batch, n), V.reshape(*batch, n, n)


def singular_values(A: Floats) -> Floats:
    """`σ` (…, min(m, n)), largest first, of (…, m, n) matrices."""
    return svd(A)[1]


def _sweep(A: Floats, V: Floats) -> bool:
    """Turn every pair of rows and columns of `A` (b, n, n), and columns of `V`; False if none needed it."""
    turned = False
    tiny = 2.0**-54
    for p, q in _rounds(A.shape[-1]):
        app, aqq, apq = A[:, p, p], A[:, q, q], A[:, p, q]
        needed = np.abs(apq) > tiny * np.sqrt(np.abs(app)) * np.sqrt(np.abs(aqq)) + 1e-300
        needed &= np.abs(apq) > 2.0**-70
        if not needed.any():
            continue
        turned = True
        c, s = _rotation(app, aqq, apq, needed)
        rows_p, rows_q = A[:, p, :], A[:, q, :]
        A[:, p, :] = c[:, :, None] * rows_p - s[:, :, None] * rows_q
        A[:, q, :] = s[:, :, None] * rows_p + c[:, :, None] * rows_q
        for M in (A, V):
            columns_p, columns_q = M[:, :, p], M[:, :, q]
            M[:, :, p] = c[:, None, :] * columns_p - s[:, None, :] * columns_q
            M[:, :, q] = s[:, None, :] * columns_p + c[:, None, :] * columns_q
        A[:, p, q] = np.where(needed, 0.0, A[:, p, q])
        A[:, q, p] = A[:, p, q]
    return turned


def _one_sided_sweep(B: Floats, V: Floats) -> bool:
    """Make all pairs of rows of `B` (b, n, m) orthogonal, and turn `V` (b, n, n) along; False if all were."""
    turned = False
    for p, q in _rounds(B.shape[1]):
        P, Q = B[:, p, :], B[:, q, :]
        pp, qq, pq = (total(x * y, axis=2) for x, y in ((P, P), (Q, Q), (P, Q)))
        needed = (np.abs(pq) > 2.0**-50 * np.sqrt(pp) * np.sqrt(qq)) & (np.abs(pq) > 1e-290)
        if not needed.any():
            continue
        turned = True
        c, s = (part[:, :, None] for part in _rotation(pp, qq, pq, needed))
        B[:, p, :], B[:, q, :] = c * P - s * Q, s * P + c * Q
        P, Q = V[:, p, :], V[:, q, :]
        V[:, p, :], V[:, q, :] = c * P - s * Q, s * P + c * Q
    return turned


def _rotation(app: Floats, aqq: Floats, apq: Floats, needed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Cosine and sine of the smaller angles that make `apq` 0; of no angle where none is needed."""
    with np.errstate(over="ignore", under="ignore"):
        theta = (aqq - app) / np.where(needed, 2.0 * apq, 1.0)
        t = np.where(theta >= 0.0, 1.0, -1.0) / (np.abs(theta) + np.sqrt(theta * theta + 1.0))
        t = np.where(needed, t, 0.0)
        c = 1.0 / np.sqrt(t * t + 1.0)
        return c, t * c


def _rounds(n: int) -> Iterator[tuple[Indices, Indices]]:
    """A tournament of `n`: every pair once, in rounds of pairs that share nobody."""
    return iter(_tournament(n))


@lru_cache(maxsize=32)
def _tournament(n: int) -> tuple[tuple[Indices, Indices], ...]:
    players = list(range(n + n % 2))
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = [tuple(sorted(pair)) for pair in zip(players[:half], players[: half - 1 : -1], strict=True)]
        pairs = [pair for pair in pairs if pair[1] < n]
        if pairs:
            rounds.append((np.array([p for p, _ in pairs]), np.array([q for _, q in pairs])))
        players = [players[0], players[-1], *players[1:-1]]
    return tuple(rounds)


def _with_signs(V: Floats) -> Floats:
    """Columns of `V` (b, n, n), the first of the largest magnitudes of each made positive."""
    signed: Floats = V * np.swapaxes(_signs(np.swapaxes(V, 1, 2)), 1, 2)
    return signed


def _signs(rows: Floats) -> Floats:
    """(b, n, 1): 1 or −1, the sign of the first of the largest magnitudes of every row."""
    if rows.shape[-1] == 0:
        return np.ones((*rows.shape[:-1], 1))
    at = np.argmax(np.abs(rows), axis=-1)[..., None]
    return np.where(np.take_along_axis(rows, at, axis=-1) < 0.0, -1.0, 1.0)
