"""φ, between tasks: what makes the models of all tasks learn from each other (docs/theory.md, section 1).

A coupling adds `λ R(W)` to the objective `Σ_t (1/n_t)·loss_t(w_t)`; a round applies its proximal operator
`prox(W, step) = argmin_U ½ ‖U − W‖_F² + step·λ R(U)`. `W` is (T, features) float64, one row per task;
intercepts are not passed through. A subclass of `Coupling` and a line in `COUPLINGS` add one.

Where to look for a good `λ`: from `Coupling.critical_strength` down (`selection`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.laplacian import Edge, edge_rows, smooth_along_chain, spectrum
from asyncdmtl.learning.proximal import (
    clustered_prox,
    map_singular_values,
    pair_differences,
    singular_values,
    sparse_low_rank_prox,
    sparse_low_rank_split,
    squared_l1_threshold,
)


@dataclass(frozen=True)
class Coupling(ABC):
    """A penalty `λ R(W)` and its proximal operator; `strength` is λ ≥ 0.

    Where `R` is a sum over columns (features) it is `columnwise`: penalty and prox may then be taken of some
    columns at a time, and of float32, too.
    """

    summary: ClassVar[str]
    columnwise: ClassVar[bool] = False

    strength: float

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


class SpectralCoupling(Coupling):
    """A penalty that depends on the singular values only, and whose prox changes nothing else."""

    def penalty(self, W: Floats) -> float:
        """`λ R(W)`, from the singular values."""
        return self.penalty_of(singular_values(W))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Singular values shrunk, at the cost of one QR of the long side."""
        return map_singular_values(W, lambda sigma: self.shrunk(sigma, step))

    @abstractmethod
    def penalty_of(self, sigma: Floats) -> float:
        """`λ R(W)` of a matrix with singular values `sigma`."""

    @abstractmethod
    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """The singular values of the prox, from those of `W`, largest first: between 0 and these."""


class NuclearNorm(SpectralCoupling):
    """`R(W) = ‖W‖_*`, the sum of singular values: models of all tasks lie near one small subspace.

    The prox takes `step·λ` off every singular value, down to 0. Reference: Ji and Ye, "An Accelerated
    Gradient Method for Trace Norm Minimization", ICML 2009; prox: Cai, Candès, Shen, "A Singular Value
    Thresholding Algorithm for Matrix Completion", SIAM J. Optim. 20(4), 2010.
    """

    summary = "all models lie near one small subspace (nuclear norm)"

    def penalty_of(self, sigma: Floats) -> float:
        """`λ Σ_i σ_i(W)`."""
        return self.strength * float(sigma.sum())

    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """`max(σ_i − step·λ, 0)`."""
        return np.maximum(sigma - step * self.strength, 0.0)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`‖Z‖₂`, the largest singular value."""
        return float(singular_values(Z)[0])


class TaskCovariance(SpectralCoupling):
    """`R(W) = ½ ‖W‖_*²`: tasks learn from each other by a covariance `Ω` (T, T) that is learned with them.

    It is the least of `½ tr(Wᵀ Ω⁻¹ W)` over all `Ω ⪰ 0` of trace 1, reached at `Ω = (WWᵀ)^½ / tr (WWᵀ)^½`:
    multi-task relationship learning (MTRL) without alternating between `W` and `Ω`, which stalls above the
    optimum once `Ω` loses rank. The prox takes `τ` off every singular value, down to 0, with
    `τ = step·λ·Σ_i max(σ_i − τ, 0)`. Reference: Zhang and Yeung, "A Convex Formulation for Learning Task
    Relationships in Multi-Task Learning", UAI 2010; the least over `Ω`: Argyriou, Evgeniou, Pontil, "Convex
    Multi-Task Feature Learning", Machine Learning 73(3), 2008.
    """

    summary = "tasks share by a covariance that is learned (MTRL, half the squared nuclear norm)"

    def penalty_of(self, sigma: Floats) -> float:
        """`½ λ (Σ_i σ_i(W))²`."""
        norm = float(sigma.sum())
        return 0.5 * self.strength * norm * norm

    def shrunk(self, sigma: Floats, step: float) -> Floats:
        """`max(σ_i − τ, 0)`, exactly."""
        return np.maximum(sigma - squared_l1_threshold(sigma, step * self.strength), 0.0)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness, from which on `‖W‖_*` is at most about a tenth of `‖Z‖₂ / smoothness`.

        No `λ` brings models to 0 altogether: this penalty is a square.
        """
        return _overwhelming(Z, smoothness)


class SparseLowRank(Coupling):
    """`R(W) = min_{P+Q=W} ρ ‖P‖₁ + ‖Q‖_*`, `ρ = 1/√max(T, features)`: one small subspace, and exceptions.

    `W` is a low-rank `Q` that tasks share plus a sparse `P` that they do not, with `λ₁ = λρ` and `λ₂ = λ`.
    Only the sum is trained, with the split left to the penalty: that keeps one model per task and gives the
    same optimum as training `P` and `Q` apart. This `ρ` is where neither part swallows the other for want
    of scale. Prox and penalty are found by iteration to a fixed accuracy, each iteration with a QR
    of the long side: see `proximal.sparse_low_rank_prox`.
    Reference: Chen, Liu, Ye, "Learning Incoherent Sparse and Low-Rank Patterns from Multiple Tasks", KDD
    2010; `ρ`: Candès, Li, Ma, Wright, "Robust Principal Component Analysis?", Journal of the ACM 58(3), 2011.
    """

    summary = "models lie near one small subspace but for a few entries (sparse + low-rank)"

    def penalty(self, W: Floats) -> float:
        """`λ (ρ ‖P‖₁ + ‖Q‖_*)` of the best split, never less than its true value."""
        P, Q = sparse_low_rank_split(W, self._rho(W))
        return self.strength * float(self._rho(W) * np.abs(P).sum() + singular_values(Q).sum())

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`W` less its projection on the matrices of spectral norm and entries at most `step·λ·(1, ρ)`."""
        return sparse_low_rank_prox(W, step * self.strength, self._rho(W))

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max(‖Z‖₂, max |Z_ij| / ρ)`."""
        return max(float(singular_values(Z)[0]), float(np.abs(Z).max()) / self._rho(Z))

    @staticmethod
    def _rho(W: Floats) -> float:
        return 1.0 / math.sqrt(max(W.shape))


class Clustered(Coupling):
    """`R(W) = (1/T) Σ_{s<t} ‖w_s − w_t‖₂`: models gather in clusters, within which they are equal.

    The convex relaxation of clustering known as sum-of-norms clustering, on the complete graph of tasks:
    how many clusters there are follows from `λ`. With `1/T`, as in the mean-regularised penalty (which
    has squares in place of norms), no task is pulled harder than `λ` however many there are.
    The prox is found by iteration to a fixed accuracy, in memory for some `T²·min(T, features)` numbers:
    see `proximal.clustered_prox`. Reference: Hocking, Joulin, Bach, Vert, "Clusterpath: an Algorithm for
    Clustering using Convex Fusion Penalties", ICML 2011.
    """

    summary = "models gather in clusters (convex: sum of norms of differences)"

    def penalty(self, W: Floats) -> float:
        """`(λ/T) Σ_{s<t} ‖w_s − w_t‖₂`."""
        return self.strength / len(W) * float(np.linalg.norm(pair_differences(W), axis=1).sum())

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Differences shortened so that they still fit together; the mean of the models stays."""
        return clustered_prox(W, step * self.strength / len(W))

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max_{s,t} ‖z_s − z_t‖₂`: equal models, if `Z` is taken at the best equal ones, stay equal.

        Enough and not always needed: the pairs can then hold what pulls tasks apart, `(z_s − z_t)/T` each.
        """
        return float(np.linalg.norm(pair_differences(Z), axis=1).max(initial=0.0))


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
        return self.strength * float(_column_norms(W).sum(dtype=np.float64))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Columns shortened by `step·λ`."""
        norms, off = _column_norms(W), step * self.strength
        # Where a column is 0 it stays 0, whatever it is multiplied by.
        shrink = off / np.maximum(norms, max(off, np.finfo(W.dtype).tiny))
        return np.multiply(W, np.subtract(1.0, shrink, out=shrink), out=out)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max_f ‖Z[:, f]‖₂`."""
        return float(np.linalg.norm(Z, axis=0).max())


class PlainMean(Coupling):
    """`R(W)` is 0 where all rows are equal, else infinite: all tasks share one model; λ has no effect."""

    summary = "all tasks share one model (plain mean; linear)"
    columnwise = True

    def mixing(self, tasks: int) -> Floats:
        """Only the mean of the aggregates matters."""
        return np.full((1, tasks), 1.0 / tasks)

    def penalty(self, W: Floats) -> float:
        """0: the models are equal."""
        return 0.0

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Every row replaced by the mean of all."""
        return np.broadcast_to(W.mean(axis=0), W.shape)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """0: no `λ` does anything."""
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
        return 0.5 * self.strength * float(((W - W.mean(axis=0)) ** 2).sum(dtype=np.float64))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """`w̄ + (w_t − w̄) / (1 + step·λ)`."""
        mean = W.mean(axis=0)
        drawn: Floats = np.subtract(W, mean, out=out)
        drawn /= 1.0 + step * self.strength
        drawn += mean
        return drawn

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness: models differ by about a tenth, at most, of what one step without a penalty does."""
        return _overwhelming(Z, smoothness)


class ChainLaplacian(Coupling):
    """`R(W) = ½ Σ_t ‖w_{t+1} − w_t‖² = ½ tr(Wᵀ L W)`, `L` the Laplacian of the chain of tasks in their order.

    For tasks that follow each other: ages, years, places along a road. The prox solves
    `(I + step·λ·L)·U = W`. Reference: Evgeniou, Micchelli, Pontil, "Learning Multiple Tasks with Kernel
    Methods", JMLR 6, 2005.
    """

    summary = "models of neighbouring tasks are near each other (graph Laplacian of a chain; linear)"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_{t+1} − w_t‖²`."""
        return 0.5 * self.strength * float((np.diff(W, axis=0) ** 2).sum(dtype=np.float64))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """The solution of a (T, T) system of three diagonals."""
        return smooth_along_chain(W, step * self.strength)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness / (2 − 2 cos(π/T)), the least positive eigenvalue of `L`: as in other graphs."""
        T = len(Z)
        return _overwhelming(Z, smoothness) / (2.0 - 2.0 * math.cos(math.pi / T)) if T > 1 else 0.0


@dataclass(frozen=True)
class GraphLaplacian(Coupling):
    """`R(W) = ½ Σ_{(s,t)} a_st ‖w_s − w_t‖² = ½ tr(Wᵀ L W)`, `L` the Laplacian of a weighted graph of tasks.

    For tasks of which it is known who resembles whom; `edges` are `(s, t, a_st)` by the tasks' rows. The prox
    solves `(I + step·λ·L)·U = W`. Reference: Evgeniou, Micchelli, Pontil, "Learning Multiple Tasks with
    Kernel Methods", JMLR 6, 2005, section 3.1.
    """

    summary = "models of neighbouring tasks are near each other (graph Laplacian of given edges; linear)"
    columnwise = True

    tasks: int
    edges: tuple[tuple[int, int, float], ...]

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_{(s,t)} a_st ‖w_s − w_t‖²`."""
        pulls = (a * float(((W[s] - W[t]) ** 2).sum(dtype=np.float64)) for s, t, a in self.edges)
        return 0.5 * self.strength * math.fsum(pulls)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """By the eigenvectors of `L`, found once: two products of (T, T) and (T, features)."""
        values, Q = self._spectrum
        solved: Floats = Q @ ((Q.T @ W) / (1.0 + step * self.strength * values)[:, None])
        return solved

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness / the least positive eigenvalue of `L`: as "mean-regularised" in connected parts."""
        values, _ = self._spectrum
        least = values[values > 1e-10 * values[-1]].min(initial=math.inf)
        return _overwhelming(Z, smoothness) / float(least)

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        return spectrum(self.tasks, self.edges)


COUPLINGS: Mapping[str, type[Coupling]] = MappingProxyType(
    {
        "none": NoCoupling,
        "nuclear": NuclearNorm,
        "l21": L21Norm,
        "mean": PlainMean,
        "mean-regularised": MeanRegularised,
        "chain": ChainLaplacian,
        "graph": GraphLaplacian,
        "covariance": TaskCovariance,
        "sparse-low-rank": SparseLowRank,
        "clustered": Clustered,
    }
)


def make_coupling(
    name: str, strength: float, tasks: Sequence[str] | None = None, edges: Sequence[Edge] = ()
) -> Coupling:
    """The coupling called `name` with λ = `strength`.

    Parameters
    ----------
    tasks : sequence of str, optional
        Names of the `T` tasks, in the order of the rows of `W`; only the coupling "graph" asks.
    edges : sequence of (task, task, weight)
        For the coupling "graph": each pair once, in either order, with its weight `a_st > 0`.

    Raises
    ------
    UsageError
        No such coupling, or edges that are missing, not asked for, or make no sense.
    """
    if name not in COUPLINGS:
        raise UsageError("coupling", f"must be one of {', '.join(COUPLINGS)}", name)
    if name == "graph":
        return GraphLaplacian(strength, len(tasks or ()), edge_rows(tasks or (), edges))
    if edges:
        raise UsageError("edges", "are for the coupling graph only", name)
    return COUPLINGS[name](strength)


def _overwhelming(Z: Floats, smoothness: float) -> float:
    """λ of a square that leaves about a tenth of a free step: `λ ∇R(W) = −Z` at the optimum, and no more."""
    return 10.0 * smoothness if Z.any() else 0.0


def _column_norms(W: Floats) -> Floats:
    norms: Floats = np.add.reduce(W * W, axis=0)
    return np.sqrt(norms, out=norms)
