"""Partitions of equal shape side by side, so that their losses and gradients are computed together.

Every partition has the bits that it would have alone: products of stacked matrices are taken matrix by
matrix, sums row by row. So no update depends on what else is stored at a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.tasks import Partition

# Bytes of rows up to which a partition is copied to lie beside others; in larger ones their own work takes
# the time.
_SMALL = 1 << 20


class Batch(NamedTuple):
    """`P` partitions of `r` rows and `F` features each.

    `places` are their positions among those that are stored, `tasks` their tasks; `X` is (P, r, F), `y` and
    `weights` (P, r), `weight` (P,): the sums of `weights`, or the numbers of rows where there are none.
    """

    places: list[int]
    tasks: list[int]
    X: Floats
    y: Floats
    weights: Floats | None
    weight: Floats

    def means(self, values: Floats) -> Floats:
        """The mean of values (P, r) over the rows of each partition, by their weights: (P,)."""
        if self.weights is None:
            return mean(values, 1)
        weighted: Floats = total(values * self.weights, 1) / self.weight
        return weighted

    def shares(self, values: Floats) -> Floats:
        """Values (P, r) times the share that each row has in the mean of its partition."""
        weighted = values if self.weights is None else values * self.weights
        return weighted / self.weight[:, None]


def make_batches(partitions: Sequence[Partition], tasks: Sequence[int]) -> list[Batch]:
    """All partitions, of the tasks named, in batches; large ones by themselves, and where they lie."""
    groups: dict[object, list[int]] = {}
    for place, partition in enumerate(partitions):
        alone = place if partition.X.nbytes > _SMALL else None
        groups.setdefault((partition.X.shape, partition.weights is None, alone), []).append(place)
    return [_batch([partitions[i] for i in places], places, tasks) for places in groups.values()]


def _batch(partitions: Sequence[Partition], places: list[int], tasks: Sequence[int]) -> Batch:
    first = partitions[0]
    X = first.X[None] if len(partitions) == 1 else np.stack([partition.X for partition in partitions])
    weights = [partition.weights for partition in partitions if partition.weights is not None]
    return Batch(
        places,
        [tasks[i] for i in places],
        X,
        np.stack([partition.y for partition in partitions]),
        np.stack(weights) if weights else None,
        np.array([partition.weight for partition in partitions]),
    )
