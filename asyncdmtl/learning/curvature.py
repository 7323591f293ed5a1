"""Losses, gradients and curvatures of partitions at the current models, for steps of second order.

They travel as one vector of float64 for each partition: the mean loss, its gradient, and for Newton's method
the upper triangle of a matrix of second derivatives. A quasi-Newton method learns that matrix from gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.elementary import log, log1p, softplus
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arithmetic.triangles import symmetric, upper
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.batches import Batch

# A mean target up to this counts as 0: it is the rounding of a mean over rows.
_NO_COUNTS = 1e-12


class SecondOrderWire:
    """The format in which losses, gradients and curvatures travel: float64 numbers, not compressed.

    Attributes
    ----------
    length, dtype : int, numpy dtype
        The length and dtype of a vector as it travels.
    """

    def __init__(self, d: int, *, curvature: bool) -> None:
        self.d = d
        self.curvature = curvature
        self.length = 1 + d + (d * (d + 1) // 2 if curvature else 0)
        self.dtype: np.dtype[Any] = np.dtype(np.float64)

    def place_of_gradient(self, vectors: Floats) -> Floats:
        """The part (…, d) of vectors (…, length) that holds gradients, or the models of the first round."""
        return vectors[..., 1 : 1 + self.d]

    def split(self, vectors: Floats) -> tuple[Floats, Floats, Floats]:
        """Losses (T,), gradients (T, d) and second derivatives (T, d, d) of vectors (T, length).

        Without curvature, the second derivatives are 0.
        """
        H = np.zeros((len(vectors), self.d, self.d))
        if self.curvature:
            H = symmetric(vectors[:, 1 + self.d :], self.d)
        return vectors[:, 0].copy(), self.place_of_gradient(vectors).copy(), H


def describe(
    batch: Batch, values: Floats, derivatives: Floats, curvatures: Floats | None, intercept: bool, out: Floats
) -> None:
    """Write the vectors of a batch of partitions into rows `batch.places` of `out`, (partitions, length).

    Parameters
    ----------
    values, derivatives, curvatures : (P, r) float64 arrays
        Of the loss at each row's score; without curvatures only losses and gradients are written.
    """
    X = batch.X
    if intercept:
        X = np.concatenate([X, np.ones((*X.shape[:2], 1))], axis=2)
    d = X.shape[2]
    out[batch.places, 0] = total(batch.shares(values), 1)
    shares = batch.shares(derivatives)
    out[batch.places, 1 : 1 + d] = matmul(shares[:, None, :], X)[:, 0, :]
    if curvatures is not None:
        roots = np.sqrt(batch.shares(curvatures))
        rows = X * roots[:, :, None]
        H = gram(np.swapaxes(rows, 1, 2))
        out[batch.places, 1 + d :] = upper(H)


def at_intercepts(gradients: Floats, H: Floats, fixed: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The best intercepts of logistic models without coefficients, and what would be told there.

    It follows from what models of 0 told. Where all scores of a task are equal, second derivatives are a
    multiple of second moments, and the last column of `H` is a multiple of the means of the features. Steps
    by second derivatives of rare classes would be too long, as these grow on the way; the largest there can
    be, which are those at 0, make steps too short. `H` becomes the geometric mean of both.

    Parameters
    ----------
    gradients, H : (..., T, d) and (..., T, d, d) float64 arrays
        At models of 0; the intercept is last.
    fixed : (..., T) float64 array
        Intercepts that do not change; NaN where they do.

    Returns
    -------
    intercepts, losses, gradients, H : float64 arrays
        For tasks of fixed intercepts, what they told.
    """
    free = np.isnan(fixed)
    share = np.where(free, 0.5 - gradients[..., -1], 0.5)
    intercepts = np.where(free, log(share / (1.0 - share)), fixed)
    losses = np.where(free, softplus(intercepts) - share * intercepts, 0.0)
    there = gradients + (4.0 * share - 2.0)[..., None] * H[..., -1]
    there[..., -1] = np.where(free, 0.0, gradients[..., -1])
    flatter = 2.0 * np.sqrt(share * (1.0 - share))
    return intercepts, losses, there, flatter[..., None, None] * H


def log_means(slopes: Floats, weights: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The best intercepts of Poisson models without coefficients, and where all targets are 0.

    There, the best intercept would be −∞: it is that of one count more in `n + 1` rows.

    Parameters
    ----------
    slopes : float64 array
        The derivatives by the intercepts at models of 0: 1 minus the mean target.
    weights : float64 array of the same shape
        The weights `n` of the rows.
    """
    nothing = slopes >= 1.0 - _NO_COUNTS
    return np.where(nothing, -log1p(weights), log(np.where(nothing, 1.0, 1.0 - slopes))), nothing
