"""The reals: the linear algebra in floating point that linear targets need.

A thin layer over NumPy that fixes three decisions once: when a singular value counts as zero, how random
subspaces are drawn, and in which order a product is summed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats

# A singular value below this fraction of the largest one counts as zero. Rounding in a decomposition of a few
# hundred rows leaves some 1e-13; matrices that a plan is built from have condition numbers far below 1e11.
RANK_TOLERANCE = 1e-11

# Numbers of a row that `product` sums at a time: 128 KB, so that a block of each row stays in the cache.
_BLOCK = 1 << 14


def rank(matrix: Floats) -> int:
    """Numerical rank: the number of singular values above `RANK_TOLERANCE` times the largest."""
    values = _singular_values(matrix)
    return int(np.count_nonzero(values > RANK_TOLERANCE * values[0])) if values.size else 0


def condition_number(matrix: Floats) -> float:
    """Largest over smallest *non-zero* singular value (see `RANK_TOLERANCE`); 1 for a zero or empty matrix.

    This is the factor by which a minimum-norm least-squares solution magnifies relative errors.
    """
    values = _singular_values(matrix)
    values = values[values > RANK_TOLERANCE * values[0]] if values.size else values
    return float(values[0] / values[-1]) if values.size else 1.0


def column_basis(matrix: Floats) -> Floats:
    """Orthonormal basis of the column space of an (m, n) matrix: (m, rank)."""
    if 0 in matrix.shape:
        return np.zeros((matrix.shape[0], 0))
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.ascontiguousarray(left[:, values > RANK_TOLERANCE * values[0]])


def row_basis(matrix: Floats) -> Floats:
    """Orthonormal basis of the row space of an (m, n) matrix: (rank, n)."""
    return np.ascontiguousarray(column_basis(matrix.T).T)


def unit_columns(matrix: Floats) -> Floats:
    """Divide every non-zero column by its Euclidean norm, so that rank does not depend on their scales."""
    # The largest entry goes first: squares of very small or large numbers would leave the range of a float.
    largest = np.max(np.abs(matrix), axis=0, initial=0.0)
    scaled: Floats = matrix / np.where(largest > 0, largest, 1.0)
    lengths: Floats = np.linalg.norm(scaled, axis=0)
    scaled /= np.where(lengths > 0, lengths, 1.0)
    return scaled


def kron_identity(matrix: Floats, P: int) -> Floats:
    """`matrix ⊗ I_P`: the same map on vectors cut into P packets, (m, n) to (m·P, n·P)."""
    return np.asarray(np.kron(matrix, np.eye(P)), dtype=np.float64)


def random_orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """A (rows, columns) matrix, uniform among those with orthonormal columns (or rows, if it is wide)."""
    if rows < columns:
        return np.ascontiguousarray(random_orthonormal(rng, columns, rows).T)
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    # LAPACK's signs are a convention, not random: without this step the distribution is not uniform.
    return np.ascontiguousarray(Q * np.where(np.diag(R) < 0, -1.0, 1.0))


def solve(matrix: Floats, right: Floats) -> Floats:
    """The least-squares solution of smallest norm of `matrix @ X = right`: (n, j) for (m, n) and (m, j)."""
    if 0 in matrix.shape or 0 in right.shape:
        return np.zeros((matrix.shape[1], right.shape[1]))
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=RANK_TOLERANCE)[0], dtype=np.float64)


def product(matrix: Floats, vectors: NDArray[np.float64] | NDArray[np.float32]) -> Floats:
    """`matrix @ vectors` in float64: (m, n) times (n, d) is (m, d).

    Every entry is summed in the order of the n terms, one rounding per operation. A BLAS chooses its own
    order for each CPU and number of threads; this result is the same everywhere, bit for bit.
    """
    total = np.zeros((matrix.shape[0], vectors.shape[1]))
    for start in range(0, vectors.shape[1], _BLOCK):
        block = np.s_[start : start + _BLOCK]
        for row, coefficients in enumerate(matrix):
            for n in np.flatnonzero(coefficients):
                total[row, block] += coefficients[n] * vectors[n, block].astype(np.float64, copy=False)
    return total


def _singular_values(matrix: Floats) -> Floats:
    if 0 in matrix.shape:
        return np.zeros(0)
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
