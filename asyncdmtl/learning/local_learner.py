"""Local learners, which train a partition's own model from the task's model; and gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.losses import Loss
from asyncdmtl.learning.tasks import Partition


@dataclass(frozen=True, eq=False)
class LocalStart:
    """The model from which a learner starts, and the extent of its training.

    Attributes
    ----------
    w : (features,) float64 array
        Coefficients, which a learner does not change.
    b : float
        Intercept; 0 if the run has none, and then it stays 0.
    smoothness : float
        `Partition.smoothness` of the rows.
    epochs : int
        Local epochs, at least 1.
    seed : int
        Seed of random numbers, at least 0.
    """

    w: Floats
    b: float
    smoothness: float
    epochs: int
    seed: int


class Learner(Protocol):
    """Trains one partition for some epochs, from a given model."""

    def fit(self, partition: Partition, start: LocalStart) -> tuple[Floats, float]:
        """The model after `start.epochs` local epochs, with the same bits at every holder.

        For equal bits the caller allows only one thread (`arithmetic.threads.single_threaded`).

        Parameters
        ----------
        partition : Partition
            Labels of a classification are 0 and 1, and may all be equal.
        start : LocalStart

        Returns
        -------
        Coefficients (features,) float64 and intercept. They are not finite if the learner diverged.

        Raises
        ------
        DataError
            The learner cannot train on the weights or labels of this partition. The caller adds the name of
            the partition to the error.
        """

    def check(self, partition: Partition) -> None:
        """Raise DataError as `fit` would, without training."""


class GradientDescent:
    """`epochs` steps of one length on the weighted mean loss of all rows.

    The length is `1 / (smoothness + curvature)`, which an intercept permits, too.
    """

    def __init__(self, loss: Loss, *, intercept: bool) -> None:
        self._loss = loss
        self._intercept = intercept

    def fit(self, partition: Partition, start: LocalStart) -> tuple[Floats, float]:
        """As `Learner.fit`. No random numbers are drawn."""
        X, y, weights, w, b = partition.X, partition.y, partition.weights, start.w, start.b
        step = 1.0 / (start.smoothness + self._loss.curvature) / partition.weight
        for _ in range(start.epochs):
            scores = matmul(X, w) + b
            _, derivatives = self._loss.value_and_derivative(scores, y)
            if weights is not None:
                derivatives = derivatives * weights
            w = w - step * matmul(derivatives, X)
            if self._intercept:
                b -= step * float(total(derivatives))
        return w, b

    def check(self, partition: Partition) -> None:
        """Do nothing: gradient descent can train on every partition."""
