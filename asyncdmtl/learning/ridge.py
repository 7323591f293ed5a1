"""Ridge regressions of every task alone, and of all tasks together, from statistics, as baselines.

Each minimises the mean squared loss over its rows plus `½ α ‖w‖²`, with a free intercept if models have one.
`α` is the value of a grid with the smallest generalised cross-validation score `RSS / (1 − 1.1 df/n)²`, which
needs no rows: Golub, Heath, Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge
Parameter", Technometrics 21(2), 1979; with a factor after Kim, Gu, "Smoothing Spline Gaussian Regression:
More Scalable Computation via Efficient Approximation", J. R. Statist. Soc. B 66(2), 2004. `baseline` does the
same by the rows themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.spectral import eigh
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.statistics import TaskStatistics

# The grid of α, in units of the mean eigenvalue; eigenvalues that must be 0 because rows are few do not
# count.
_ALPHAS = 10.0 ** np.arange(3.0, -4.5, -0.5)

# The price of a degree of freedom. With 1, models that nearly interpolate a few rows are sometimes chosen.
# With 1.1, in trials on tasks of 10 to 150 rows and 27 columns, models are as near the truth as by
# leave-one-out.
_CAUTION = 1.1


def alone_and_together(statistics: TaskStatistics, rows: Sequence[int], *, intercept: bool) -> Floats:
    """Models (T + 1, features + 1) of each task alone, and last the one for all; intercepts are last columns.

    Parameters
    ----------
    statistics : TaskStatistics
    rows : sequence of int
        The number of rows of each task.
    intercept : bool
        Whether models have an intercept; else that column is 0.
    """
    weights, means = statistics.weights[0], statistics.means
    # Moments are about the mean of each task, whose own sums are rounding errors.
    moments = statistics.moments[0] - _outer(statistics.sums[0]) / weights[:, None, None]
    weight = total(weights, 0)
    centre = total(weights[:, None] * means, 0) / weight
    every = total(moments + weights[:, None, None] * _outer(means - centre), 0)
    S = np.concatenate([moments / weights[:, None, None], (every / weight)[None]])
    m = np.concatenate([means, centre[None]])
    n = np.array([*rows, sum(rows)], np.float64)
    if not intercept:
        S = S + _outer(m)
    w = _ridge(S, n, intercept=intercept)
    b = m[:, -1] - total(m[:, :-1] * w, 1) if intercept else np.zeros(len(w))
    return np.concatenate([w, b[:, None]], axis=1)


def _ridge(S: Floats, n: Floats, *, intercept: bool) -> Floats:
    """Coefficients (T, features), from the mean moments (T, columns, columns) of `[X, y]` and the rows."""
    A, b, c = S[:, :-1, :-1], S[:, :-1, -1], S[:, -1, -1]
    values, V = eigh(np.ascontiguousarray(A))
    values = np.maximum(values, 0.0)
    along = matmul(np.ascontiguousarray(np.swapaxes(V, 1, 2)), b[:, :, None])[:, :, 0]
    some = np.minimum(np.maximum(n - intercept, 1.0), A.shape[1])
    unit = total(values, 1) / some
    unit = np.where(unit > 0.0, unit, 1.0)
    alphas = _ALPHAS[:, None] * unit
    shrunk = values + alphas[:, :, None]
    errors = c - total(along * along * (shrunk + alphas[:, :, None]) / (shrunk * shrunk), 2)
    free = 1.0 - _CAUTION * (total(values / shrunk, 2) + intercept) / n
    with np.errstate(divide="ignore"):
        scores = np.where(free > 0.0, np.maximum(errors, 0.0) / np.square(free), np.inf)
    best = np.argmin(scores, axis=0)
    # One or two rows do not permit a choice: use the middle of the grid.
    best = np.where(n > 2, best, len(_ALPHAS) // 2)
    chosen = alphas[best, np.arange(len(n))]
    return matmul(V, (along / (values + chosen[:, None]))[:, :, None])[:, :, 0]


def _outer(v: Floats) -> Floats:
    return v[..., :, None] * v[..., None, :]
