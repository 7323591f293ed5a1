"""Coupled quadratic problems by Douglas–Rachford splitting between the data term and the penalty.

The iteration is `S ← S + prox_f(2H − S) − H` with `H = prox_R(S)`. Both proximal operators are exact and
cheap, and Anderson's method accelerates the iteration (`anderson`). References: Eckstein and Bertsekas, "On
the Douglas–Rachford Splitting Method and the Proximal Point Algorithm for Maximal Monotone Operators",
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

# The most iterations, and the number of iterations between two computations of the gap.
_ITERATIONS, _EVERY = 1500, 5

# If the gap does not halve in this number of iterations, only rounding errors are left, and the iteration
# ends.
_STALLED = 200

# The number of steps that the acceleration combines, by trial on the school data: with 5 of them, it takes
# half as many iterations again.
_MEMORY = 10


class Smooth(Protocol):
    """The data term `f`, as a function of the split variable."""

    def prox(self, X: Floats) -> Floats:
        """`argmin_U f(U) + ½ ρ ‖U − X‖²`, (K, L, parts, N, C)."""

    def models(self, H: Floats) -> Floats:
        """The models (K, L, T, C) that `H` stands for."""


@dataclass(frozen=True, eq=False)
class Split:
    """The result of splitting: models (K, L, T, C), objectives and gaps (K, L)."""

    W: Floats
    value: Floats
    gap: Floats


class Sum:
    """`f` of the sum of `parts` matrices."""

    def __init__(self, quadratics: Quadratics, rho: float, parts: int) -> None:
        self.quadratics, self.rho, self._parts = quadratics, rho, parts
        self._M = Factor(inverse(quadratics.A, rho / parts))

    def prox(self, X: Floats) -> Floats:
        """The prox, which moves all parts alike."""
        given = X[:, :, 0] if self._parts == 1 else total(X, 2)
        best = apply(self._M, self.quadratics.b[:, None] + (self.rho / self._parts) * given)
        if self._parts == 1:
            return best[:, :, None]
        moved: Floats = X + ((best - given) / self._parts)[:, :, None]
        return moved

    def models(self, H: Floats) -> Floats:
        """The sum of the parts."""
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
    """Minimise `f(W) + λ R(W)` for each data set and λ, to the wanted accuracy.

    Parameters
    ----------
    quadratics : Quadratics
    penalty : Penalty
        The penalty on `W`, or on its parts. The call changes it.
    rho : float
        The weight of the splitting, more than 0.
    accuracy : Accuracy
    near : (K, L, T, C) float64 array, optional
        Models from which the iteration starts.
    residuals : bool
        Whether `gap` is the residual times `‖W‖`, for penalties without a dual norm.
    """
    smooth = Sum(quadratics, rho, penalty.parts)
    K, T, C = quadratics.b.shape
    L = len(penalty.strengths)
    S = np.zeros((K, L, penalty.parts, T, C))
    if near is not None:
        # The fixed point if these models were the solution; of two parts, the last one is all of `W`.
        S += ((quadratics.b[:, None] - quadratics.products(near)) / rho)[:, :, None]
        S[:, :, -1] += near

    def certify(H: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        W = smooth.models(H)
        if residuals:
            pull = rho * (total(S, 2) - total(H, 2))
            residual = quadratics.products(W) - quadratics.b[:, None] + pull
            # Models are 0 at first, and the residual times `‖W‖` would then be no bound.
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
    """Iterate until `certify` returns gaps that are small enough; strengths that are done are dropped."""
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
    """The objective at `W`, which `H` stands for, and a bound of its distance from the minimum; (K, L) each.

    The dual point is `s Z` with `Z = −∇f(W)` and the largest permitted `s`. There `f*(−s Z)` is
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
    """`‖e‖·‖W‖` bounds the distance from the minimum, if `W` is no farther from the optimum than from 0."""
    gap: Floats = np.sqrt(squared_norm(residual) * squared_norm(W))
    return gap
