"""The coupling by which all tasks use the same few features."""

from __future__ import annotations

import numpy as np

from asyncdmtl.arithmetic.sums import norm, sum_of_all
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling


class L21Norm(Coupling):
    """`R(W) = Σ_f ‖W[:, f]‖₂`: all tasks use the same few features.

    The prox shortens every column by `step·λ`, down to 0. Reference: Obozinski, Taskar, Jordan, "Joint
    covariate selection and joint subspace selection for multiple classification problems", Statistics
    and Computing 20(2), 2010; Liu, Ji, Ye, "Multi-Task Feature Learning via Efficient ℓ2,1-Norm
    Minimization", UAI 2009.
    """

    summary = "all tasks use the same few features (ℓ2,1 norm)"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """`λ Σ_f ‖W[:, f]‖₂`."""
        return self.strength * sum_of_all(norm(W))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Every column shortened by `step·λ`, down to 0."""
        norms, off = norm(W), step * self.strength
        # A column that is 0 stays 0 under any finite factor.
        shrink = off / np.maximum(norms, max(off, np.finfo(W.dtype).tiny))
        return np.multiply(W, np.subtract(1.0, shrink, out=shrink), out=out)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max_f ‖Z[:, f]‖₂`."""
        return float(norm(Z).max())
