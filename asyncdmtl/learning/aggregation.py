"""ψ, within a task: from the updates of its partitions to one (theory, section 1).

An aggregate is a function `(updates, weights) -> z`: (n, d) and (n,) float64 → (d,) float64, with the
updates in ascending order of their partitions and the rows of each partition as its weight.
It must be deterministic: every worker computes it for itself. A line in `AGGREGATES` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats, Floats], Floats]


def mean(updates: Floats, weights: Floats) -> Floats:
    """`Σ_n weight_n · v_n / Σ_n weight_n`, added up in the order given.

    Of gradients per row it is the gradient of the task's mean loss, so that a run is exact proximal
    gradient descent. It withstands nothing: one wrong update moves it anywhere.
    """
    z: Floats = updates[0] * weights[0]
    for v, weight in zip(updates[1:], weights[1:], strict=True):
        z += v * weight
    z /= weights.sum()
    return z


def median(updates: Floats, weights: Floats) -> Floats:
    """The median of every coordinate by itself; weights are ignored.

    While fewer than half of a task's updates are arbitrarily wrong, every coordinate stays within the range
    of the right ones (so it takes three partitions to withstand one). The price: where partitions differ
    or are skewed it is not the gradient of the task's loss, so the run settles near the optimum, not at it.
    With one or two partitions it is their plain mean. Reference: Yin, Chen, Ramchandran, Bartlett,
    "Byzantine-Robust Distributed Learning", ICML 2018.
    """
    z: Floats = np.median(updates, axis=0)
    return z


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType({"mean": mean, "median": median})
