"""Exact linear algebra over GF(2^8): rank, inverse, solution, null space, independent rows.

All functions use Gauss–Jordan elimination by panels of a few columns. A panel is *swept*: exchanging one
variable for one equation at a time turns the pivots' block S into S⁻¹ and the block F below or above it into
F S⁻¹ (Tucker's principal pivot transform; signs vanish in characteristic 2). One product with the swept
columns then updates the columns beside the panel, so products do nearly all of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field.gf256 import INVERSES, PRODUCTS, dense_product, elements

# Columns that are swept at a time: few enough that sweeping costs little, many enough that products are
# large.
PANEL = 16

# Columns that are eliminated before the rest of a large matrix is updated: each update reads all of it once.
BLOCK = 128


def rank(matrix: Bytes) -> int:
    """Rank of a uint8 matrix (r, c); either may be 0.

    Raises
    ------
    UsageError
        `matrix` is not a uint8 matrix.
    """
    return len(_pivot_columns(_matrix("matrix", matrix)))


def independent_rows(matrix: Bytes) -> tuple[int, ...]:
    """Indices of the lexicographically first maximal independent set of rows of a uint8 matrix, ascending.

    These are the rows that are not combinations of those before them.

    Raises
    ------
    UsageError
        `matrix` is not a uint8 matrix.
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
        update = dense_product(panel, work[rows])
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
    return dense_product(inverse, b)


def null_space(matrix: Bytes) -> Bytes:
    """A basis of the vectors `x` with `matrix` x = 0: uint8 (c, c − rank) for a uint8 matrix (r, c).

    Raises
    ------
    UsageError
        `matrix` is not a uint8 matrix.
    """
    matrix = _matrix("matrix", matrix)
    steps = list(_eliminate(matrix))
    pivots = np.concatenate([np.empty(0, dtype=np.intp), *(step.pivots for step in steps)])
    free = np.delete(np.arange(matrix.shape[1]), pivots)
    basis = np.zeros((matrix.shape[1], len(free)), dtype=np.uint8)
    basis[free, np.arange(len(free))] = 1
    for step in reversed(steps):
        if step.pivots.size and free.size:
            basis[step.pivots] = dense_product(step.rest, basis[step.columns])
    return basis


@dataclass(frozen=True)
class _Step:
    """One block of elimination: variables `pivots` are `rest` times the later variables `columns`."""

    pivots: NDArray[np.intp]
    columns: NDArray[np.intp]
    rest: Bytes


def _pivot_columns(matrix: Bytes) -> list[int]:
    """Columns that are not combinations of those before them, ascending."""
    return [column for step in _eliminate(matrix, solve=False) for column in step.pivots.tolist()]


def _eliminate(matrix: Bytes, *, solve: bool = True) -> Iterator[_Step]:
    """Forward elimination by blocks of columns; without `solve` the steps have no `rest`."""
    left = np.ascontiguousarray(matrix)
    start, end = 0, matrix.shape[1]
    while left.size:
        panel, beside = left[:, :BLOCK].copy(), left[:, BLOCK:]
        rows, pivots = _sweep_block(panel)
        others = np.delete(np.arange(len(panel)), rows)
        rest, columns = np.empty((len(rows), 0), dtype=np.uint8), np.empty(0, dtype=np.intp)
        if solve:
            unused = np.delete(np.arange(panel.shape[1]), pivots)
            columns = np.concatenate([start + unused, np.arange(start + panel.shape[1], end)])
            solved = dense_product(panel[np.ix_(rows, pivots)], beside[rows])
            rest = np.hstack([panel[np.ix_(rows, unused)], solved])
        yield _Step(start + pivots, columns, rest)
        start += panel.shape[1]
        left = beside[others]
        if rows.size and left.size:
            left ^= dense_product(panel[np.ix_(others, pivots)], beside[rows])


def _sweep_block(panel: Bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sweep a block (r, c) of several panels in place; return rows and columns of its pivots, paired."""
    free = np.ones(len(panel), dtype=np.bool_)
    all_rows, all_columns = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=np.intp)]
    for start in range(0, panel.shape[1], PANEL):
        swept = panel[:, start : start + PANEL].copy()
        rows, columns = _sweep(swept, free)
        if rows.size:
            update = dense_product(swept[:, columns], panel[rows])
            panel ^= update
            panel[rows] = update[rows]
            free[rows] = False
        panel[:, start : start + PANEL] = swept
        all_rows.append(rows)
        all_columns.append(start + columns)
    return np.concatenate(all_rows), np.concatenate(all_columns)


def _sweep(panel: Bytes, free: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sweep `panel` (r, c) in place, pivots from `free` rows (r,); return their rows and columns, paired."""
    free = free.copy()
    rows: list[int] = []
    columns: list[int] = []
    # Rows are padded to whole words, so that they are added and copied 8 bytes at a time.
    work = np.zeros((len(panel), -(-panel.shape[1] // 8) * 8), dtype=np.uint8)
    work[:, : panel.shape[1]] = panel
    words = work.view(np.uint64)
    for j in range(panel.shape[1]):
        column = work[:, j].copy()
        i = int(np.multiply(column, free).argmax())
        if not (free[i] and column[i]):
            continue
        pivot_inverse = INVERSES[column[i]]
        row = PRODUCTS[pivot_inverse].take(work[i])
        row[j] = pivot_inverse
        column[i] = 1
        work[i] = 0
        work[:, j] = 0
        words ^= PRODUCTS.take(row, axis=1).view(np.uint64).take(column, axis=0)
        free[i] = False
        rows.append(i)
        columns.append(j)
    panel[:] = work[:, : panel.shape[1]]
    return np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp)


def _matrix(argument: str, value: Bytes) -> Bytes:
    array = elements(argument, value)
    if array.ndim != 2:
        raise UsageError(argument, "must have two axes", f"shape {array.shape}")
    return array
