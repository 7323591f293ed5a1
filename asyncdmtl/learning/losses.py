"""Losses of a score `s = x·w + b` and a target `y`.

To add a loss, write a subclass of `Loss`, and add it to `LOSSES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from asyncdmtl.arithmetic.elementary import exp, expit, expm1, log, softplus
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError


class Loss(ABC):
    """A convex loss of scores and targets.

    Attributes
    ----------
    curvature : float
        The largest second derivative with respect to the score; for counts, that at a score of 0.
    classification : bool
        Whether targets are labels 0 and 1 (otherwise they are real values).
    counts : bool
        Whether targets are at least 0, and `exp(s)` is their mean. The second derivative `exp(s)` has no
        bound, so that gradient steps have no safe length: only Newton's method minimises such a loss.
    unattained : bool
        Whether the best score of rows with one label, or without counts, is infinite.
    """

    curvature: ClassVar[float] = 1.0
    classification: ClassVar[bool] = False
    counts: ClassVar[bool] = False
    unattained: ClassVar[bool] = False

    @abstractmethod
    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score `s`: (rows,), (rows,) → (rows,), (rows,)."""

    def second_derivative(self, s: Floats, y: Floats, derivatives: Floats, *, sharp: bool) -> Floats:
        """Second derivatives by the score, row by row, given scores, targets and first derivatives.

        For outliers, the curvature of some losses is 0. Unless `sharp`, the result there is the curvature of
        the parabola that touches the loss from above, so that a step never predicts too large a decrease.
        """
        return np.ones_like(derivatives)


class Squared(Loss):
    """`½ (s − y)²`, for real targets."""

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row."""
        r = s - y
        return 0.5 * r * r, r


class Logistic(Loss):
    """`log(1 + exp(−m))` with the margin `m = (2y − 1)·s`, for labels 0 and 1."""

    curvature = 0.25
    classification = True
    unattained = True

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row; no overflow for any margin."""
        sign = 2.0 * y - 1.0
        m = sign * s
        return softplus(-m), -sign * expit(-m)

    def second_derivative(self, s: Floats, y: Floats, derivatives: Floats, *, sharp: bool) -> Floats:
        """`p (1 − p)` of the probability `p`."""
        size = np.abs(derivatives)
        return size * (1.0 - size)


class SquaredHinge(Loss):
    """`½ max(0, 1 − m)²` with the margin `m = (2y − 1)·s`, for labels 0 and 1.

    It is half the loss of scikit-learn's `LinearSVC`. Rows with a margin of 1 or more have loss 0.
    Reference: Chapelle, "Training a Support Vector Machine in the Primal", Neural Computation 19(5), 2007.
    """

    classification = True

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row."""
        sign = 2.0 * y - 1.0
        short = np.maximum(0.0, 1.0 - sign * s)
        return 0.5 * short * short, -sign * short

    def second_derivative(self, s: Floats, y: Floats, derivatives: Floats, *, sharp: bool) -> Floats:
        """1 where the margin is below 1, else 0."""
        return (np.abs(derivatives) > 0.0).astype(np.float64)


class Huber(Loss):
    """`½ r²` where `|r| ≤ δ`, else `δ|r| − ½ δ²`, with `r = s − y` and `δ = 1`, for real targets.

    The derivative never exceeds `δ`, so a few outliers have little effect. `δ` is in units of the targets:
    scale the targets so that 1 is a large residual for a correct target. Reference: Huber, "Robust Estimation
    of a Location Parameter", Annals of Mathematical Statistics 35(1), 1964.
    """

    delta = 1.0

    def value_and_derivative(self, s: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Loss and its derivative with respect to the score, row by row; no overflow for any residual."""
        r = s - y
        clipped = np.clip(r, -self.delta, self.delta)
        return clipped * (r - 0.5 * clipped), clipped

    def second_derivative(self, s: Floats, y: Floats, derivatives: Floats, *, sharp: bool) -> Floats:
        """1 where `|r| ≤ δ`; beyond, 0 if `sharp`, else `δ / |r|`."""
        r = s - y
        wild = np.abs(r) > self.delta
        above = np.divide(np.abs(derivatives), np.abs(r), out=np.ones_like(r), where=wild)
        return np.where(wild, 0.0, 1.0) if sharp else above


class Poisson(Loss):
    """`exp(s) − y·s − y + y·ln y`, half the Poisson deviance of the mean `exp(s)`, for targets of at least 0.

    Above a score of 200 the exponential continues as a straight line, so that no step overflows. Reference:
    McCullagh and Nelder, "Generalized Linear Models", 1989, chapter 6.
    """

    counts = True
    unattained = True

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

    def second_derivative(self, s: Floats, y: Floats, derivatives: Floats, *, sharp: bool) -> Floats:
        """The mean `exp(s)`."""
        return np.maximum(derivatives + y, 0.0)


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
    """What a regression predicts for scores (rows,): exponentials if it is of counts, else the scores."""
    return exp(scores) if LOSSES[loss].counts else scores


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
    if LOSSES[loss].counts and (y < 0.0).any():
        raise DataError(f"targets of {what}", f"must be at least 0 for {loss} loss", float(y.min()))
