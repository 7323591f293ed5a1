"""What all couplings between tasks have in common: a penalty and its proximal operator.

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

    `arithmetic` is what singular values are found with, where they are.
    Where `R` is a sum over columns (features) it is `columnwise`: penalty and prox may then be taken of some
    columns at a time, and of float32, too.
    """

    summary: ClassVar[str]
    columnwise: ClassVar[bool] = False

    strength: float
    arithmetic: Arithmetic = field(default=REPRODUCIBLE, kw_only=True)

    def mixing(self, tasks: int) -> Floats:
        """`Φ` (C, T): all that a step needs of the tasks' aggregates `Z` is `Φ·Z`, spread again by `Φ⁺`."""
        return np.eye(tasks)

    @abstractmethod
    def penalty(self, W: Floats) -> float:
        """`λ R(W)` of a (T, features) matrix."""

    @abstractmethod
    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`argmin_U ½ ‖U − W‖_F² + step·λ R(U)`, a (T, features) matrix.

        It may be put into `out`, which may be `W`; without, `W` is left as it is.
        """

    @abstractmethod
    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """The `λ` from which on the penalty decides alone: a path over `λ` goes down from there.

        For a norm `R` the least `λ` at which `W = 0` is optimal: the dual norm of `Z` (Rockafellar, "Convex
        Analysis", 1970, section 23; `0 ∈ Z + λ ∂R(0)`). Elsewhere a scale that each coupling documents. It
        does not depend on `strength`, and is 0 where `λ` has no effect or `Z` is 0.

        Parameters
        ----------
        Z : (T, features) float64 array
            Gradients of `loss_t / n_t`, by rows, at `W = 0`, intercepts at their best.
        smoothness : float
            How fast they change with the models at the most: `1 / Problem.step`.
        """


class NoCoupling(Coupling):
    """`R(W) = 0`: every task for itself; λ has no effect."""

    summary = "every task for itself"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """0."""
        return 0.0

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`W` itself."""
        return W

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """0: no `λ` does anything."""
        return 0.0


def quadratic_critical_strength(Z: Floats, smoothness: float) -> float:
    """λ of a square that leaves about a tenth of a free step: `λ ∇R(W) = −Z` at the optimum, and no more."""
    return 10.0 * smoothness if Z.any() else 0.0
