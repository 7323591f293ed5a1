"""Losses of a score `s = x·w + b` and a target `y`.

To add a loss, write a class with the members of `Loss`, and add it to `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np

from asyncdmtl.arithmetic.elementary import exp, expit, expm1, log, softplus
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError


class Loss(Protocol):
    """A convex loss of scores and targets."""

    @property
    def curvature(self) -> float:
        """The largest second derivative with respect to the score; for Poisson loss, that at a score of 0."""

    @property
    def classification(self) -> bool:
        """Whether targets are labels 0 and 1 (otherwise they are real values)."""

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score `s`: (rows,), (rows,) → (rows,), (rows,)."""


class Squared:
    """`½ (s − y)²`, for real targets."""

    curvature = 1.0
    classification = False

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row."""
        r = s - y
        return 0.5 * r * r, r


class Logistic:
    """`log(1 + exp(−m))` with the margin `m = (2y − 1)·s`, for labels 0 and 1."""

    curvature = 0.25
    classification = True

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row; no overflow for any margin."""
        sign = 2.0 * y - 1.0
        m = sign * s
        return softplus(-m), -sign * expit(-m)


class SquaredHinge:
    """`½ max(0, 1 − m)²` with the margin `m = (2y − 1)·s`, for labels 0 and 1.

    It is half the loss of scikit-learn's `LinearSVC`. Rows with a margin of 1 or more have loss 0.
    Reference: Chapelle, "Training a Support Vector Machine in the Primal", Neural Computation 19(5), 2007.
    """

    curvature = 1.0
    classification = True

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row."""
        sign = 2.0 * y - 1.0
        short = np.maximum(0.0, 1.0 - sign * s)
        return 0.5 * short * short, -sign * short


class Huber:
    """`½ r²` where `|r| ≤ δ`, else `δ|r| − ½ δ²`, with `r = s − y` and `δ = 1`, for real targets.

    The derivative never exceeds `δ`, so a few outliers have little effect. `δ` is in units of the targets:
    scale the targets so that 1 is a large residual for a correct target. Reference: Huber, "Robust Estimation
    of a Location Parameter", Annals of Mathematical Statistics 35(1), 1964.
    """

    delta = 1.0
    curvature = 1.0
    classification = False

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row; no overflow for any residual."""
        r = s - y
        clipped = np.clip(r, -self.delta, self.delta)
        return clipped * (r - 0.5 * clipped), clipped


class Poisson:
    """`exp(s) − y·s − y + y·ln y`, half the Poisson deviance of the mean `exp(s)`, for targets of at least 0.

    Its second derivative `exp(s)` has no bound, so gradient steps have no safe length: only Newton's method
    minimises it. Above a score of 200 the exponential continues as a straight line, so that no step
    overflows. Reference: McCullagh and Nelder, "Generalized Linear Models", 1989, chapter 6.
    """

    curvature = 1.0
    classification = False

    # The exponential of this score is 7e86: no mean of real targets, and its square is still finite.
    most = 200.0

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row; no overflow for any score."""
        near = np.minimum(s, self.most)
        mean = exp(near)
        # With t = s − ln y the loss is y·(eᵗ − 1 − t), which keeps its digits where the mean is near y.
        t = s - log(np.where(y > 0.0, y, 1.0))
        close = (y > 0.0) & (np.abs(t) < 1.0)
        small = np.where(close, t, 0.0)
        far = mean * (1.0 + (s - near)) - y - y * t
        return np.where(close, y * (expm1(small) - small), far), mean - y


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "squared": Squared(),
        "logistic": Logistic(),
        "squared_hinge": SquaredHinge(),
        "huber": Huber(),
        "poisson": Poisson(),
    }
)


def predictions_of(loss: str, scores: Floats) -> Floats:
    """What a regression predicts for scores (rows,): `exp(s)` under Poisson loss, else the scores."""
    return exp(scores) if loss == "poisson" else scores


def check_targets(loss: str, y: Floats, what: str) -> None:
    """Refuse targets that do not suit `loss`; `what` names their origin in the error.

    Raises
    ------
    DataError
        The loss is for classification, and a label is neither 0 nor 1; or it is for counts, and a target is
        negative.
    """
    if LOSSES[loss].classification:
        odd = y[(y != 0.0) & (y != 1.0)]
        if odd.size:
            raise DataError(f"targets of {what}", f"must be 0 or 1 for {loss} loss", float(odd[0]))
    if loss == "poisson" and (y < 0.0).any():
        raise DataError(f"targets of {what}", "must be at least 0 for poisson loss", float(y.min()))
