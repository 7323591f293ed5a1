"""Coupled quadratic problems by Douglas–Rachford splitting between the data term and the penalty.

The iteration is `S ← S + prox_f(2H − S) − H` with `H = prox_R(S)`. Both proximal operators are exact and
cheap, and Anderson's method accelerates the iteration (`anderson`). References: Eckstein and Bertsekas, "On
the Douglas–Rachford Splitting Method and the Proximal Point Algorithm for Maximal Monotone Operators",
Mathematical Programming 55, 1992; Fu, Zhang, Boyd, "Anderson Accelerated Douglas–Rachford Splitting", SIAM J.
Sci. Comput. 42(6), 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.anderson import Anderson
from asyncdmtl.learning.penalties import Penalty, squared_norm
from asyncdmtl.learning.quadratic import Accuracy, QuadraticTerms

# The most iterations, and the number of iterations between two computations of the gap.
_ITERATIONS, _EVERY = 1500, 3

# If the gap does not halve in this number of iterations, only rounding errors are left, and the iteration
# ends. It is a multiple of `_EVERY`, since only then a gap is known.
_STALLED = 201

# The number of steps that the acceleration combines, by trial on the school data: with 5 of them, it takes
# half as many iterations again.
_MEMORY = 10


class Smooth(Protocol):
    """The data term `f`, as a function of the split variable."""

    def prox(self, X: Floats) -> Floats:
        """`argmin_U f(U) + ½ ρ ‖U − X‖²`, (K, L, parts, N, C)."""

    def certified(self, H: Floats, U: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        """Models (K, L, T, C), their objectives and gaps (K, L).

        `S` is the point from which an iteration goes, `H` the prox of the penalty there, and `U` the result
        of `prox` at `2H − S`.
        """

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Keep only some of the `K` data sets."""


@dataclass(frozen=True, eq=False)
class Split:
    """The result of splitting: models (K, L, T, C), objectives and gaps (K, L)."""

    W: Floats
    value: Floats
    gap: Floats


class Sum:
    """`f` of the sum of `parts` matrices, with a gap by duality.

    Parameters
    ----------
    quadratics : QuadraticTerms
    rho : (K,) float64 array
        The weights of the splitting, above 0.
    parts : int
    """

    def __init__(self, quadratics: QuadraticTerms, rho: Floats, parts: int) -> None:
        self._quadratics, self._rho, self._parts = quadratics, rho, parts
        self._M = quadratics.resolvent(rho / parts)

    def prox(self, X: Floats) -> Floats:
        """The prox, which moves all parts alike."""
        given = self.models(X)
        pull = (self._rho / self._parts)[:, None, None, None]
        best = self._M.times(self._quadratics.b[:, None] + pull * given)
        if self._parts == 1:
            return best[:, :, None]
        moved: Floats = X + ((best - given) / self._parts)[:, :, None]
        return moved

    def models(self, H: Floats) -> Floats:
        """The sum of the parts."""
        return H[:, :, 0] if self._parts == 1 else total(H, 2)

    def certified(self, H: Floats, U: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        """The sum of the parts `H`, with the dual point of `U`.

        There `−∇f(U) = ρ (U − 2H + S)` is the subgradient `ρ (S − H)` of the penalty plus `ρ (U − H)`.
        """
        W, quadratics = self.models(H), self._quadratics
        value = quadratics.value(W) + penalty.value(H)
        s, conjugate = penalty.dual_near(self._rho[:, None, None, None, None] * (U - H))
        return W, value, duality_gap(quadratics, value, self.models(U), s, conjugate)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Keep some of the data sets."""
        self._quadratics, self._rho, self._M = self._quadratics.of(rows), self._rho[rows], self._M.of(rows)


class SmoothSum(Sum):
    """`f` of one matrix, with the residual times `‖W‖` as gap, for penalties without a dual norm."""

    def certified(self, H: Floats, U: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        """The matrix `H`, with its residual."""
        W, quadratics = self.models(H), self._quadratics
        b, pull = quadratics.b[:, None], self._rho[:, None, None, None] * (S - H)[:, :, 0]
        residual = quadratics.products(W) - b + pull
        # Models are 0 at first, and the residual times `‖W‖` would then be no bound.
        gap = residual_gap(residual, W) + residual_gap(residual, b / quadratics.scales[:, None, None, None])
        return W, quadratics.value(W) + penalty.value(H), gap


def split(
    quadratics: QuadraticTerms,
    penalty: Penalty,
    rho: Floats,
    accuracy: Accuracy,
    near: Floats | None = None,
    *,
    residuals: bool = False,
) -> Split:
    """Minimise `f(W) + λ R(W)` for each data set and λ, to the wanted accuracy.

    Parameters
    ----------
    quadratics : QuadraticTerms
    penalty : Penalty
        The penalty on `W`, or on its parts. The call changes it.
    rho : (K,) float64 array
        The weights of the splitting, above 0.
    accuracy : Accuracy
    near : (K, L, T, C) float64 array, optional
        Models from which the iteration starts.
    residuals : bool
        Whether `gap` is the residual times `‖W‖`, for penalties without a dual norm.
    """
    smooth = (SmoothSum if residuals else Sum)(quadratics, rho, penalty.parts)
    K, T, C = quadratics.b.shape
    S = np.zeros((K, penalty.strengths.shape[1], penalty.parts, T, C))
    if near is not None:
        # The fixed point if these models were the solution; of two parts, the last one is all of `W`.
        downhill = quadratics.b[:, None] - quadratics.products(near)
        S += (downhill / rho[:, None, None, None])[:, :, None]
        S[:, :, -1] += near
    return iterate(smooth, penalty, rho, S, accuracy)


def iterate(smooth: Smooth, penalty: Penalty, rho: Floats, S: Floats, accuracy: Accuracy) -> Split:
    """Iterate from `S` (K, L, parts, N, C) until gaps are small enough.

    Data sets that are done for all strengths are dropped on the way, and strengths for all data sets.
    """
    shape = K, L = S.shape[:2]
    rows, columns = np.arange(K), np.arange(L)
    ended: Split | None = None
    before = np.full(shape, np.inf)
    anderson = Anderson(K * L, int(np.prod(S.shape[2:])), _MEMORY)
    for iteration in range(_ITERATIONS + 1):
        H = penalty.prox(S, 1.0 / rho[:, None])
        U = smooth.prox(2.0 * H - S)
        if iteration % _EVERY == 0 or iteration == _ITERATIONS:
            W, value, gap = smooth.certified(H, U, S, penalty)
            here = np.ix_(rows, columns)
            ended = ended or Split(np.empty((*shape, *W.shape[2:])), np.empty(shape), np.empty(shape))
            ended.W[here], ended.value[here], ended.gap[here] = W, value, gap
            done = accuracy.reached(gap, value) | (iteration == _ITERATIONS)
            if iteration % _STALLED == 0:
                done |= gap > 0.5 * before[here]
                before[here] = gap
            if done.all():
                break
            left, on = np.logical_not(done.all(axis=1)), np.logical_not(done.all(axis=0))
            if not (left.all() and on.all()):
                rows, columns = rows[left], columns[on]
                S, H, U = (part[left][:, on] for part in (S, H, U))
                rho, accuracy = rho[left], accuracy.of(left)
                penalty.keep(left, on)
                smooth.keep(left)
                anderson.keep((left[:, None] & on).reshape(-1))
        result = S + U - H
        flat = len(rows) * len(columns), -1
        S = anderson.next(S.reshape(flat), result.reshape(flat)).reshape(S.shape)
    assert ended is not None
    return ended


def duality_gap(quadratics: QuadraticTerms, value: Floats, V: Floats, s: Floats, conjugate: Floats) -> Floats:
    """How far (K, L) the objectives `value` are at most from the minimum.

    The dual point is `s Z` with `Z = −∇f(V)` at some models `V` (K, L, T, C); `conjugate` is that of the
    penalty there. `f*(−s Z)` is `½ ‖s V + (1 − s) Ŵ‖²` in the norm of the `A_t`, `Ŵ` the least-squares
    models, and `Ŵᵀ A Ŵ ≤ c`.
    """
    c = total(quadratics.c, 1)[:, None]
    VAV, Vb = (total(total(V * M, 3), 2) for M in (quadratics.products(V), quadratics.b[:, None]))
    rest = 1.0 - s
    gap: Floats = value + 0.5 * (s * s * VAV + 2.0 * s * rest * Vb + rest * rest * c) - 0.5 * c + conjugate
    return gap


def residual_gap(residual: Floats, W: Floats) -> Floats:
    """`‖e‖·‖W‖` bounds the distance from the minimum, if `W` is no farther from the optimum than from 0."""
    gap: Floats = np.sqrt(squared_norm(residual) * squared_norm(W))
    return gap
