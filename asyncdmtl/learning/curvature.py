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

ALPHAS = 10.0 ** np.arange(2.0, -4.5, -1.0)
"""The penalties of models that are compared with (`comparison`), in units of the mean curvature at models of
0 along the directions that rows have."""

COMPARED = 2
"""The kinds of these models: of each task alone, and one for all."""

# A mean target up to this counts as 0: it is the rounding of a mean over rows.
_NO_COUNTS = 1e-12


class SecondOrderWire:
    """The format in which losses, gradients and curvatures travel: float64 numbers, not compressed.

    Parameters
    ----------
    d : int
        Numbers of a model.
    curvature : bool
        Whether second derivatives travel.
    compares : bool
        Whether models to compare with are told of too (`comparison`), after all else.

    Attributes
    ----------
    length, dtype : int, numpy dtype
        The length and dtype of a vector as it travels.
    compared : int
        The numbers that tell of models to compare with.
    """

    def __init__(self, d: int, *, curvature: bool, compares: bool = False) -> None:
        self.d = d
        self.curvature = curvature
        triangle = d * (d + 1) // 2
        self.compared = COMPARED * len(ALPHAS) * (2 + d + triangle) if compares else 0
        self.length = 1 + d + triangle * curvature + self.compared
        self.dtype: np.dtype[Any] = np.dtype(np.float64)

    def place_of_gradient(self, vectors: Floats) -> Floats:
        """The part (…, d) of vectors (…, length) that holds gradients, or the models of the first round."""
        return vectors[..., 1 : 1 + self.d]

    def own(self, vectors: Floats) -> Floats:
        """The part of vectors (n, length) that is about models of the run: a view."""
        return vectors[:, : self.length - self.compared]

    def comparison(self, vectors: Floats) -> Floats:
        """The part of vectors (n, length) that is about models to compare with, (n, compared): a view."""
        return vectors[:, self.length - self.compared :]

    def comparison_numbers(self, tasks: int) -> int:
        """Numbers of the state of models to compare with."""
        models = len(ALPHAS) * (3 * self.d + self.d * self.d + 3)
        return (tasks + 1) * (models + 3) if self.compared else 0

    def split(self, vectors: Floats) -> tuple[Floats, Floats, Floats]:
        """Losses (T,), gradients (T, d) and second derivatives (T, d, d) of vectors (T, length).

        Without curvature, the second derivatives are 0.
        """
        H = np.zeros((len(vectors), self.d, self.d))
        if self.curvature:
            H = symmetric(self.own(vectors)[:, 1 + self.d :], self.d)
        return vectors[:, 0].copy(), self.place_of_gradient(vectors).copy(), H


def told_of_comparison(d: int) -> int:
    """Numbers that a holder of a task must know of a model to compare with, for all its penalties."""
    return len(ALPHAS) * (2 * d + d * (d + 1) // 2 + 1) + 3


def describe(
    batch: Batch, values: Floats, derivatives: Floats, curvatures: Floats | None, intercept: bool, out: Floats
) -> None:
    """Write the vectors of a batch of partitions into rows `batch.places` of `out`.

    Parameters
    ----------
    values, derivatives, curvatures : (P, r) float64 arrays
        Of the loss at each row's score; without curvatures only losses and gradients are written.
    out : (partitions, numbers) float64 array
        The part `SecondOrderWire.own` of their vectors.
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
