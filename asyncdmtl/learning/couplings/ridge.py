"""Every task for itself, with its model drawn to 0."""

from __future__ import annotations

from asyncdmtl.arithmetic.sums import sum_of_all
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling, quadratic_critical_strength


class Ridge(Coupling):
    """`R(W) = ½ Σ_t ‖w_t‖²`: ridge regression of each task alone, all with the same λ.

    It ties no tasks. It is what the others have to be better than. Reference: Hoerl and Kennard, "Ridge
    Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 12(1), 1970.
    """

    summary = "every task for itself, models near 0 (ridge; linear)"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_t‖²`."""
        return 0.5 * self.strength * sum_of_all(W**2)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`w_t / (1 + step·λ)`."""
        drawn: Floats = W / (1.0 + step * self.strength)
        if out is None:
            return drawn
        out[...] = drawn
        return out

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness: about a tenth of an unpenalised step is left."""
        return quadratic_critical_strength(Z, smoothness)
