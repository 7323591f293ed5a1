"""Couplings by the singular values of the models: all tasks share a small subspace."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np

from asyncdmtl.arithmetic.sums import sum_of_all, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling, quadratic_critical_strength
from asyncdmtl.learning.proximal import sparse_low_rank_prox, sparse_low_rank_split
from asyncdmtl.learning.singular_values import map_singular_values, singular_values, squared_l1_threshold


class SpectralCoupling(Coupling):
    """A penalty that depends only on the singular values, and whose prox changes only these."""

    def penalty(self, W: Floats) -> float:
        """`λ R(W)`, from the singular values."""
        return float(self.penalty_of(singular_values(W, self.arithmetic)))

    def penalties(self, models: Floats) -> Floats:
        """`λ R(W)` of each matrix, from singular values that are computed together."""
        return self.penalty_of(self.arithmetic.singular_values(models))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`W` with shrunk singular values, at the cost of one or two Gram matrices of the shorter side."""
        return map_singular_values(W, lambda sigma: self.shrunk(sigma, step), self.arithmetic)

    @abstractmethod
    def penalty_of(self, sigma: Floats) -> Floats:
        """`λ R(W)` (…) of matrices with singular values `sigma` (…, n)."""

    @abstractmethod
    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """The singular values of the prox, from those of `W`, `sigma`: largest first, from 0 to `sigma`."""


class NuclearNorm(SpectralCoupling):
    """`R(W) = ‖W‖_*`, the sum of singular values: models of all tasks lie near one small subspace.

    The prox subtracts `step·λ` from every singular value, down to 0. Reference: Ji and Ye, "An Accelerated
    Gradient Method for Trace Norm Minimization", ICML 2009; prox: Cai, Candès, Shen, "A Singular Value
    Thresholding Algorithm for Matrix Completion", SIAM J. Optim. 20(4), 2010.
    """

    summary = "all models lie near one small subspace (nuclear norm)"

    def penalty_of(self, sigma: Floats) -> Floats:
        """`λ Σ_i σ_i(W)`."""
        return self.strength * total(sigma, -1)

    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """`max(σ_i − step·λ, 0)`."""
        return np.maximum(sigma - step * self.strength, 0.0)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`‖Z‖₂`, the largest singular value."""
        return float(singular_values(Z)[0])


class TaskCovariance(SpectralCoupling):
    """`R(W) = ½ ‖W‖_*²`: tasks learn from each other by a covariance `Ω` (T, T) that is learned with them.

    It is the minimum of `½ tr(Wᵀ Ω⁻¹ W)` over all `Ω ⪰ 0` of trace 1, attained at `Ω = (WWᵀ)^½ / tr (WWᵀ)^½`.
    This is multi-task relationship learning (MTRL) without alternation between `W` and `Ω`, which stalls
    above the optimum once `Ω` loses rank. The prox subtracts `τ` from every singular value, down to 0, with
    `τ = step·λ·Σ_i max(σ_i − τ, 0)`. Reference: Zhang and Yeung, "A Convex Formulation for Learning Task
    Relationships in Multi-Task Learning", UAI 2010; the minimum over `Ω`: Argyriou, Evgeniou, Pontil, "Convex
    Multi-Task Feature Learning", Machine Learning 73(3), 2008.
    """

    summary = "tasks share by a covariance that is learned (MTRL, half the squared nuclear norm)"

    def penalty_of(self, sigma: Floats) -> Floats:
        """`½ λ (Σ_i σ_i(W))²`."""
        norm = total(sigma, -1)
        return 0.5 * self.strength * norm * norm

    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """`max(σ_i − τ, 0)`, exactly."""
        return np.maximum(sigma - squared_l1_threshold(sigma, step * self.strength), 0.0)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness, above which `‖W‖_*` is at most about a tenth of `‖Z‖₂ / smoothness`.

        No finite `λ` makes the models 0, as this penalty is a square.
        """
        return quadratic_critical_strength(Z, smoothness)


class SparseLowRank(Coupling):
    """`R(W) = min_{P+Q=W} ρ ‖P‖₁ + ‖Q‖_*`, `ρ = 1/√max(T, features)`: a small subspace with exceptions.

    `W` is a low-rank `Q` that tasks share plus a sparse `P` that they do not, with `λ₁ = λρ` and `λ₂ = λ`.
    Only the sum is trained, and the penalty finds the split: that keeps one model per task and has the same
    optimum as training `P` and `Q` separately. This `ρ` balances the scales of the two norms, so that neither
    part absorbs the other. Prox and penalty are found by iteration to a fixed accuracy, each iteration with a
    Gram matrix of the shorter side: see `proximal.sparse_low_rank_prox`. Reference: Chen, Liu, Ye, "Learning
    Incoherent Sparse and Low-Rank Patterns from Multiple Tasks", KDD 2010; `ρ`: Candès, Li, Ma, Wright,
    "Robust Principal Component Analysis?", Journal of the ACM 58(3), 2011.
    """

    summary = "models lie near one small subspace but for a few entries (sparse + low-rank)"

    def penalty(self, W: Floats) -> float:
        """`λ (ρ ‖P‖₁ + ‖Q‖_*)` of the best split found, never below the true value."""
        P, Q = sparse_low_rank_split(W, self._rho(W), self.arithmetic)
        return self.strength * (
            self._rho(W) * sum_of_all(np.abs(P)) + sum_of_all(singular_values(Q, self.arithmetic))
        )

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`W` minus its projection on `{‖G‖₂ ≤ step·λ} ∩ {|G_ij| ≤ step·λ·ρ}`."""
        return sparse_low_rank_prox(W, step * self.strength, self._rho(W), self.arithmetic)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max(‖Z‖₂, max |Z_ij| / ρ)`."""
        return max(float(singular_values(Z)[0]), float(np.abs(Z).max()) / self._rho(Z))

    @staticmethod
    def _rho(W: Floats) -> float:
        return 1.0 / math.sqrt(max(W.shape))
