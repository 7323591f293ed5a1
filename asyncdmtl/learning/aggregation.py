"""Aggregation ψ: one update of a task from the updates of its partitions (docs/theory.md, section 1).

An aggregate is a function `(updates, weights) -> z`: (n, d) and (n,) float64 → (d,) float64. The updates are
in ascending order of their partitions, and the weight of a partition is the number (or the weight) of its
rows. The function must be deterministic, because every worker computes the aggregate itself. A new aggregate
is a function and a line in `AGGREGATES`; those of other packages are registered (`register_aggregate`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from asyncdmtl.arithmetic import sums
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.solving import triangular_factor
from asyncdmtl.arithmetic.spectral import eigh
from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import UsageError
from asyncdmtl.extensions import Registry
from asyncdmtl.plan.spans import Span

Aggregate = Callable[[Floats, Floats], Floats]

TRIMMED_SHARE = Fraction(1, 5)
"""The share `β` of updates that the trimmed mean drops at each end: one wrong update in five is tolerated."""

# The search for the geometric median ends when the sum of the pulls of all updates is at most this share of
# the sum of weights. Below it, rounding dominates.
_STATIONARY = 1e-10

# The most iterations for the geometric median. Typical updates need fewer than 50.
_ITERATIONS = 10_000

# The largest norm of an update: the square of a larger one, summed over many updates, might overflow a
# float64.
_TOO_LONG = 1e150


def mean(updates: Floats, weights: Floats) -> Floats:
    """`Σ_n weight_n · v_n / Σ_n weight_n`, summed along the tree of `asyncdmtl.plan.spans`.

    For gradients it is the gradient of the task's mean loss, so that a run is exact proximal gradient
    descent. It is not robust: a single wrong update can move it anywhere.
    """
    singles = Span(0, len(updates)).singles
    return mean_of_sums(dict(zip(singles, updates, strict=True)), weights, updates.dtype)


def mean_of_sums(parts: Mapping[Span, Vectors], weights: Floats, dtype: np.dtype[Any]) -> Floats:
    """`mean` from sums of some updates (`weighted_sum`), which have taken their place.

    Parameters
    ----------
    parts : mapping of Span to (d,) array
        The update of each single partition, and sums for longer spans: together all partitions, each once.
    weights : (n,) float64 array
        The weights of all partitions.
    dtype : numpy dtype
        The dtype in which sums may travel, and to which each is rounded, whether or not it travels.
    """
    z = weighted_sum(Span(0, len(weights)), parts, weights, dtype)
    z /= float(sums.total(_scaled(weights)))
    return z


def weighted_sum(span: Span, parts: Mapping[Span, Vectors], weights: Floats, dtype: np.dtype[Any]) -> Floats:
    """`Σ_{n∈span} weight_n · v_n` along the tree, with all weights scaled by the same power of two.

    Parameters are those of `mean_of_sums`. The sums of nodes below `span` are rounded to `dtype`, so that the
    result does not depend on which of them were given; the result is not yet rounded.
    """
    scaled = _scaled(weights)

    def term(part: Span) -> Floats:
        """The term that a node adds to the sum of its parent."""
        if part in parts:
            given: Floats = parts[part].astype(np.float64)
            if part.single:
                given *= float(scaled[part.start])
            return given
        return joined(part).astype(dtype, copy=False).astype(np.float64, copy=False)

    def joined(part: Span) -> Floats:
        first, second = map(term, part.halves)
        first += second
        return first

    return term(span) if span in parts else joined(span)


def _scaled(weights: Floats) -> Floats:
    """The weights, scaled by a power of two so that sums of updates can only overflow if the mean does."""
    _, exponent = np.frexp(sums.total(weights))
    scaled: Floats = np.ldexp(weights, 1 - int(exponent))
    return scaled


def median(updates: Floats, weights: Floats) -> Floats:
    """The median of every coordinate by itself. Weights are ignored.

    If fewer than half of a task's updates are arbitrarily wrong, every coordinate stays within the range of
    the correct updates; a task needs three partitions to tolerate one wrong update. If partitions differ or
    are skewed, the median is not the gradient of the task's loss, so the run converges to a point near the
    optimum. For one or two partitions it is the unweighted mean. Reference: Yin, Chen, Ramchandran, Bartlett,
    "Byzantine-Robust Distributed Learning", ICML 2018.
    """
    return _inner_mean(updates, (len(updates) - 1) // 2)


def trimmed_mean(updates: Floats, weights: Floats) -> Floats:
    """The unweighted mean of every coordinate without its `⌈βn⌉` smallest and `⌈βn⌉` largest values.

    `β` is 1/5. The count is rounded up so that a task of three partitions is protected too, but it never
    passes the middle: for 1 or 2 updates the result is the mean, for 3 or 4 the median. Weights are ignored.
    If at most `⌈βn⌉` updates are arbitrarily wrong, and there are three or more, every coordinate stays
    within the range of the correct updates. The trimmed mean is more accurate than the median if all updates
    are correct. Like the median, it is not the gradient of the task's loss if partitions differ. Reference:
    Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning", ICML 2018.
    """
    n = len(updates)
    return _inner_mean(updates, min(math.ceil(TRIMMED_SHARE * n), (n - 1) // 2))


def geometric_median(updates: Floats, weights: Floats) -> Floats:
    """`argmin_z Σ_n weight_n · ‖v_n − z‖₂`: every update pulls with its weight, at any distance.

    If wrong updates hold a share `α < ½` of the weight, `‖z − c‖ ≤ r·(1 − α)/√(1 − 2α)` for every ball of
    centre `c` and radius `r` that contains all correct updates. The bound breaks down at half the weight. The
    geometric median rotates with the coordinates; median and trimmed mean do not. Updates that are not
    finite, or longer than 1e150, are left out. If they hold half of the weight or more, the result is NaN.
    For one update the result is that update; for two updates it is the heavier one, or their mean if their
    weights are equal. If several points are optimal, the choice does not depend on the order of the updates.

    It is found by Weiszfeld's iteration with Vardi and Zhang's treatment of points that coincide with an
    update, and with Newton steps near the end, until the pulls cancel to 1e-10 of the weights. The iteration
    works in the coordinates of the `n` differences from the coordinate-wise median, so its cost hardly
    depends on `d`. Reference: Vardi and Zhang, "The multivariate L1-median
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
    # R of a QR has the lengths and angles of the columns. Short columns keep their precision beside outliers.
    points = np.ascontiguousarray(triangular_factor(differences.T).T)
    z: Floats = base + matmul(_weiszfeld(points, shares), differences)
    return z


def krum(updates: Floats, weights: Floats) -> Floats:
    """The update with the smallest sum of squared distances to its `n − f − 2` nearest neighbours.

    `f = ⌊(n − 3)/2⌋`, at least 0, is the number of wrong updates that is assumed: the largest for which the
    reference gives a guarantee. Ties go to the lowest index; weights are ignored. If fewer than half of the
    updates are wrong, the result is a correct update, or within `D·√((n − f − 2)/(n − 2f − 2))` of one, where
    `D` is the largest distance between correct updates. An update that is not finite is infinitely far from
    all others. For 1 or 2 updates the result is the weighted mean. Since the result is the update of a single
    partition, the run converges to a point whose distance from the optimum grows with the differences between
    partitions. Reference: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries:
    Byzantine Tolerant Gradient Descent", NeurIPS 2017.
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
    """The mean of every coordinate without its `k` smallest and `k` largest values."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Sorting makes the result independent of the order. NaN sorts as the largest value and is dropped.
        # 0 and −0 are equal, so either may come first; adding 0 turns −0 into 0.
        return sums.mean(np.sort(updates + 0.0, axis=0)[k : len(updates) - k])


def _weighted_median(updates: Floats, weights: Floats) -> Floats:
    """The weighted median of every coordinate; the middle of two values if each side has half the weight."""
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

    The search begins at the origin. If the coefficients add up to less than 1, the origin has the rest.
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
        # Near an update Weiszfeld's steps become short. A Newton step is taken if it halves the remaining
        # pull. That can happen only finitely often, so the whole iteration converges as Weiszfeld's does.
        newton = _Pulls(points, shares, y + here.newton_step())
        if newton.left <= 0.5 * least:
            here, least = newton, newton.left
        else:
            here = _Pulls(points, shares, matmul(coefficients, points))
        y = here.y
    return coefficients


class _Pulls:
    """The pull at `y`: the sum of unit vectors towards the other points, each times its share."""

    def __init__(self, points: Floats, shares: Floats, y: Floats) -> None:
        self.y = y
        self._offsets = points - y
        self._distances = sums.norm(self._offsets, 1)
        # Points that differ only by rounding count as equal.
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


AGGREGATES: Registry[Aggregate] = Registry(
    "aggregate",
    {
        "mean": mean,
        "median": median,
        "trimmed-mean": trimmed_mean,
        "geometric-median": geometric_median,
        "krum": krum,
    },
)

COLUMNWISE = frozenset({"mean", "median", "trimmed-mean"})
"""Aggregates that treat every coordinate separately, so that columns can be computed in blocks."""


def register_aggregate(name: str, aggregate: Aggregate) -> Aggregate:
    """Make a function `(updates, weights) -> z` known by this name, to settings and to --aggregate.

    It must compute the same bits at all workers (docs/reproducibility.md). Where updates are finite, a result
    that is not, or has another shape than (d,), is a UsageError.

    Returns
    -------
    The function.

    Raises
    ------
    UsageError
        The name is malformed or is that of an aggregate of this package; or `aggregate` is no function.
    """
    if not callable(aggregate):
        raise UsageError(f"aggregate {name}", "must be a function of updates and weights", aggregate)

    @functools.wraps(aggregate)
    def checked(updates: Floats, weights: Floats) -> Floats:
        found = aggregate(updates, weights)
        if not isinstance(found, np.ndarray) or found.shape != updates.shape[1:] or found.dtype.kind != "f":
            shape = getattr(found, "shape", type(found).__name__)
            rule = f"must return an array of floats of shape {updates.shape[1:]}"
            raise UsageError(f"aggregate {name}", rule, shape)
        if np.isfinite(updates).all() and not np.isfinite(found).all():
            rule = "must return finite numbers for finite updates"
            raise UsageError(f"aggregate {name}", rule, float(found[~np.isfinite(found)][0]))
        return found

    AGGREGATES.register(name, checked)
    return aggregate
