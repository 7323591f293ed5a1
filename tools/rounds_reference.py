"""Minima of coupled problems by a solver that has nothing in common with the package's own: SciPy's L-BFGS.

Norms of matrices have no gradient where models have low rank or lack features. They are the least of smooth
functions of two factors: `‖W‖_* = min ½ (‖U‖² + ‖V‖²)` over `W = U·Vᵀ`, and `‖W‖₂,₁ = min ½ (‖u‖² + ‖V‖²)`
over `W[t, f] = V[t, f]·u[f]`. A local minimum over factors of full size is a global one. Reference: Srebro,
Rennie, Jaakkola, "Maximum-Margin Matrix Factorization", NIPS 2004.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition, whole_tasks
from asyncdmtl.plan.placement import natural_key

COUPLINGS = ("nuclear", "covariance", "l21", "mean-regularised")
"""The couplings that are solved."""

_OPTIONS = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 50}


def least(
    partitions: Sequence[Partition], loss: str, coupling: str, strength: float, intercept: str = "free"
) -> float:
    """The minimum of `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)`; rows have no weights.

    Parameters
    ----------
    partitions : sequence of Partition
    loss : str
        A name in `LOSSES`.
    coupling : str
        One of `COUPLINGS`.
    strength : float
        λ.
    intercept : "free" or "penalised"
        A penalised intercept is the coefficient of one feature more, which is 1.
    """
    data = _Data(partitions, loss, intercept)
    T, F = len(data.rows), data.rows[0].shape[1]
    inner = {"nuclear": min(T, F), "covariance": min(T, F), "l21": 1, "mean-regularised": 0}[coupling]

    def value(flat: Floats) -> tuple[float, Floats]:
        b, factors = flat[:T], flat[T:]
        if coupling == "mean-regularised":
            W = factors.reshape(T, F)
            offsets = W - W.mean(axis=0)
            total, by_W, by_b = data.value(W, b)
            by_factors = (by_W + strength * offsets).reshape(-1)
            return total + 0.5 * strength * float((offsets**2).sum()), np.concatenate([by_b, by_factors])
        if coupling == "l21":
            U, V = factors[:F], factors[F:].reshape(T, F)
            total, by_W, by_b = data.value(V * U, b)
            by_U, by_V = (by_W * V).sum(axis=0), by_W * U
        else:
            U, V = factors[: T * inner].reshape(T, inner), factors[T * inner :].reshape(F, inner)
            total, by_W, by_b = data.value(U @ V.T, b)
            by_U, by_V = by_W @ V, by_W.T @ U
        norm = 0.5 * float((U**2).sum() + (V**2).sum())
        squared = coupling == "covariance"
        pull = strength * (norm if squared else 1.0)
        total += strength * (0.5 * norm * norm if squared else norm)
        by_factors = np.concatenate([(by_U + pull * U).reshape(-1), (by_V + pull * V).reshape(-1)])
        return total, np.concatenate([by_b, by_factors])

    sizes = {"mean-regularised": T * F, "l21": F + T * F}
    start = np.random.default_rng(0).normal(scale=0.1, size=T + sizes.get(coupling, (T + F) * inner))
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=_OPTIONS)
    return float(found.fun)


class _Data:
    """The data term, as a function of coefficients `W` (T, F) and intercepts `b` (T,)."""

    def __init__(self, partitions: Sequence[Partition], loss: str, intercept: str) -> None:
        whole = whole_tasks(partitions)
        tasks = [whole[name] for name in sorted(whole, key=natural_key)]
        self._free = intercept == "free"
        self.rows = [
            task.X if self._free else np.column_stack([task.X, np.ones(task.rows)]) for task in tasks
        ]
        self._targets = [task.y for task in tasks]
        self._loss = LOSSES[loss]

    def value(self, W: Floats, b: Floats) -> tuple[float, Floats, Floats]:
        """The value, and the gradients by `W` and `b`."""
        total, by_W, by_b = 0.0, np.zeros_like(W), np.zeros_like(b)
        for t, (X, y) in enumerate(zip(self.rows, self._targets, strict=True)):
            values, slopes = self._loss.value_and_derivative(X @ W[t] + b[t] * self._free, y)
            total += float(values.mean())
            by_W[t], by_b[t] = slopes @ X / len(X), slopes.mean() * self._free
        return total, by_W, by_b
