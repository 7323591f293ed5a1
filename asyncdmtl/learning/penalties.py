"""Penalties for the splitting method: proximal operators and dual norms of many matrices at a time.

A `Penalty` works on stacks (K, L, parts, N, C), with `L` strengths λ for each of the `K` data sets. `parts`
is 1, or 2 for the sum of a sparse and a low-rank matrix. `N` is the number of tasks `T`, or of pairs of tasks
where differences are penalised. The formulas are those of `couplings`, for each matrix of the stack.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.kinds import REPRODUCIBLE, Arithmetic
from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import norm, sum_of_squares, total
from asyncdmtl.arrays import Floats

_TINY = 1e-300


class Penalty(ABC):
    """A penalty `R` of stacked matrices: its values, its proximal operator, and its dual for lower bounds.

    Parameters
    ----------
    strengths : (L,) or (K, L) float64 array
        λ, above 0.
    arithmetic : Arithmetic
        The functions that compute singular values, for penalties that need them.
    """

    parts = 1

    def __init__(self, strengths: Floats, arithmetic: Arithmetic = REPRODUCIBLE) -> None:
        self.strengths = np.atleast_2d(strengths)
        self._arithmetic = arithmetic

    def keep(self, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> None:
        """Keep only some of the `K` data sets and of the `L` strengths."""
        self.strengths = (self.strengths[rows] if len(self.strengths) > 1 else self.strengths)[:, columns]

    @abstractmethod
    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """`argmin_U ½ ‖U − S‖² + step·λ R(U)`, (K, L, parts, N, C); `step` may be (K, 1)."""

    @abstractmethod
    def value(self, H: Floats) -> Floats:
        """`λ R(H)` (K, L) of the last result `H` of `prox`."""

    @abstractmethod
    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """The largest `s ≤ 1` with a finite conjugate `(λR)*(s Z)`, and its value; (K, L) both."""

    def dual_near(self, E: Floats) -> tuple[Floats, Floats]:
        """Some `s ≤ 1` with a finite conjugate `(λR)*(s (Y + E))`, and a bound of its value; (K, L) both.

        `Y = (S − H) / step` is the subgradient at the last result `H` of `prox`, so that nothing but the size
        of `E`, (K, L, parts, N, C), needs to be computed; of several parts, all `Y + E` are equal.
        """
        sizes = self._dual_sizes(E)
        return self.strengths / (self.strengths + sizes), np.zeros(sizes.shape)

    def _dual_sizes(self, E: Floats) -> Floats:
        """Bounds (K, L) of the dual norm of `R`, at `E`."""
        return np.sqrt(squared_norm(E[:, :, -1]))


class Nuclear(Penalty):
    """`‖W‖_*`."""

    def __init__(self, strengths: Floats, arithmetic: Arithmetic = REPRODUCIBLE) -> None:
        super().__init__(strengths, arithmetic)
        self._spectrum = Spectrum(arithmetic)

    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """Subtract `step·λ` from the singular values, down to 0."""
        return self._spectrum.shrunk(S[:, :, 0], lambda sigma: self._take(sigma, step))[:, :, None]

    def value(self, H: Floats) -> Floats:
        """From the singular values that were left."""
        return self.strengths * self._spectrum.norm

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """`min(1, λ / ‖Z‖₂)`, and 0."""
        spectral = self._spectrum.largest(Z)
        return np.minimum(1.0, self.strengths / np.maximum(spectral, _TINY)), np.zeros_like(spectral)

    def _take(self, sigma: Floats, step: float | Floats) -> Floats:
        return np.broadcast_to((step * self.strengths)[..., None], sigma.shape)


class HalfSquaredNuclear(Nuclear):
    """`½ ‖W‖_*²`."""

    def value(self, H: Floats) -> Floats:
        """From the singular values that were left."""
        return 0.5 * self.strengths * self._spectrum.norm * self._spectrum.norm

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """`s = 1`, and `‖Z‖₂² / 2λ`."""
        spectral = self._spectrum.largest(Z)
        return np.ones_like(spectral), spectral * spectral / (2.0 * np.maximum(self.strengths, _TINY))

    def dual_near(self, E: Floats) -> tuple[Floats, Floats]:
        """`s = 1`, and a bound by `‖Y‖₂ ≤ λ ‖H‖_*`."""
        spectral = self.strengths * self._spectrum.norm + self._dual_sizes(E)
        return np.ones_like(spectral), spectral * spectral / (2.0 * self.strengths)

    def _take(self, sigma: Floats, step: float | Floats) -> Floats:
        descending = sigma[..., ::-1]
        mu = (step * self.strengths)[..., None]
        counts = np.arange(1, sigma.shape[-1] + 1)
        thresholds = mu * np.cumsum(descending, axis=-1) / (1.0 + mu * counts)
        positive = np.maximum((descending > thresholds).sum(axis=-1, keepdims=True), 1)
        taken = np.take_along_axis(thresholds, positive - 1, axis=-1)
        return np.broadcast_to(taken, sigma.shape)


class Columns(Penalty):
    """`Σ_f ‖W[:, f]‖₂`."""

    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """Shorten columns by `step·λ`, down to 0."""
        off = (step * self.strengths)[..., None, None]
        norms = norm(S, axis=3)
        shrunk: Floats = S * np.maximum(1.0 - off / np.maximum(norms, _TINY), 0.0)[:, :, :, None, :]
        return shrunk

    def value(self, H: Floats) -> Floats:
        """The sum of the lengths of columns."""
        return self.strengths * total(norm(H[:, :, 0], axis=2), 2)

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """`min(1, λ / max_f ‖Z[:, f]‖₂)`, and 0."""
        longest = norm(Z, axis=2).max(axis=2)
        return np.minimum(1.0, self.strengths / np.maximum(longest, _TINY)), np.zeros_like(longest)

    def _dual_sizes(self, E: Floats) -> Floats:
        longest: Floats = norm(E[:, :, 0], axis=2).max(axis=2)
        return longest


class SparsePlusLowRank(Penalty):
    """`ρ ‖P‖₁ + ‖Q‖_*` of two parts `P`, `Q`."""

    parts = 2

    def __init__(self, strengths: Floats, arithmetic: Arithmetic = REPRODUCIBLE) -> None:
        super().__init__(strengths, arithmetic)
        self._spectrum = Spectrum(arithmetic)

    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """The prox of each part separately."""
        off = step * self.strengths
        P, Q = S[:, :, 0], S[:, :, 1]
        bound = (off * _rho(P))[..., None, None]
        sparse = P - np.clip(P, -bound, bound)
        taken = off[..., None]
        low = self._spectrum.shrunk(Q, lambda sigma: np.broadcast_to(taken, sigma.shape))
        return np.stack([sparse, low], axis=2)

    def value(self, H: Floats) -> Floats:
        """The penalty of this split into two parts."""
        P = H[:, :, 0]
        absolute = total(total(np.abs(P), 3), 2)
        return self.strengths * (_rho(P) * absolute + self._spectrum.norm)

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """`λ` divided by the larger of `‖Z‖₂` and `max |Z_ij| / ρ`, at most 1; and 0."""
        largest = np.maximum(self._spectrum.largest(Z), np.abs(Z).max(axis=(2, 3)) / _rho(Z))
        return np.minimum(1.0, self.strengths / np.maximum(largest, _TINY)), np.zeros_like(largest)

    def _dual_sizes(self, E: Floats) -> Floats:
        entries: Floats = np.abs(E[:, :, 0]).max(axis=(2, 3)) / _rho(E[:, :, 0])
        return np.maximum(super()._dual_sizes(E), entries)


class Pairs(Penalty):
    """`(1/T) Σ ‖v_p‖₂` of the differences `v_p` of all pairs of tasks."""

    def __init__(self, strengths: Floats, tasks: int) -> None:
        super().__init__(strengths)
        self._share = 1.0 / tasks

    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """Shorten the vector of each pair by `step·λ/T`, down to 0."""
        off = (step * self._share * self.strengths)[..., None, None]
        norms = norm(S, axis=4)
        shrunk: Floats = S * np.maximum(1.0 - off / np.maximum(norms, _TINY), 0.0)[..., None]
        return shrunk

    def value(self, H: Floats) -> Floats:
        """The sum of the lengths of the vectors."""
        return self._share * self.strengths * total(norm(H[:, :, 0], axis=3), 2)

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """`λ/T` divided by the length of the longest vector, at most 1; and 0."""
        longest = norm(Z, axis=3).max(axis=2)
        bound = self._share * self.strengths
        return np.minimum(1.0, bound / np.maximum(longest, _TINY)), np.zeros_like(longest)


class Smoothness(Penalty):
    """`½ tr(Wᵀ L W)` of the Laplacian `L = Q diag(values) Qᵀ` of a graph."""

    def __init__(self, strengths: Floats, values: Floats, Q: Floats) -> None:
        super().__init__(strengths)
        self._values, self._Q = values, Q

    def prox(self, S: Floats, step: float | Floats) -> Floats:
        """`(I + step·λ L)⁻¹ S`."""
        shrink = 1.0 / (1.0 + (step * self.strengths)[..., None] * self._values)
        rotated = matmul(self._Q.T, S[:, :, 0])
        return matmul(self._Q, shrink[..., None] * rotated)[:, :, None]

    def value(self, H: Floats) -> Floats:
        """The quadratic form, computed in the basis of eigenvectors."""
        rotated = matmul(self._Q.T, H[:, :, 0])
        return 0.5 * self.strengths * squared_norm(np.sqrt(self._values)[:, None] * rotated)

    def dual(self, Z: Floats) -> tuple[Floats, Floats]:
        """Zeros: the conjugate is infinite for every `Z` with a component along constants."""
        shape = Z.shape[:2]
        return np.zeros(shape), np.zeros(shape)


class Spectrum:
    """Shrinks singular values, and keeps the sum of the results.

    Attributes
    ----------
    norm : (K, L) float64 array
        The sum of the last shrunk singular values.
    """

    def __init__(self, arithmetic: Arithmetic = REPRODUCIBLE) -> None:
        self.norm: Floats = np.zeros((0, 0))
        self._arithmetic = arithmetic

    def shrunk(self, W: Floats, take: Callable[[Floats], Floats]) -> Floats:
        """`U max(Σ − take(σ), 0) Vᵀ` of (K, L, N, C) matrices; `take` gets `σ`, ascending."""
        sigma, V, tall = self._decomposed(W)
        left = np.maximum(sigma - take(sigma), 0.0)
        self.norm = total(left, 2)
        share = np.where(left > 0.0, left / np.maximum(sigma, _TINY), 0.0)
        product = self._arithmetic.matmul
        factor = product(V * share[..., None, :], np.swapaxes(V, -1, -2))
        return product(W, factor) if tall else product(factor, W)

    def largest(self, W: Floats) -> Floats:
        """`‖W‖₂` (K, L)."""
        sigma, _, _ = self._decomposed(W)
        return sigma[..., -1]

    def _decomposed(self, W: Floats) -> tuple[Floats, Floats, bool]:
        """`σ`, ascending, the vectors of the shorter side, and whether that is the columns.

        They come from Gram matrices, so that errors of `σ` are up to `1e-8` of the largest.
        """
        tall = W.shape[-2] >= W.shape[-1]
        squares, V = self._arithmetic.eigh(self._arithmetic.gram(np.swapaxes(W, -1, -2) if tall else W))
        return np.sqrt(np.maximum(squares, 0.0)), V, tall


def squared_norm(W: Floats) -> Floats:
    """`‖W‖_F²` of each (…, N, C) matrix."""
    return total(sum_of_squares(W, axis=W.ndim - 1), W.ndim - 2)


def _rho(W: Floats) -> float:
    return 1.0 / math.sqrt(max(W.shape[-2:]))
