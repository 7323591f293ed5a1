"""The interface of couplings between tasks: a penalty and its proximal operator.

A coupling adds `λ R(W)` to the objective `Σ_t (1/n_t)·loss_t(w_t)`. A round applies its proximal operator
`prox(W, step) = argmin_U ½ ‖U − W‖_F² + step·λ R(U)` (docs/theory.md, section 1). `W` is (T, features)
float64, one row per task; free intercepts are not passed through. A new coupling is a subclass of `Coupling`
and a line in `registry.COUPLINGS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from asyncdmtl.arithmetic.kinds import REPRODUCIBLE, Arithmetic
from asyncdmtl.arrays import Floats


@dataclass(frozen=True)
class Coupling(ABC):
    """A penalty `λ R(W)` and its proximal operator; `strength` is λ ≥ 0.

    `arithmetic` has the functions that compute singular values, for couplings that need them.
    If `R` is a sum over columns (features), the coupling is `columnwise`: penalty and prox can then be
    computed for some columns at a time, and in float32.
    """

    summary: ClassVar[str]
    columnwise: ClassVar[bool] = False

    strength: float
    arithmetic: Arithmetic = field(default=REPRODUCIBLE, kw_only=True)

    def mixing(self, tasks: int) -> Floats:
        """`Φ` (C, T): a step depends on the tasks' aggregates `Z` only through `Φ·Z`."""
        return np.eye(tasks)

    @abstractmethod
    def penalty(self, W: Floats) -> float:
        """`λ R(W)` of a (T, features) matrix."""

    def penalties(self, models: Floats) -> Floats:
        """`λ R(W)` (K,) of each of the matrices (K, T, features), up to rounding as `penalty` has it."""
        return np.array([self.penalty(W) for W in models])

    @abstractmethod
    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`argmin_U ½ ‖U − W‖_F² + step·λ R(U)`, a (T, features) matrix.

        With `out`, which may be `W` itself, the result may be written there. Without it, `W` is not changed.
        """

    @abstractmethod
    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """The `λ` above which the penalty alone determines the models: the first `λ` of a descending path.

        For a norm `R` it is the smallest `λ` at which `W = 0` is optimal, the dual norm of `Z` (Rockafellar,
        "Convex Analysis", 1970, section 23; `0 ∈ Z + λ ∂R(0)`). Any other coupling documents its own scale.
        It does not depend on `strength`, and is 0 if `λ` has no effect or `Z` is 0.

        Parameters
        ----------
        Z : (T, features) float64 array
            Gradients of `loss_t / n_t`, row by row, at `W = 0` with optimal intercepts.
        smoothness : float
            Their Lipschitz constant: `1 / Problem.step_lengths[0]`.
        """


class NoCoupling(Coupling):
    """`R(W) = 0`: every task is trained alone; λ has no effect."""

    summary = "every task for itself"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """0."""
        return 0.0

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`W` itself."""
        return W

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """0, as `λ` has no effect."""
        return 0.0


def quadratic_critical_strength(Z: Floats, smoothness: float) -> float:
    """The λ of a squared penalty that leaves about a tenth of an unpenalised step (`λ ∇R(W) = −Z`)."""
    return 10.0 * smoothness if Z.any() else 0.0
