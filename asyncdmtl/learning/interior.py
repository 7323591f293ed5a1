"""Coupled quadratic problems whose columns have very different sizes, by an interior-point method.

Norms of models are the least of quadratic penalties over a matrix `Ω` (C, C), positive definite:
`‖W‖_* = min ½ tr(W Ω⁻¹ Wᵀ) + ½ tr Ω`, and `½ ‖W‖_*² = min ½ tr(W Ω⁻¹ Wᵀ)` over all `Ω` of trace 1; with a
diagonal `Ω` the first is `‖W‖₂,₁`. For each `Ω` the models are those of ridge regressions, so that `Ω` alone
is left. Newton's steps minimise what it costs minus `μ log det Ω`, with ever smaller `μ`. They are the same
whatever the units of the columns are, while the number of iterations of splitting grows with the ratio of
their sizes. Each step needs a system in all entries of `Ω`. References: Argyriou, Evgeniou, Pontil, "Convex
Multi-Task Feature Learning", Machine Learning 73(3), 2008 (`Ω`); Boyd and Vandenberghe, "Convex
Optimization", 2004, chapter 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arithmetic import solving
from asyncdmtl.arithmetic.elementary import log
from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import norm, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.couplings.low_rank import NuclearNorm, TaskCovariance
from asyncdmtl.learning.quadratic import Accuracy, Quadratics
from asyncdmtl.learning.splitting import Split, duality_gap

# The ratio of mean second derivatives along two columns from which on their sizes are very different.
_RATIO = 1e6

# The most columns: a step takes a second for so many, under ℓ2,1 and under couplings by singular values.
_MOST_COLUMNS = 400
_MOST_SPECTRAL = 40

# The ratio of each μ to the one before it.
_SHRINK = 0.02

# A point is near the best of its μ if Newton's decrement is below this.
_NEAR = 0.5

# The share of the way to the boundary of positive definite matrices that a step may go.
_INSIDE = 0.95

# The share of the promised decrease with which a step is long enough, and the shortest step.
_ARMIJO, _SHORTEST = 0.1, 1e-6

# The share of each diagonal entry of a system that is added to it against rounding.
_RIDGE = 1e-14

# The most steps, and the smallest μ, as a share of the objective of models of 0; below is rounding.
_STEPS, _LEAST = 400, 1e-15


def suits(coupling: Coupling, quadratics: Quadratics) -> bool:
    """Whether this method is to solve the problem: columns differ that much, and are few enough."""
    most = {NuclearNorm: _MOST_SPECTRAL, TaskCovariance: _MOST_SPECTRAL, L21Norm: _MOST_COLUMNS}
    if quadratics.b.shape[2] > most.get(type(coupling), 0):
        return False
    sizes = total(np.einsum("ktii->kti", quadratics.A).reshape(-1, quadratics.b.shape[2]))
    used = sizes[sizes > 0.0]
    return bool(len(used)) and float(used.max()) > _RATIO * float(used.min())


def solve(coupling: Coupling, quadratics: Quadratics, strengths: Floats, accuracy: Accuracy) -> Split:
    """Minimise `f(W) + λ R(W)` for each data set and each λ of the strengths (K, L), above 0."""
    (K, T, C), L = quadratics.b.shape, strengths.shape[1]
    found = Split(np.zeros((K, L, T, C)), np.zeros((K, L)), np.zeros((K, L)))
    for k in range(K):
        own = quadratics.of(slice(k, k + 1))
        for i in range(L):
            one = type(coupling)(float(strengths[k, i]), arithmetic=coupling.arithmetic)
            W, value, gap = _Interior(one, own).minimised(accuracy.of(slice(k, k + 1)))
            found.W[k, i], found.value[k, i], found.gap[k, i] = W, value, gap
    return found


@dataclass
class _At:
    """What depends on the root `R` of `Ω = R Rᵀ`: the problem in terms of `u = R⁻¹ w`, and its solution."""

    A: Floats
    b: Floats
    u: Floats
    K: Floats
    P: Floats


class _Interior:
    """The problem of one data set under one coupling with its λ."""

    def __init__(self, coupling: Coupling, quadratics: Quadratics) -> None:
        self._coupling, self._quadratics = coupling, quadratics
        self._A, self._b, c = quadratics.A[0], quadratics.b[0], float(total(quadratics.c[0]))
        self._least = 0.5 * c
        self._diagonal = isinstance(coupling, L21Norm)
        self._bounded = isinstance(coupling, TaskCovariance)
        C = self._b.shape[1]
        sizes = total(np.einsum("tii->ti", self._A)) / len(self._A)
        self._R = np.diag(1.0 / np.sqrt(np.where(sizes > 0.0, sizes, 1.0) * len(self._A)))
        if self._bounded:
            self._R *= np.sqrt(0.5 / np.square(self._R).sum())
        self._mu: float = self._least / C

    def minimised(self, accuracy: Accuracy) -> tuple[Floats, float, float]:
        """Models, objective and gap."""
        W, value = np.zeros(self._b.shape), self._least
        gap = self._gap(W, value)
        for _ in range(_STEPS):
            if (
                accuracy.reached(np.array([[gap]]), np.array([[value]])).all()
                or self._mu <= _LEAST * self._least
            ):
                break
            at = self._here()
            models = matmul(at.u, np.ascontiguousarray(self._R.T))
            if self._step(at) >= _NEAR:
                continue
            better = float(self._quadratics.value(models[None, None])[0, 0]) + self._coupling.penalty(models)
            bound = self._gap(models, better)
            if bound < gap:
                W, value, gap = models, better, bound
            self._mu *= _SHRINK
        return W, value, gap

    def _here(self) -> _At:
        R, strength, eye = self._R, self._coupling.strength, np.eye(len(self._R))
        columns = np.ascontiguousarray(R.T)
        A = matmul(matmul(np.broadcast_to(columns, self._A.shape), self._A), R)
        A = 0.5 * (A + np.swapaxes(A, 1, 2))
        b = matmul(self._b, R)
        G = solving.inverse(A + strength * eye)
        u = matmul(G, b[:, :, None])[:, :, 0]
        K = matmul(A, G) * strength
        return _At(A, b, u, 0.5 * (K + np.swapaxes(K, 1, 2)), matmul(columns, R))

    def _step(self, at: _At) -> float:
        """Go to a better `Ω`; the result is Newton's decrement before it."""
        mu, strength = self._mu, float(self._coupling.strength)
        u, eye = at.u, np.eye(len(self._R))
        slack = 1.0 - float(total(np.diagonal(at.P)))
        pull = (mu / slack if self._bounded else 0.5 * strength) * at.P
        slope = pull - 0.5 * strength * matmul(np.ascontiguousarray(u.T), u) - mu * eye
        values, Q = self._direction(at, slope, mu / slack**2 if self._bounded else 0.0)
        slopes = total(total(Q * matmul(slope, Q), 0) * values)
        decrement = math.sqrt(max(-float(slopes), 0.0) / mu)
        turned = matmul(np.ascontiguousarray(Q.T), np.ascontiguousarray(self._R.T))
        A = matmul(matmul(np.broadcast_to(np.ascontiguousarray(Q.T), at.A.shape), at.A), Q)
        b = matmul(at.b, Q)
        traced = float(total(values * total(turned * turned, 1)))

        def cost(s: float) -> float:
            grown = 1.0 + s * values
            M = A + strength * np.diag(1.0 / grown)
            x = solving.solve(0.5 * (M + np.swapaxes(M, 1, 2)), b[:, :, None])[:, :, 0]
            data = -0.5 * float(total(total(b * x, 1))) - mu * float(total(log(grown)))
            if self._bounded:
                return data - mu * float(log(np.array(slack - s * traced)))
            return data + 0.5 * strength * s * traced

        s = 1.0
        if values.min() < 0.0:
            s = min(s, _INSIDE / -float(values.min()))
        if self._bounded and traced > 0.0:
            s = min(s, _INSIDE * slack / traced)
        before = cost(0.0)
        while s > _SHORTEST and cost(s) > before + _ARMIJO * s * float(slopes) + 1e-12 * abs(before):
            s *= 0.5
        self._R = np.ascontiguousarray(turned.T) * np.sqrt(1.0 + s * values)
        return decrement

    def _direction(self, at: _At, slope: Floats, squared: float) -> tuple[Floats, Floats]:
        """Eigenvalues and eigenvectors of Newton's step `E`, by which `Ω` becomes `R (I + E) Rᵀ`."""
        u, C = at.u, len(self._R)
        if self._diagonal:
            outer = u[:, :, None] * u[:, None, :]
            H = total(at.K * outer) + self._mu * np.eye(C)
            return _solved(H, -np.diag(slope)), np.eye(C)
        i, k = np.triu_indices(C)
        # Entries beside the diagonal stand for two.
        both = np.where(i == k, 1.0, 2.0)
        outer = (u[:, :, None] * u[:, None, :]).reshape(len(u), C * C)
        M = matmul(np.ascontiguousarray(at.K.reshape(len(u), C * C).T), outer)
        M = M.reshape(C, C, C, C).transpose(0, 2, 1, 3)
        M = M + M.transpose(1, 0, 2, 3)
        M = M + M.transpose(0, 1, 3, 2)
        H = 0.25 * M[i, k][:, i, k] * both[:, None] * both + np.diag(self._mu * both)
        if squared:
            traces = both * at.P[i, k]
            H += squared * traces[:, None] * traces
        E = np.empty((C, C))
        E[i, k] = E[k, i] = _solved(0.5 * (H + H.T), -both * slope[i, k])
        return self._coupling.arithmetic.eigh(E)

    def _gap(self, W: Floats, value: float) -> float:
        """How far an objective is at most from the minimum."""
        Z = (self._quadratics.b[:, None] - self._quadratics.products(W[None, None]))[0, 0]
        if self._diagonal:
            size = float(norm(Z).max())
        else:
            size = float(self._coupling.arithmetic.singular_values(Z).max())
        strength = self._coupling.strength
        s, conjugate = min(1.0, strength / size) if size else 1.0, 0.0
        if self._bounded:
            s, conjugate = 1.0, size * size / (2.0 * strength)
        parts = np.array([[value]]), W[None, None], np.array([[s]]), np.array([[conjugate]])
        return max(float(duality_gap(self._quadratics, *parts)[0, 0]), 0.0)


def _solved(H: Floats, right: Floats) -> Floats:
    """The solution of a system whose matrix is positive definite but for rounding."""
    eye = np.eye(len(H))
    ridge = _RIDGE
    while not solving.positive_definite(H + ridge * H * eye)[()]:
        ridge *= 10.0
    solution: Floats = solving.solve(H + ridge * H * eye, right[:, None])[:, 0]
    return solution
