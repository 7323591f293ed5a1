"""Coupled quadratic problems by splitting: data on one side, the penalty's proximal operator on the other.

Douglas and Rachford's splitting, `S ← S + prox_f(2H − S) − H` with `H = prox_R(S)`, each of its two operators
exact and cheap, accelerated by Anderson's method (`anderson`). References: Eckstein and Bertsekas, "On the
Douglas–Rachford Splitting Method and the Proximal Point Algorithm for Maximal Monotone Operators",
Mathematical Programming 55, 1992; Fu, Zhang, Boyd, "Anderson Accelerated Douglas–Rachford Splitting", SIAM J.
Sci. Comput. 42(6), 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asyncdmtl.arithmetic.products import Factor
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.learning.anderson import Anderson
from asyncdmtl.learning.penalties import Penalty, squared_norm
from asyncdmtl.learning.quadratic import Accuracy, Quadratics, apply, inverse

# Iterations at the most, and after how many the gap is looked at.
_ITERATIONS, _EVERY = 1500, 5

# Iterations in which the gap must halve: else rounding is all that is left.
_STALLED = 200

# Steps that acceleration combines: by trial on the school data, where 5 take half as many iterations again.
_MEMORY = 10


class Smooth(Protocol):
    """The side of the data: `f` as a function of what is split."""

    def prox(self, X: Floats) -> Floats:
        """`argmin_U f(U) + ½ ρ ‖U − X‖²`, (K, L, parts, N, C)."""

    def models(self, H: Floats) -> Floats:
        """The models (K, L, T, C) that `H` stands for."""


@dataclass(frozen=True, eq=False)
class Split:
    """Where splitting ended: models (K, L, T, C), objectives and gaps (K, L)."""

    W: Floats
    value: Floats
    gap: Floats


class Sum:
    """`f` of the sum of `parts` matrices."""

    def __init__(self, quadratics: Quadratics, rho: float, parts: int) -> None:
        self.quadratics, self.rho, self._parts = quadratics, rho, parts
        self._M = Factor(inverse(quadratics.A, rho / parts))

    def prox(self, X: Floats) -> Floats:
        """All parts moved alike."""
        given = X[:, :, 0] if self._parts == 1 else total(X, 2)
        best = apply(self._M, self.quadratics.b[:, None] + (self.rho / self._parts) * given)
        if self._parts == 1:
            return best[:, :, None]
        moved: Floats = X + ((best - given) / self._parts)[:, :, None]
        return moved

    def models(self, H: Floats) -> Floats:
        """The sum."""
        return H[:, :, 0] if self._parts == 1 else total(H, 2)


def split(
    quadratics: Quadratics,
    penalty: Penalty,
    rho: float,
    accuracy: Accuracy,
    near: Floats | None = None,
    *,
    residuals: bool = False,
) -> Split:
    """Minimise `f(W) + λ R(W)` for each data set and λ, to a duality gap that will do.

    Parameters
    ----------
    quadratics : Quadratics
    penalty : Penalty
        Of norms of `W`, or of its parts; it is used up.
    rho : float
        Weight of the splitting, more than 0.
    accuracy : Accuracy
    near : (K, L, T, C) float64 array, optional
        Models from which to begin.
    residuals : bool
        Whether `gap` is the residual times `‖W‖`, for penalties without a dual norm.
    """
    smooth = Sum(quadratics, rho, penalty.parts)
    K, T, C = quadratics.b.shape
    L = len(penalty.strengths)
    S = np.zeros((K, L, penalty.parts, T, C))
    if near is not None:
        # Where it would rest if these were the solution; of parts the last one is all of it.
        S += ((quadratics.b[:, None] - quadratics.products(near)) / rho)[:, :, None]
        S[:, :, -1] += near

    def certify(H: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        W = smooth.models(H)
        if residuals:
            pull = rho * (total(S, 2) - total(H, 2))
            residual = quadratics.products(W) - quadratics.b[:, None] + pull
            # Models are 0 at first, and would bound nothing.
            gap = residual_gap(residual, W) + residual_gap(residual, quadratics.b[:, None] / quadratics.scale)
            return W, quadratics.value(W) + penalty.value(H), gap
        return (W, *duality_gap(quadratics, penalty, H, W))

    return iterate(smooth.prox, penalty, rho, S, accuracy, certify)


def iterate(
    prox: Callable[[Floats], Floats],
    penalty: Penalty,
    rho: float,
    S: Floats,
    accuracy: Accuracy,
    certify: Callable[[Floats, Floats, Penalty], tuple[Floats, Floats, Floats]],
) -> Split:
    """The iteration, until `certify` gives values and gaps that will do; strengths that are done rest."""
    K, L = S.shape[:2]
    ended: list[tuple[Floats, Floats, Floats] | None] = [None] * L
    active: Indices = np.arange(L)
    before = np.full(L, np.inf)
    anderson = Anderson(K * L, int(np.prod(S.shape[2:])), _MEMORY)
    for iteration in range(_ITERATIONS + 1):
        H = penalty.prox(S, 1.0 / rho)
        if iteration % _EVERY == 0:
            W, value, gap = certify(H, S, penalty)
            done = accuracy.reached(gap, value).all(axis=0) | (iteration == _ITERATIONS)
            if iteration % _STALLED == 0:
                largest = gap.max(axis=0)
                done |= largest > 0.5 * before[active]
                before[active] = largest
            for i in np.flatnonzero(done):
                ended[active[i]] = W[:, i], value[:, i], gap[:, i]
            if done.all():
                break
            if done.any():
                left = np.logical_not(done)
                active, S, H = active[left], S[:, left], H[:, left]
                penalty.keep(left)
                anderson.keep(np.tile(left, K))
        result = S + prox(2.0 * H - S) - H
        flat = S.shape[0] * S.shape[1], -1
        S = anderson.next(S.reshape(flat), result.reshape(flat)).reshape(S.shape)
    found = [part for part in ended if part is not None]
    return Split(*(np.stack([part[i] for part in found], axis=1) for i in range(3)))


def duality_gap(quadratics: Quadratics, penalty: Penalty, H: Floats, W: Floats) -> tuple[Floats, Floats]:
    """The objective at `W`, which `H` stands for, and how far it is above the least at the most; (K, L) each.

    The dual point is `s Z` with `Z = −∇f(W)`, `s` as large as it may be. There `f*(−s Z)` is
    `½ ‖s W + (1 − s) Ŵ‖²` in the norm of the `A_t`, `Ŵ` the least-squares models, and `Ŵᵀ A Ŵ ≤ c`.
    """
    AW = quadratics.products(W)
    value = quadratics.value(W, AW) + penalty.value(H)
    s, conjugate = penalty.dual(quadratics.b[:, None] - AW)
    c = total(quadratics.c, 1)[:, None]
    WAW, Wb = (total(total(W * M, 3), 2) for M in (AW, quadratics.b[:, None]))
    rest = 1.0 - s
    smooth = 0.5 * (s * s * WAW + 2.0 * s * rest * Wb + rest * rest * c) - 0.5 * c
    return value, value + smooth + conjugate


def residual_gap(residual: Floats, W: Floats) -> Floats:
    """`‖e‖·‖W‖`: how far an objective is above its least, if `W` is no farther from there than from 0."""
    gap: Floats = np.sqrt(squared_norm(residual) * squared_norm(W))
    return gap
