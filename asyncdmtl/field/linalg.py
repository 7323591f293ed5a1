"""Linear algebra over GF(2^8): rank, inverse, solution, independent rows. Exact.

All functions use Gauss–Jordan elimination by panels of a few columns. A panel is *swept*: exchanging one
variable for one equation at a time turns the pivots' block S into S⁻¹ and the block F below or above it into
F S⁻¹ (Tucker's principal pivot transform; signs vanish in characteristic 2). One product with the swept
columns then updates the columns beside the panel, so `Product` does nearly all of the work.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field.gf256 import INVERSES, PRODUCTS, Product, elements

# Columns that are swept at a time: few enough that sweeping costs little, many enough that products are
# large.
PANEL = 16


def rank(matrix: Bytes) -> int:
    """Rank of a uint8 matrix (r, c); either may be 0.

    Raises
    ------
    UsageError
        Not a matrix of uint8.
    """
    return len(_pivot_columns(_matrix("matrix", matrix)))


def independent_rows(matrix: Bytes) -> tuple[int, ...]:
    """Indices of the lexicographically first maximal independent set of rows of a uint8 matrix, ascending.

    These are the rows that are not combinations of those before them.

    Raises
    ------
    UsageError
        Not a matrix of uint8.
    """
    return tuple(_pivot_columns(_matrix("matrix", matrix).T))


def invert(matrix: Bytes) -> Bytes:
    """Inverse of a uint8 matrix (n, n); n may be 0.

    Raises
    ------
    UsageError
        Not a square matrix of uint8.
    CodingError
        The matrix is singular.
    """
    work = _matrix("matrix", matrix).copy()
    n, columns = work.shape
    if n != columns:
        raise UsageError("matrix", "must be square", f"shape {work.shape}")
    row_of = np.empty(n, dtype=np.intp)  # column → the row that was its pivot
    free = np.ones(n, dtype=np.bool_)
    for start in range(0, n, PANEL):
        panel = work[:, start : start + PANEL].copy()
        rows, pivots = _sweep(panel, free)
        if len(rows) < panel.shape[1]:
            raise CodingError(f"matrix of shape {n} × {n} is singular: it has no inverse over GF(2^8)")
        update = Product(panel)(work[rows])
        work ^= update
        work[rows] = update[rows]
        work[:, start : start + PANEL] = panel
        row_of[start + pivots] = rows
        free[rows] = False
    result = np.empty_like(work)
    result[:, row_of] = work[row_of]
    return result


def solve(a: Bytes, b: Bytes) -> Bytes:
    """The X with `a` X = `b`: `a` (n, n), `b` (n, c), uint8, give X (n, c).

    Raises
    ------
    UsageError
        Not matrices of uint8, or shapes that do not fit.
    CodingError
        `a` is singular.
    """
    b = _matrix("b", b)
    inverse = invert(a)
    if len(b) != len(inverse):
        raise UsageError("b", f"must have {len(inverse)} rows", len(b))
    return Product(inverse)(np.ascontiguousarray(b))


def _pivot_columns(matrix: Bytes) -> list[int]:
    """Columns that are not combinations of those before them, ascending."""
    rest = np.ascontiguousarray(matrix)
    found: list[int] = []
    start = 0
    while rest.size:
        panel, beside = rest[:, :PANEL].copy(), rest[:, PANEL:]
        rows, pivots = _sweep(panel, np.ones(len(panel), dtype=np.bool_))
        found += (start + pivots).tolist()
        start += PANEL
        others = np.delete(np.arange(len(panel)), rows)
        rest = beside[others]
        rest ^= Product(panel[np.ix_(others, pivots)])(beside[rows])
    return found


def _sweep(panel: Bytes, free: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sweep `panel` (r, c) in place, pivots from `free` rows (r,); return their rows and columns, paired."""
    free = free.copy()
    rows: list[int] = []
    columns: list[int] = []
    for j in range(panel.shape[1]):
        candidates = (panel[:, j] != 0) & free
        i = int(candidates.argmax())
        if not candidates[i]:
            continue
        pivot_inverse = INVERSES[panel[i, j]]
        row = PRODUCTS[pivot_inverse, panel[i]]
        row[j] = pivot_inverse
        column = panel[:, j].copy()
        column[i] = 1
        panel[i] = 0
        panel[:, j] = 0
        multiples = np.ascontiguousarray(PRODUCTS[row].T)
        panel ^= multiples[column]
        free[i] = False
        rows.append(i)
        columns.append(j)
    return np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp)


def _matrix(argument: str, value: Bytes) -> Bytes:
    array = elements(argument, value)
    if array.ndim != 2:
        raise UsageError(argument, "must have two axes", f"shape {array.shape}")
    return array
