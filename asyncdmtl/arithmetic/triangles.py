"""Symmetric matrices as vectors of their upper triangles, row by row."""

from __future__ import annotations

import functools

import numpy as np

from asyncdmtl.arithmetic import blas
from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arrays import Floats, Indices

# Products of columns that are in memory at a time: 4 MB of float64; and the least number of rows of a block.
_PRODUCTS, _LEAST_ROWS = 1 << 19, 16

# Numbers of weighted rows that BLAS multiplies at a time: half a megabyte, which stays in the cache.
_WEIGHTED = 1 << 16


def upper(S: Floats) -> Floats:
    """The upper triangles (…, n (n + 1) / 2) of matrices (…, n, n)."""
    n = S.shape[-1]
    triangles: Floats = np.take(S.reshape(*S.shape[:-2], n * n), _triangle(n), axis=-1)
    return triangles


def symmetric(triangles: Floats, n: int) -> Floats:
    """The symmetric matrices (…, n, n) with these upper triangles (…, n (n + 1) / 2)."""
    matrices: Floats = np.take(triangles, _places(n), axis=-1)
    return matrices


def second_moments(X: Floats, weights: Floats) -> Floats:
    """The upper triangles (P, C, d (d + 1) / 2) of `Σ_r weights[p, c, r] x_r x_rᵀ`, over the rows of a `p`.

    Products of columns are computed once for all `C` vectors of weights. BLAS is quicker for each by itself.

    Parameters
    ----------
    X : (P, r, d) float64 array
    weights : (P, C, r) float64 array
        At least 0.
    """
    if blas.chosen():
        return _by_blas(X, weights)
    P, r, d = X.shape
    length = d * (d + 1) // 2
    # The number of rows of a block depends on `d` alone, so that no sum depends on the other partitions.
    rows = max(_LEAST_ROWS, _PRODUCTS // length)
    at_once = max(1, _PRODUCTS // (min(rows, r) * length))
    moments = np.zeros((P, weights.shape[1], length))
    memory = np.empty((min(at_once, P), min(rows, r), length))
    for some in (slice(first, min(first + at_once, P)) for first in range(0, P, at_once)):
        for block in (slice(first, min(first + rows, r)) for first in range(0, r, rows)):
            products = memory[: some.stop - some.start, : block.stop - block.start]
            _multiply_columns(X[some, block], products)
            moments[some] += matmul(weights[some, :, block], products)
    return moments


def _by_blas(X: Floats, weights: Floats) -> Floats:
    """`second_moments` from the Gram matrices of rows times the roots of their weights."""
    P, r, d = X.shape
    C, roots = weights.shape[1], np.sqrt(weights)
    moments = np.empty((P, C, d * (d + 1) // 2))
    at_once = max(1, _WEIGHTED // (r * d or 1))
    for p in range(P):
        for some in (slice(first, first + at_once) for first in range(0, C, at_once)):
            rows = X[p] * roots[p, some, :, None]
            # A product with the own transpose takes BLAS half the work.
            moments[p, some] = upper(np.matmul(np.swapaxes(rows, 1, 2), rows))
    return moments


def _multiply_columns(X: Floats, out: Floats) -> None:
    """Write the products of all pairs of columns, as an upper triangle has them: (P, r, d (d + 1) / 2)."""
    d, start = X.shape[2], 0
    for i in range(d):
        np.multiply(X[..., i : i + 1], X[..., i:], out=out[..., start : start + d - i])
        start += d - i


@functools.lru_cache(maxsize=16)
def _triangle(n: int) -> Indices:
    """Where the numbers of the upper triangle are in a matrix (n, n)."""
    i, j = np.triu_indices(n)
    return i * n + j


@functools.lru_cache(maxsize=16)
def _places(n: int) -> Indices:
    """Where each number of a matrix (n, n) is in its upper triangle."""
    i, j = np.triu_indices(n)
    places = np.empty((n, n), np.intp)
    places[i, j] = places[j, i] = np.arange(len(i))
    return places
