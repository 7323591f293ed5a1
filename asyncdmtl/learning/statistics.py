"""Sufficient statistics for squared loss: they determine the models for every coupling and every λ.

They are the sum of weights, the weighted means of the columns `[X, y]`, and the scatter about these means. If
λ is to be chosen, the rows of a partition are dealt into folds, and each fold has statistics of its own.
Statistics of folds have single precision, which suffices for the choice; models are trained from the double
precision of all rows.

The statistics of a task are pooled from those of its partitions: Chan, Golub, LeVeque,
"Algorithms for Computing the Sample Variance", The American Statistician 37(3), 1983.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arithmetic.triangles import symmetric, upper
from asyncdmtl.arrays import Bytes, Floats, Indices
from asyncdmtl.digests import draws
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.quadratic import Quadratics
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.plan.spans import Span

INTERCEPTS = ("free", "penalised", "none")


@dataclass(frozen=True)
class Layout:
    """The layout of statistics in a vector: a float64 block for all rows, a float32 block for each fold but
    one.

    The statistics of the last fold are those of all rows less those of the other folds.

    Attributes
    ----------
    features : int
    folds : int
        At least 2; or 1 for no folds.
    """

    features: int
    folds: int = 1

    def __post_init__(self) -> None:
        if self.features < 1 or self.folds < 1:
            raise UsageError("features and folds", "must be at least 1", (self.features, self.folds))

    @property
    def columns(self) -> int:
        """The number of columns of `[X, y]`."""
        return self.features + 1

    @property
    def numbers(self) -> int:
        """The numbers of a block: a weight, means, and the upper triangle of the scatter."""
        return 1 + self.columns + self.columns * (self.columns + 1) // 2

    @property
    def size(self) -> int:
        """The bytes of a vector."""
        return self.numbers * (8 + 4 * (self.folds - 1))

    def pack(self, blocks: Floats, what: str) -> Bytes:
        """The vector (size,) of blocks (folds, numbers): of all rows, and of all folds but the last.

        Raises
        ------
        DataError
            Numbers are too large for their precision; the error calls their origin `what`.
        """
        with np.errstate(over="ignore"):
            parts = blocks[0].astype("<f8"), blocks[1:].astype("<f4").reshape(-1)
        if not all(np.isfinite(part).all() for part in parts):
            raise DataError(what, "must have squares that are finite; scale the features", float("inf"))
        return np.concatenate([part.view(np.uint8) for part in parts])

    def unpack(self, vector: Bytes) -> Floats:
        """Blocks (folds, numbers) of a vector."""
        whole, rest = np.split(np.ascontiguousarray(vector), [8 * self.numbers])
        folds = rest.view("<f4").astype(np.float64).reshape(-1, self.numbers)
        return np.concatenate([whole.view("<f8").astype(np.float64)[None], folds])


class StatisticsWire:
    """The format in which statistics travel: bytes, not compressed.

    Attributes
    ----------
    length, dtype : int, numpy dtype
        The length and dtype of a vector as it travels.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.length = layout.size
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)


def statistics(partition: Partition, layout: Layout, seed: int) -> Bytes:
    """The statistics of a partition, as a vector of `layout.size` bytes: the same at all its holders.

    Raises
    ------
    DataError
        Squares of numbers are not finite.
    """
    folds = deal(partition, layout.folds, seed)
    weights = np.ones(partition.rows) if partition.weights is None else partition.weights
    columns = np.column_stack([partition.X, partition.y])
    chosen = [slice(None), *(folds == fold for fold in range(layout.folds - 1))]
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = np.array([_block(columns[rows], weights[rows]) for rows in chosen])
    return layout.pack(blocks, f"partition {partition.id!r}")


def pool(parts: Mapping[Span, Bytes], span: Span, layout: Layout, what: str) -> Bytes:
    """The statistics of consecutive partitions of a task, along the tree of `asyncdmtl.plan.spans`.

    Parameters
    ----------
    parts : mapping of Span to vector
        The statistics of single partitions, and pooled ones that have taken the place of several.
    span : Span
        The partitions to pool.
    layout : Layout
    what : str
        The origin of the statistics, for errors.

    Raises
    ------
    DataError
        Numbers are too large for their precision.
    """
    if span in parts:
        return parts[span]
    halves = [layout.unpack(pool(parts, half, layout, what)) for half in span.halves]
    weights, means, scatter = _split(np.stack(halves), layout)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = total(weights, 0)
        mean = total(weights[..., None] * means, 0) / np.where(weight > 0.0, weight, 1.0)[..., None]
        offsets = means - mean
        outer = offsets[..., :, None] * offsets[..., None, :]
        pooled = total(scatter + weights[..., None, None] * outer, 0)
    return layout.pack(_joined(weight, mean, pooled), what)


def pool_all(vectors: Sequence[Bytes], layout: Layout, what: str) -> Bytes:
    """The statistics of a task from those of all its partitions, in their order."""
    span = Span(0, len(vectors))
    return pool(dict(zip(span.singles, vectors, strict=True)), span, layout, what)


def deal(partition: Partition, folds: int, seed: int) -> Indices:
    """The fold (rows,) that holds out each row of a partition, the same at all its holders.

    Rows are sorted by a hash of the partition's name and their index, keyed with the seed, and dealt to the
    folds in turn. The first fold is random, too, so that many small partitions fill all folds alike. Classes
    are dealt one after the other.
    """
    key = seed.to_bytes(8, "little") + partition.id.encode()
    *drawn, first = draws(key, partition.rows + 1)
    order = sorted(range(partition.rows), key=lambda row: (partition.y[row] == 1.0, drawn[row]))
    if not set(np.unique(partition.y)) <= {0.0, 1.0}:
        order = sorted(range(partition.rows), key=drawn.__getitem__)
    dealt = np.empty(partition.rows, np.int64)
    dealt[order] = (np.arange(partition.rows) + first % folds) % folds
    return dealt


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """Statistics of all tasks as moments about each task's means, which can be added and subtracted.

    Attributes
    ----------
    means : (T, columns) float64 array
        The means of `[X, y]`.
    weights : (D, T) float64 array
        The weights of `D` sets of rows: of all rows, and of each fold if there are folds.
    sums : (D, T, columns) float64 array
        About the task's means.
    moments : (D, T, columns, columns) float64 array
        About the task's means.
    """

    means: Floats
    weights: Floats
    sums: Floats
    moments: Floats

    @classmethod
    def of(cls, vectors: Sequence[Bytes], layout: Layout) -> TaskStatistics:
        """The statistics in the pooled vectors of all tasks."""
        blocks = np.stack([layout.unpack(vector) for vector in vectors], axis=1)
        weights, means, scatter = _split(blocks, layout)
        offsets = means - means[0]
        sums = weights[..., None] * offsets
        moments = scatter + sums[..., :, None] * offsets[..., None, :]
        if layout.folds > 1:
            weights, sums, moments = (
                np.concatenate([part, part[:1] - total(part[1:], 0)[None]])
                for part in (weights, sums, moments)
            )
            # If the last fold has no rows, its weight is a rounding error.
            weights = np.where(weights < 1e-6 * weights[0], 0.0, weights)
        return cls(means[0], weights, sums, moments)

    @property
    def folds(self) -> int:
        """The number of folds; 0 if there are none."""
        return max(len(self.weights) - 1, 0)

    def whole(self, intercept: str) -> Quadratics:
        """The least-squares problem of all rows, as one data set."""
        return self._quadratics(self.weights[:1], self.sums[:1], self.moments[:1], intercept)

    def without(self, intercept: str, ridge: float) -> Quadratics:
        """The least-squares problems of the rows outside each fold: one data set for each fold.

        A fold that contains all rows of a task holds out none of them. `ridge` times the diagonal of all rows
        of the task is added to the diagonal, since rounding to single precision may leave matrices slightly
        indefinite: as much as a column's own size, so that one of large numbers does not drown the others.
        """
        held = self.held()[..., None]
        weights = self.weights[0] - np.where(held[..., 0], self.weights[1:], 0.0)
        sums = self.sums[0] - np.where(held, self.sums[1:], 0.0)
        moments = self.moments[0] - np.where(held[..., None], self.moments[1:], 0.0)
        made = self._quadratics(weights, sums, moments, intercept)
        whole = np.einsum("ktii->kti", self.whole(intercept).A)
        eye = np.eye(made.b.shape[-1])
        return Quadratics(made.A + ridge * whole[..., None] * eye, made.b, made.c)

    def held(self) -> NDArray[np.bool_]:
        """(folds, T) bool: whether a fold holds out rows of a task. It must contain some, but not all."""
        part = self.weights[1:]
        held: NDArray[np.bool_] = (part > 0.0) & (part < (1.0 - 1e-6) * self.weights[0])
        return held

    def intercepts(self, W: Floats, intercept: str, *, folds: bool = False) -> Floats:
        """Intercepts (K, L, T) of models (K, L, T, C), for all rows or for the rows outside each fold."""
        if intercept == "none":
            return np.zeros(W.shape[:-1])
        if intercept == "penalised":
            last: Floats = W[..., -1]
            return last
        means = self.means[None]
        if folds:
            held = self.held()
            weights = self.weights[0] - np.where(held, self.weights[1:], 0.0)
            sums = self.sums[0] - np.where(held[..., None], self.sums[1:], 0.0)
            means = means + sums / weights[..., None]
        centre: Floats = means[:, None, :, -1] - total(means[:, None, :, :-1] * W, 3)
        return centre

    def held_out_loss(self, W: Floats, b: Floats) -> Floats:
        """The mean loss (folds, L) of the rows that each fold holds out, averaged over tasks; NaN if none.

        `W` (folds, L, T, features) and `b` (folds, L, T) were fitted to the other rows.
        """
        held = self.held()
        weights = np.where(held, self.weights[1:], 1.0)
        r = np.concatenate([-W, np.ones_like(b)[..., None]], axis=-1)
        e = self.means[:, -1] - total(self.means[:, :-1] * W, 3) - b
        moved = np.ascontiguousarray(r.transpose(0, 2, 3, 1))
        products = matmul(np.ascontiguousarray(self.moments[1:]), moved).transpose(0, 3, 1, 2)
        squares = total(r * products, 3) + 2.0 * e * total(r * self.sums[1:, None], 3)
        losses = 0.5 * (squares / weights[:, None] + e * e)
        counted = held.sum(axis=1)[:, None]
        added = total(np.where(held[:, None], np.maximum(losses, 0.0), 0.0), 2)
        means: Floats = np.where(counted > 0, added / np.maximum(counted, 1), np.nan)
        return means

    def _quadratics(self, weights: Floats, sums: Floats, moments: Floats, intercept: str) -> Quadratics:
        means = sums / weights[..., None]
        S = moments / weights[..., None, None] - means[..., :, None] * means[..., None, :]
        if intercept != "free":
            # Moments about 0; a penalised intercept adds a column of ones.
            means = means + self.means
            S = S + means[..., :, None] * means[..., None, :]
        A, b, c = S[..., :-1, :-1], S[..., :-1, -1], S[..., -1, -1]
        if intercept == "penalised":
            m, n = means[..., :-1], means[..., -1:]
            ones = np.ones_like(n)[..., None]
            A = np.block([[A, m[..., :, None]], [m[..., None, :], ones]])
            b = np.concatenate([b, n], axis=-1)
        return Quadratics(np.ascontiguousarray(A), np.ascontiguousarray(b), np.maximum(c, 0.0))


def _block(columns: Floats, weights: Floats) -> Floats:
    """Weight, means and scatter of rows (n, columns), as one block."""
    weight = float(total(weights, 0)) if len(weights) else 0.0
    if weight <= 0.0:
        n = columns.shape[1]
        return np.zeros(1 + n + n * (n + 1) // 2)
    means = total(weights[:, None] * columns, 0) / weight
    centred = columns - means
    # The mean of the centred rows is not 0 but a rounding error, for which the scatter is corrected.
    scatter = gram(np.ascontiguousarray((np.sqrt(weights)[:, None] * centred).T))
    return _joined(np.array(weight), means, scatter)


def _joined(weight: Floats, means: Floats, scatter: Floats) -> Floats:
    return np.concatenate([weight[..., None], means, upper(scatter)], axis=-1)


def _split(blocks: Floats, layout: Layout) -> tuple[Floats, Floats, Floats]:
    """Split blocks into weights (…,), means (…, columns) and scatter (…, columns, columns)."""
    n = layout.columns
    return blocks[..., 0], blocks[..., 1 : 1 + n], symmetric(blocks[..., 1 + n :], n)
