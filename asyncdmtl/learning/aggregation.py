"""ψ, within a task: from the updates of its partitions to one (docs/theory.md, section 1).

An aggregate is a function `(updates, weights) -> z`: (n, d) and (n,) float64 → (d,) float64, with the
updates in ascending order of their partitions and the rows of each partition as its weight.
It must be deterministic: every worker computes it for itself. A line in `AGGREGATES` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

import numpy as np

from asyncdmtl.arithmetic import sums
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.solving import triangular_factor
from asyncdmtl.arithmetic.spectral import eigh
from asyncdmtl.arrays import Floats

Aggregate = Callable[[Floats, Floats], Floats]

TRIMMED_SHARE = Fraction(1, 5)
"""`β`: the share of updates that the trimmed mean drops at each end."""

_STATIONARY = 1e-10  # the geometric median is found when its pulls cancel to this share of the weights
_ITERATIONS = 10_000
_TOO_LONG = 1e150  # to be squared, with room for sums


def mean(updates: Floats, weights: Floats) -> Floats:
    """`Σ_n weight_n · v_n / Σ_n weight_n`, added up in the order given.

    Of gradients per row it is the gradient of the task's mean loss, so that a run is exact proximal
    gradient descent. It withstands nothing: one wrong update moves it anywhere.
    """
    z: Floats = updates[0] * weights[0]
    for v, weight in zip(updates[1:], weights[1:], strict=True):
        z += v * weight
    z /= float(sums.total(weights))
    return z


def median(updates: Floats, weights: Floats) -> Floats:
    """The median of every coordinate by itself; weights are ignored.

    While fewer than half of a task's updates are arbitrarily wrong, every coordinate stays within the range
    of the right ones (so it takes three partitions to withstand one). The price: where partitions differ
    or are skewed it is not the gradient of the task's loss, so the run settles near the optimum, not at it.
    With one or two partitions it is their plain mean. Reference: Yin, Chen, Ramchandran, Bartlett,
    "Byzantine-Robust Distributed Learning", ICML 2018.
    """
    return _inner_mean(updates, (len(updates) - 1) // 2)


def trimmed_mean(updates: Floats, weights: Floats) -> Floats:
    """Of every coordinate by itself, the plain mean without the `⌈βn⌉` least and largest values.

    `β` is 1/5, rounded up so that a task of three partitions is protected too, but never beyond the
    middle: of 1 or 2 updates it is the plain mean, of 3 or 4 the median. Weights are ignored.
    While no more than `⌈βn⌉` updates are arbitrarily wrong (from three on: a fifth of them, and one at
    least), every coordinate stays within the range of the right ones. It loses less than the median where
    all are right, and is as little the gradient of the task's loss where partitions differ.
    Reference: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning", ICML 2018.
    """
    n = len(updates)
    return _inner_mean(updates, min(math.ceil(TRIMMED_SHARE * n), (n - 1) // 2))


def geometric_median(updates: Floats, weights: Floats) -> Floats:
    """`argmin_z Σ_n weight_n · ‖v_n − z‖₂`: every update pulls by its weight, however far away it is.

    While wrong updates hold a share `α < ½` of the weight, `‖z − c‖ ≤ r·(1 − α)/√(1 − 2α)` for every ball,
    of centre `c` and radius `r`, that has all the right ones: it breaks down at half the weight. It turns
    with the coordinates, which median and trimmed mean do not. Updates that are not finite, or longer
    than 1e150, are left out, unless they hold half the weight: then nothing is left to go by, and all is NaN.
    Of one update it is that; of two the heavier, or their mean; where several points would do, the
    one taken does not depend on their order.

    Found by Weiszfeld's iteration, with Vardi and Zhang's care at updates and Newton's steps to end it, in
    the coordinates of the `n` differences from the median of every coordinate (so `d` counts but once),
    until the pulls cancel to 1e-10 of the weights. Reference: Vardi and Zhang, "The multivariate L1-median
    and associated data depth", PNAS 97(4), 2000; bound: Minsker, "Geometric median and robust estimation in
    Banach spaces", Bernoulli 21(4), 2015.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        usable = sums.norm(updates, 1) < _TOO_LONG
    all_weights, usable_weights = float(sums.total(weights)), float(sums.total(weights[usable]))
    if 2.0 * usable_weights <= all_weights:
        return np.full(updates.shape[1], np.nan)
    kept, shares = updates[usable], weights[usable] / usable_weights
    base = _weighted_median(kept, weights[usable])
    differences = kept - base
    # R of a QR has the columns' lengths and angles, each to its own precision beside any outlier.
    points = np.ascontiguousarray(triangular_factor(differences.T).T)
    z: Floats = base + matmul(_weiszfeld(points, shares), differences)
    return z


def krum(updates: Floats, weights: Floats) -> Floats:
    """The one update whose `n − f − 2` nearest others are nearest, by the sum of squared distances.

    `f = ⌊(n − 3)/2⌋`, at least 0, is the number of wrong updates that is reckoned with: the largest for
    which the reference gives a guarantee. Ties go to the lowest index; weights are ignored. The choice is
    a right update, or within `D·√((n − f − 2)/(n − 2f − 2))` of one, where `D` is the largest distance
    between right ones, as long as less than half are wrong. An update that is not finite is far from
    all. Of 1 or 2 updates, which nothing tells apart, it is the weighted mean. The price: it
    follows one partition, so the run settles as near the optimum as partitions are alike.
    Reference: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
    Tolerant Gradient Descent", NeurIPS 2017.
    """
    n = len(updates)
    if n < 3:
        return mean(updates, weights)
    f = (n - 3) // 2
    squared = np.zeros((n, n))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(n - 1):
            differences = updates[i + 1 :] - updates[i]
            squared[i, i + 1 :] = squared[i + 1 :, i] = sums.sum_of_squares(differences, 1)
    squared[np.isnan(squared)] = np.inf
    np.fill_diagonal(squared, np.inf)
    # Summed in ascending order, so that equal distances give equal scores.
    scores = sums.total(np.sort(squared, axis=1)[:, : n - f - 2], 1)
    z: Floats = updates[int(np.argmin(scores))].copy()
    return z


def _inner_mean(updates: Floats, k: int) -> Floats:
    """The mean of every coordinate without its `k` least and largest values."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Sorted, so that the order of the updates cannot show; NaN sorts as the largest and is dropped so.
        # Of 0 and −0, which are equal, either may come first: adding 0 leaves 0 alone.
        return sums.mean(np.sort(updates + 0.0, axis=0)[k : len(updates) - k])


def _weighted_median(updates: Floats, weights: Floats) -> Floats:
    """Of every coordinate, where half the weight is passed; the middle of both values if met exactly."""
    order = np.argsort(updates, axis=0, kind="stable")
    ascending = np.take_along_axis(updates, order, axis=0)
    passed = 2.0 * np.cumsum(weights[order], axis=0)
    lower, upper = (
        np.take_along_axis(ascending, at.argmax(axis=0)[None], axis=0)[0]
        for at in (passed >= float(sums.total(weights)), passed > float(sums.total(weights)))
    )
    z: Floats = 0.5 * lower + 0.5 * upper
    return z


def _weiszfeld(points: Floats, shares: Floats) -> Floats:
    """Coefficients (n,) of the geometric median as a combination of `points` (n, p); `shares` add up to 1.

    What the coefficients lack of 1 belongs to the origin, where the search begins.
    """
    coefficients = np.zeros(len(points))
    y = np.zeros(points.shape[1])
    here = _Pulls(points, shares, y)
    if here.left <= _STATIONARY:
        return coefficients
    medians = np.array([_Pulls(points, shares, x).left <= _STATIONARY for x in points])
    if medians.any():
        coefficients[medians] = shares[medians] / float(sums.total(shares[medians]))
        return coefficients
    least = here.left
    for _ in range(_ITERATIONS):
        hold = here.held / max(here.pull, here.held) if here.held else 0.0
        coefficients = hold * coefficients + (1.0 - hold) * here.inverse / here.weight
        if here.left <= _STATIONARY:
            break
        # Near an update Weiszfeld's steps grow short. Newton's are taken if they halve what is left of the
        # pull at the best of them: that cannot be often, so the whole converges as Weiszfeld's do.
        newton = _Pulls(points, shares, y + here.newton_step())
        if newton.left <= 0.5 * least:
            here, least = newton, newton.left
        else:
            here = _Pulls(points, shares, matmul(coefficients, points))
        y = here.y
    return coefficients


class _Pulls:
    """How `points` pull at `y`, each by its share: what is left after the points at `y` have held it."""

    def __init__(self, points: Floats, shares: Floats, y: Floats) -> None:
        self.y = y
        self._offsets = points - y
        self._distances = sums.norm(self._offsets, 1)
        # What differs by rounding is at the same place.
        away = self._distances > 1e-13 * (sums.norm(points, 1) + sums.norm(y))
        self._distances[~away] = 1.0
        self.inverse = np.where(away, shares, 0.0) / self._distances
        self.weight = float(sums.total(self.inverse))
        self._sum = matmul(self.inverse, self._offsets)
        self.pull = float(sums.norm(self._sum))
        self.held = float(sums.total(shares[~away]))
        self.left = self.pull - self.held

    def newton_step(self) -> Floats:
        """Newton's step for the sum of distances to the points that are not at `y`."""
        directions = self._offsets / self._distances[:, None]
        weighted = np.sqrt(self.inverse)[:, None] * directions
        values, V = eigh(self.weight * np.eye(len(self.y)) - gram(weighted.T))
        along = matmul(V.T, self._sum)
        some = values > len(values) * float(np.finfo(np.float64).eps) * values[-1]
        return matmul(V, np.where(some, along, 0.0) / np.where(some, values, 1.0))


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {
        "mean": mean,
        "median": median,
        "trimmed-mean": trimmed_mean,
        "geometric-median": geometric_median,
        "krum": krum,
    }
)

COLUMNWISE = frozenset({"mean", "median", "trimmed-mean"})
"""Aggregates that treat every coordinate by itself: they may be taken of some columns at a time."""
