"""Batches of partitions with nearly equal shapes, whose losses and gradients are computed together.

Every partition gets the same bits as it would get alone: zero rows that do not count bring it to a number of
rows that depends on its own number only, stacked matrices are multiplied matrix by matrix, and sums are taken
row by row. So no update depends on the other partitions of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.tasks import Partition

# The most bytes of rows of a partition that is copied into a batch with others. Larger partitions take so
# long to compute that a NumPy call for each costs nothing noticeable.
_SMALL = 1 << 20

# The number of sizes between 2ⁿ and 2ⁿ⁺¹ to which partitions are padded: at most an eighth of the rows is
# added.
_SIZES = 8


# The fewest rows for which contiguous columns are faster.
_LONG = 16

# Partitions from which on it is worth while to go along these, and the most bytes that each then has.
_MANY, _TINY = 32, 1 << 16


class Batch(NamedTuple):
    """`P` partitions of up to `r` rows and `F` features each.

    Attributes
    ----------
    places, tasks : list of int
        The partitions' positions among the stored partitions, and the indices of their tasks.
    X : (P, r, F) array
        The rows, padded with zeros below.
    X_by_column : (P, r, F) array
        The same numbers column by column in memory, which makes scores quicker. It is `X`
        itself where partitions are large or have few rows, and where there are many: there the numbers of all
        partitions in one place are one after another, which makes all products quicker.
    y : (P, r) array
    present : (P, r) array of bool
        True for rows that are not padding.
    weights : (P, r) array, or None
        The weights of rows; None if they have none.
    weight : (P,) array
        The sums of `weights`, or the numbers of rows.
    """

    places: list[int]
    tasks: list[int]
    X: Floats
    X_by_column: Floats
    y: Floats
    present: NDArray[np.bool_]
    weights: Floats | None
    weight: Floats

    def means(self, values: Floats) -> Floats:
        """The weighted mean of values (P, r) over the rows of each partition: (P,)."""
        weighted: Floats = total(self._weighted(values), 1) / self.weight
        return weighted

    def shares(self, values: Floats) -> Floats:
        """Values (P, r) times the share of each row in the weighted mean of its partition: (P, r)."""
        shares: Floats = self._weighted(values) / self.weight[:, None]
        return shares

    def _weighted(self, values: Floats) -> Floats:
        # Values of padding may be infinite, so that multiplication by 0 would not remove them.
        counted = np.where(self.present, values, 0.0)
        return counted if self.weights is None else counted * self.weights


def make_batches(partitions: Sequence[Partition], tasks: Sequence[int]) -> list[Batch]:
    """Group all partitions into batches; `tasks` has the task of each. A large partition is its own batch."""
    groups: dict[object, list[int]] = {}
    for place, partition in enumerate(partitions):
        small = partition.X.nbytes <= _SMALL
        shape = (_size(partition.rows), partition.features) if small else place
        groups.setdefault((shape, partition.weights is None), []).append(place)
    return [_batch([partitions[i] for i in places], places, tasks) for places in groups.values()]


def _size(rows: int) -> int:
    """The smallest of the permitted sizes, `_SIZES` in each octave, that is at least `rows`."""
    step = max(1, (1 << (rows.bit_length() - 1)) // _SIZES)
    return -(-rows // step) * step


def _batch(partitions: Sequence[Partition], places: list[int], tasks: Sequence[int]) -> Batch:
    first = partitions[0]
    large = first.X.nbytes > _SMALL
    rows = first.rows if large else _size(first.rows)
    y = np.zeros((len(partitions), rows))
    weights = None if first.weights is None else np.zeros((len(partitions), rows))
    present = np.zeros((len(partitions), rows), np.bool_)
    many = len(partitions) >= _MANY and 8 * rows * first.features <= _TINY
    if large:
        X = first.X[None]
    elif many:
        X = np.zeros((first.features, rows, len(partitions))).transpose(2, 1, 0)
    else:
        X = np.zeros((len(partitions), rows, first.features))
    for i, partition in enumerate(partitions):
        own = slice(0, partition.rows)
        y[i, own], present[i, own] = partition.y, True
        if weights is not None:
            assert partition.weights is not None
            weights[i, own] = partition.weights
        if not large:
            X[i, own] = partition.X
    return Batch(
        places,
        [tasks[i] for i in places],
        X,
        X if large or many or rows < _LONG else np.ascontiguousarray(X.swapaxes(1, 2)).swapaxes(1, 2),
        y,
        present,
        weights,
        np.array([partition.weight for partition in partitions]),
    )
