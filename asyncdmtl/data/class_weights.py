"""Balanced weights: in each task, all classes of the target have the same total weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import is_numeric
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.reading import identity

BALANCED = "balanced"
"""The name of balanced weights, as in scikit-learn."""


def balanced_factors(codes: NDArray[np.intp], weights: Floats | None) -> Floats:
    """The factor (rows,) of the weight of each row of a task; the sum of the weights stays the same.

    A row of class `c` has the factor `W / (K·W_c)`, where `W_c` is the sum of the weights of the rows of its
    class, `W` that of all rows, and `K` the number of classes that the task has rows of: "balanced" as in
    scikit-learn.

    Parameters
    ----------
    codes : (rows,) integer array of at least 0
        The class of each row.
    weights : (rows,) float64 array above 0, or None for weights of 1
    """
    own = np.ones(len(codes)) if weights is None else weights
    sums = np.bincount(codes, own)
    factors: Floats = total(own) / (np.count_nonzero(sums) * sums[codes])
    return factors


def balanced(partitions: Sequence[RawPartition]) -> tuple[RawPartition, ...]:
    """The partitions with balanced weights within each task, over all its partitions."""
    of: dict[str, list[int]] = {}
    for i, partition in enumerate(partitions):
        of.setdefault(partition.task, []).append(i)
    found = list(partitions)
    for places in of.values():
        own = [partitions[i] for i in places]
        weights = np.concatenate([np.ones(p.rows) if p.weights is None else p.weights for p in own])
        weights *= balanced_factors(_codes(own), weights)
        cuts = np.cumsum([p.rows for p in own])[:-1]
        for i, part in zip(places, np.split(weights, cuts), strict=True):
            found[i] = replace(partitions[i], weights=part)
    return tuple(found)


def _codes(partitions: Sequence[RawPartition]) -> NDArray[np.intp]:
    """The class (rows,) of each row of some partitions, one after the other."""
    values = [value for p in partitions for value in p.target.tolist()]
    if not is_numeric(partitions[0].target):
        values = [identity(value) for value in values]
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.intp)
