"""Couplings that draw the models of all tasks to their mean."""

from __future__ import annotations

import numpy as np

from asyncdmtl.arithmetic.sums import mean, sum_of_all
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling, quadratic_critical_strength


class PlainMean(Coupling):
    """`R(W)` is 0 if all rows are equal, else infinite: all tasks share one model. λ has no effect."""

    summary = "all tasks share one model (plain mean; linear)"
    columnwise = True

    def mixing(self, tasks: int) -> Floats:
        """(1, T): a step depends on the mean of the aggregates only."""
        return np.full((1, tasks), 1.0 / tasks)

    def penalty(self, W: Floats) -> float:
        """0: the models are equal."""
        return 0.0

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Every row is the mean of all rows."""
        return np.broadcast_to(mean(W), W.shape)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """0, as `λ` has no effect."""
        return 0.0


class MeanRegularised(Coupling):
    """`R(W) = ½ Σ_t ‖w_t − w̄‖²` with the mean `w̄`: models stay near their mean.

    The prox draws every model towards the mean by `1 / (1 + step·λ)`. Reference: Evgeniou and Pontil,
    "Regularized Multi-Task Learning", KDD 2004.
    """

    summary = "models stay near their mean (linear)"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_t − w̄‖²`."""
        return 0.5 * self.strength * sum_of_all((W - mean(W)) ** 2)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`w̄ + (w_t − w̄) / (1 + step·λ)`."""
        middle = mean(W)
        drawn: Floats = np.subtract(W, middle, out=out)
        drawn /= 1.0 + step * self.strength
        drawn += middle
        return drawn

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness: models differ at most by about a tenth of an unpenalised step."""
        return quadratic_critical_strength(Z, smoothness)
