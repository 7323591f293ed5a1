"""Batches of partitions with equal shapes, whose losses and gradients are computed together.

Every partition gets the same bits as it would get alone: stacked matrices are multiplied matrix by matrix,
and sums are taken row by row. So no update depends on what else a worker stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.tasks import Partition

# Bytes of rows up to which a partition is copied next to others. Larger partitions take so long to compute
# that calling NumPy once for each costs nothing.
_SMALL = 1 << 20


class Batch(NamedTuple):
    """`P` partitions of `r` rows and `F` features each.

    `places` are their positions among the stored partitions, and `tasks` the indices of their tasks. `X` is
    (P, r, F). `X_by_column` has the same numbers, those of a column one after another in memory, which makes
    scores quicker; of a large partition it is `X` itself. `y` and `weights` are (P, r). `weight` (P,) has the
    sums of `weights`, or the numbers of rows if there are no weights.
    """

    places: list[int]
    tasks: list[int]
    X: Floats
    X_by_column: Floats
    y: Floats
    weights: Floats | None
    weight: Floats

    def means(self, values: Floats) -> Floats:
        """The weighted mean of values (P, r) over the rows of each partition: (P,)."""
        if self.weights is None:
            return mean(values, 1)
        weighted: Floats = total(values * self.weights, 1) / self.weight
        return weighted

    def shares(self, values: Floats) -> Floats:
        """Values (P, r) times the share of each row in the weighted mean of its partition: (P, r)."""
        weighted = values if self.weights is None else values * self.weights
        return weighted / self.weight[:, None]


def make_batches(partitions: Sequence[Partition], tasks: Sequence[int]) -> list[Batch]:
    """All partitions in batches; `tasks` has the task of each. A large partition is a batch of its own."""
    groups: dict[object, list[int]] = {}
    for place, partition in enumerate(partitions):
        alone = place if partition.X.nbytes > _SMALL else None
        groups.setdefault((partition.X.shape, partition.weights is None, alone), []).append(place)
    return [_batch([partitions[i] for i in places], places, tasks) for places in groups.values()]


def _batch(partitions: Sequence[Partition], places: list[int], tasks: Sequence[int]) -> Batch:
    first = partitions[0]
    X = first.X[None] if len(partitions) == 1 else np.stack([partition.X for partition in partitions])
    large = first.X.nbytes > _SMALL
    weights = [partition.weights for partition in partitions if partition.weights is not None]
    return Batch(
        places,
        [tasks[i] for i in places],
        X,
        X if large else np.ascontiguousarray(X.swapaxes(1, 2)).swapaxes(1, 2),
        np.stack([partition.y for partition in partitions]),
        np.stack(weights) if weights else None,
        np.array([partition.weight for partition in partitions]),
    )
