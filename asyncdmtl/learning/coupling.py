"""φ, between tasks: what makes the models of all tasks learn from each other (theory, section 1).

A coupling adds `λ R(W)` to the objective `Σ_t (1/n_t)·loss_t(w_t)`; a round applies its proximal operator
`prox(W, step) = argmin_U ½ ‖U − W‖_F² + step·λ R(U)`. `W` is (T, features) float64, one row per task;
intercepts are not passed through. A subclass of `Coupling` and a line in `COUPLINGS` add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coupling(ABC):
    """A penalty `λ R(W)` and its proximal operator; `strength` is λ ≥ 0."""

    summary: ClassVar[str]

    strength: float

    def mixing(self, tasks: int) -> Floats:
        """`Φ` (C, T): all that a step needs of the tasks' aggregates `Z` is `Φ·Z`, spread again by `Φ⁺`."""
        return np.eye(tasks)

    @abstractmethod
    def penalty(self, W: Floats) -> float:
        """`λ R(W)` of a (T, features) matrix."""

    @abstractmethod
    def prox(self, W: Floats, step: float) -> Floats:
        """`argmin_U ½ ‖U − W‖_F² + step·λ R(U)`, a (T, features) matrix; `W` is left as it is."""


class NoCoupling(Coupling):
    """`R(W) = 0`: every task for itself; λ has no effect."""

    summary = "every task for itself"

    def penalty(self, W: Floats) -> float:
        """0."""
        return 0.0

    def prox(self, W: Floats, step: float) -> Floats:
        """`W` itself."""
        return W


class NuclearNorm(Coupling):
    """`R(W) = ‖W‖_*`, the sum of singular values: models of all tasks lie near one small subspace.

    The prox takes `step·λ` off every singular value, down to 0. Reference: Ji and Ye, "An Accelerated
    Gradient Method for Trace Norm Minimization", ICML 2009; prox: Cai, Candès, Shen, "A Singular Value
    Thresholding Algorithm for Matrix Completion", SIAM J. Optim. 20(4), 2010.
    """

    summary = "all models lie near one small subspace (nuclear norm)"

    def penalty(self, W: Floats) -> float:
        """`λ Σ_i σ_i(W)`."""
        _, sigma = _right_factor(W if len(W) >= W.shape[1] else W.T)
        return self.strength * float(sigma.sum())

    def prox(self, W: Floats, step: float) -> Floats:
        """Singular values shrunk by `step·λ`, at the cost of one QR of the long side."""
        wide = len(W) < W.shape[1]
        V, sigma = _right_factor(W.T if wide else W)
        kept = sigma > step * self.strength
        # W = U Σ Vᵀ becomes W·V·diag(1 − step·λ/σ)·Vᵀ: the long factor U is never formed, and since
        # the small factor has norm ≤ 1 and prox never magnifies, rounding stays that of the QR.
        shrink = (V[:, kept] * (1.0 - step * self.strength / sigma[kept])) @ V[:, kept].T
        shrunk: Floats = shrink @ W if wide else W @ shrink
        return shrunk


class L21Norm(Coupling):
    """`R(W) = Σ_f ‖W[:, f]‖₂`: all tasks use the same few features.

    The prox shortens every column by `step·λ`, down to 0. Reference: Obozinski, Taskar, Jordan, "Joint
    covariate selection and joint subspace selection for multiple classification problems", Statistics
    and Computing 20(2), 2010; Liu, Ji, Ye, "Multi-Task Feature Learning via Efficient ℓ2,1-Norm
    Minimization", UAI 2009.
    """

    summary = "all tasks use the same few features (ℓ2,1 norm)"

    def penalty(self, W: Floats) -> float:
        """`λ Σ_f ‖W[:, f]‖₂`."""
        return self.strength * float(np.linalg.norm(W, axis=0).sum())

    def prox(self, W: Floats, step: float) -> Floats:
        """Columns shortened by `step·λ`."""
        norms = np.linalg.norm(W, axis=0)
        kept = norms > step * self.strength
        shrink = np.zeros_like(norms)
        shrink[kept] = 1.0 - step * self.strength / norms[kept]
        shortened: Floats = W * shrink
        return shortened


class PlainMean(Coupling):
    """`R(W)` is 0 where all rows are equal, else infinite: all tasks share one model; λ has no effect."""

    summary = "all tasks share one model (plain mean; linear)"

    def mixing(self, tasks: int) -> Floats:
        """Only the mean of the aggregates matters."""
        return np.full((1, tasks), 1.0 / tasks)

    def penalty(self, W: Floats) -> float:
        """0: the models are equal."""
        return 0.0

    def prox(self, W: Floats, step: float) -> Floats:
        """Every row replaced by the mean of all."""
        return np.broadcast_to(W.mean(axis=0), W.shape)


class MeanRegularised(Coupling):
    """`R(W) = ½ Σ_t ‖w_t − w̄‖²` with the mean `w̄`: models stay near their mean.

    The prox draws every model towards the mean by `1 / (1 + step·λ)`. Reference: Evgeniou and Pontil,
    "Regularized Multi-Task Learning", KDD 2004.
    """

    summary = "models stay near their mean (linear)"

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_t − w̄‖²`."""
        return 0.5 * self.strength * float(((W - W.mean(axis=0)) ** 2).sum())

    def prox(self, W: Floats, step: float) -> Floats:
        """`w̄ + (w_t − w̄) / (1 + step·λ)`."""
        mean = W.mean(axis=0)
        drawn: Floats = mean + (W - mean) / (1.0 + step * self.strength)
        return drawn


class ChainLaplacian(Coupling):
    """`R(W) = ½ Σ_t ‖w_{t+1} − w_t‖² = ½ tr(Wᵀ L W)`, `L` the Laplacian of the chain of tasks in their order.

    For tasks that follow each other: ages, years, places along a road. The prox solves
    `(I + step·λ·L)·U = W`. Reference: Evgeniou, Micchelli, Pontil, "Learning Multiple Tasks with Kernel
    Methods", JMLR 6, 2005.
    """

    summary = "models of neighbouring tasks are near each other (graph Laplacian of a chain; linear)"

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_{t+1} − w_t‖²`."""
        return 0.5 * self.strength * float((np.diff(W, axis=0) ** 2).sum())

    def prox(self, W: Floats, step: float) -> Floats:
        """The solution of a (T, T) system."""
        T = len(W)
        differences: Floats = np.diff(np.eye(T), axis=0)
        system: Floats = np.eye(T) + step * self.strength * (differences.T @ differences)
        return np.asarray(np.linalg.solve(system, W), dtype=np.float64)


COUPLINGS: Mapping[str, type[Coupling]] = MappingProxyType(
    {
        "none": NoCoupling,
        "nuclear": NuclearNorm,
        "l21": L21Norm,
        "mean": PlainMean,
        "mean-regularised": MeanRegularised,
        "chain": ChainLaplacian,
    }
)


def make_coupling(name: str, strength: float) -> Coupling:
    """The coupling called `name` with λ = `strength`.

    Raises
    ------
    UsageError
        No such coupling.
    """
    if name not in COUPLINGS:
        raise UsageError("coupling", f"must be one of {', '.join(COUPLINGS)}", name)
    return COUPLINGS[name](strength)


def _right_factor(tall: Floats) -> tuple[Floats, Floats]:
    """`V` (n, n) and singular values (n,) of a tall (m, n) matrix `U Σ Vᵀ`, m ≥ n.

    By way of `R` of its QR, not of the Gram matrix, which would square the condition number.
    """
    _, sigma, Vt = np.linalg.svd(np.linalg.qr(tall, mode="r"))
    return Vt.T, sigma
