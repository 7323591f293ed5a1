"""Coupled quadratic problems with a quadratic penalty, or none: one linear system, solved directly.

`A_t w_t + λ Σ_s L_ts w_s = b_t` with the Laplacian `L` of a graph of tasks. If rows are fewer than columns,
the system may be singular. It is solved with `δ` added to the diagonal, and iterative refinement removes the
effect of `δ`. That keeps models in the range of the data, so that of all solutions the shortest is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import solving
from asyncdmtl.arithmetic.kinds import Arithmetic
from asyncdmtl.arithmetic.products import Factor, matmul
from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.quadratic import Accuracy, Quadratics, inverse
from asyncdmtl.learning.second_derivatives import apply

Solver = Callable[[Floats], Floats]

# `δ`, as a share of the mean diagonal; less for far smaller columns (`column_shares`). A smaller share would
# magnify rounding errors in directions in which the data have no variance; a larger one would need many
# refinements in directions with little variance.
RIDGE = 1e-9

# The most refinements. Each leaves `δ / (δ + μ)` of the error along an eigenvector of eigenvalue `μ`.
_REFINEMENTS = 20

# The most steps of conjugate gradients. For λ within `_TOGETHER` of each other, each step removes 0.7 of the
# error.
_STEPS, _TOGETHER = 60, 12.0

# The share of the wanted accuracy at which conjugate gradients end: held-out losses depend on the root of a
# gap.
_SHARE = 1e-3

# The smallest relative accuracy for which conjugate gradients are cheaper than a system for each λ.
_LOOSE = 1e-6


def apart(quadratics: Quadratics) -> Floats:
    """The models if every task is solved alone: (K, T, C)."""
    # By Cholesky's factor: where `A` is singular, sweeping would magnify rounding errors by 1 / `RIDGE`.
    eye, ridge = np.eye(quadratics.b.shape[2]), np.diag(RIDGE * quadratics.scale * quadratics.shares)
    while not solving.positive_definite(quadratics.A + ridge).all():
        # Statistics of folds have single precision, which leaves matrices slightly indefinite.
        ridge *= 10.0
    M = Factor(solving.solve(quadratics.A + ridge, np.broadcast_to(eye, quadratics.A.shape)))
    return _refined(quadratics, lambda R: apply(M, R), lambda W: np.zeros_like(W), 1)[:, 0]


def together(quadratics: Quadratics) -> Floats:
    """The models if all tasks share one: (K, T, C), with equal rows."""
    pooled = Quadratics(
        total(quadratics.A, 1)[:, None], total(quadratics.b, 1)[:, None], total(quadratics.c, 1)[:, None]
    )
    return np.broadcast_to(apart(pooled), quadratics.b.shape).copy()


def near_mean(quadratics: Quadratics, strengths: Floats, accuracy: Accuracy) -> Floats:
    """`½ λ Σ_t ‖w_t − w̄‖²`, of every λ > 0 of the strengths (K, L): (K, L, T, C).

    Each λ has a system of its own, unless the wanted accuracy is so low that sharing one is faster, see
    `_near_middle`.
    """
    L = strengths.shape[1]
    if L == 1 or accuracy.relative < _LOOSE:
        found = []
        for i in range(L):
            solve = MeanSystem(quadratics, strengths[:, i]).solve
            drawn = partial(_from_mean, strengths=strengths[:, i : i + 1])
            found.append(_refined(quadratics, solve, drawn, 1)[:, 0])
        return np.stack(found, axis=1)
    W = np.empty((len(quadratics.b), L, *quadratics.b.shape[1:]))
    left, largest = np.ones(L, np.bool_), strengths.max(axis=0)
    while left.any():
        group = left & (largest >= largest[left].max() / _TOGETHER)
        W[:, group] = _near_middle(quadratics, strengths[:, group], accuracy)
        left &= ~group
    return W


def towards_zero(quadratics: Quadratics, strengths: Floats, arithmetic: Arithmetic) -> Floats:
    """`½ λ Σ_t ‖w_t‖²`, of every λ > 0 of the strengths (K, L): (K, L, T, C).

    Several λ share the eigenvectors of the matrices.
    """
    L, C = strengths.shape[1], quadratics.b.shape[2]
    if L == 1:
        ridge = strengths[:, :, None, None] * np.eye(C)
        return apart(Quadratics(quadratics.A + ridge, quadratics.b, quadratics.c))[:, None]
    # Statistics of folds have single precision, which leaves matrices slightly indefinite.
    values, V = quadratics.spectra(arithmetic)
    shrunk = 1.0 / (np.maximum(values, 0.0)[:, None] + strengths[:, :, None, None])
    back, forth = Factor(V), Factor(np.ascontiguousarray(np.swapaxes(V, -1, -2)))

    def drawn(W: Floats) -> Floats:
        return strengths[:, :, None, None] * W

    return _refined(quadratics, lambda R: apply(back, shrunk * apply(forth, R)), drawn, L)


def _from_mean(W: Floats, strengths: Floats) -> Floats:
    """`λ (w_t − w̄)` for every λ of the strengths (K, L)."""
    drawn: Floats = strengths[:, :, None, None] * (W - mean(W, 2)[:, :, None])
    return drawn


def _near_middle(quadratics: Quadratics, strengths: Floats, accuracy: Accuracy) -> Floats:
    """Solve by conjugate gradients for all λ at once, preconditioned with the system of the middle λ.

    With the residual `r` and the preconditioned residual `z`, the objective is at most `½ rᵀz` above its
    minimum, or `middle / λ` times that for smaller λ.
    """
    middle = np.sqrt(strengths.min(axis=1)) * np.sqrt(strengths.max(axis=1))
    system = MeanSystem(quadratics, middle)
    share = np.maximum(middle[:, None] / strengths, 1.0)
    b, c = quadratics.b[:, None], total(quadratics.c, 1)[:, None]
    W = np.zeros((len(b), strengths.shape[1], *quadratics.b.shape[1:]))
    residual = np.broadcast_to(b, W.shape)
    direction, before = np.zeros_like(W), np.ones(W.shape[:2])
    for _ in range(_STEPS):
        z = system.solve(residual)
        gained = _products(residual, z)
        value = 0.5 * (c - _products(W, residual + b))
        if accuracy.reached(0.5 * share * gained / _SHARE, value).all():
            break
        direction = z + (gained / before)[:, :, None, None] * direction
        before = np.where(gained > 0.0, gained, 1.0)
        steep = quadratics.products(direction) + _from_mean(direction, strengths)
        curved = _products(direction, steep)
        step = (np.where(curved > 0.0, gained, 0.0) / np.where(curved > 0.0, curved, 1.0))[:, :, None, None]
        W, residual = W + step * direction, residual - step * steep
    return W


def _products(V: Floats, W: Floats) -> Floats:
    """Scalar products (K, L) of arrays (K, L, T, C)."""
    return total(total(V * W, 3), 2)


class MeanSystem:
    """Solves `(A_t + δ) w_t + λ (w_t − w̄) = r_t` for a λ > 0: first for the mean `w̄`, then for each `w_t`.

    `strengths` (K,) has the λ of each data set; `ridge` is `δ` in units of the mean diagonal of its `A_t`, of
    columns of usual sizes.
    """

    def __init__(self, quadratics: Quadratics, strengths: Floats, ridge: float = RIDGE) -> None:
        self._strengths = strengths[:, None, None, None]
        ridges = ridge * quadratics.scales[:, None] * quadratics.shares
        eye = np.eye(quadratics.b.shape[2])
        M = inverse(quadratics.A + ridges[:, None, :, None] * eye, strengths[:, None])
        # `mean (A + δ) M` equals `I − λ mean M`, but without cancellation. It is made symmetric to the last
        # bit.
        K, T, C = quadratics.b.shape
        side_by_side = np.ascontiguousarray(quadratics.A.transpose(0, 2, 1, 3)).reshape(K, C, T * C)
        kept = matmul(side_by_side, M.reshape(K, T * C, C)) / T + ridges[:, :, None] * mean(M, 1)
        self._M = Factor(M)
        self._means = inverse(0.5 * (kept + np.swapaxes(kept, -1, -2)), 0.0)

    def of(self, chosen: NDArray[np.bool_]) -> MeanSystem:
        """The system of some of the data sets."""
        part = copy(self)
        part._strengths, part._M, part._means = (
            self._strengths[chosen],
            self._M.of(chosen),
            self._means[chosen],
        )
        return part

    def solve(self, R: Floats) -> Floats:
        """The solution `W` for right-hand sides `R`; both are (K, L, T, C)."""
        alone = apply(self._M, R)
        centre = apply(self._means[:, None], mean(alone, 2)[:, :, None])
        moved: Floats = alone + self._strengths * apply(self._M, np.broadcast_to(centre, R.shape))
        return moved


@dataclass(frozen=True)
class Elimination:
    """An order in which the nodes of a graph are eliminated, with the remaining neighbours of each node.

    `blocks` is the number of blocks (C, C) that the elimination updates: its cost.
    """

    steps: tuple[tuple[int, tuple[int, ...]], ...]
    blocks: int


def elimination(tasks: int, edges: Sequence[tuple[int, int, float]]) -> Elimination:
    """The order in which the node with the fewest remaining neighbours always comes next (minimum degree)."""
    near: list[set[int]] = [set() for _ in range(tasks)]
    for s, t, _ in edges:
        near[s].add(t)
        near[t].add(s)
    left, steps, blocks = set(range(tasks)), [], 0
    while left:
        v = min(left, key=lambda u: (len(near[u]), u))
        left.remove(v)
        around = tuple(sorted(near[v]))
        for u in around:
            near[u] |= near[v] - {u}
            near[u].discard(v)
        steps.append((v, around))
        blocks += len(around) * (len(around) + 1) // 2
    return Elimination(tuple(steps), blocks)


def along_edges(
    quadratics: Quadratics, strengths: Floats, edges: Sequence[tuple[int, int, float]], order: Elimination
) -> Floats:
    """The models under `½ λ Σ_{(s,t)} a_st ‖w_s − w_t‖²`, for every λ > 0 of (K, L): (K, L, T, C)."""
    system = _EdgeSystem(quadratics, strengths, edges, order)

    def drawn(W: Floats) -> Floats:
        pulls = np.zeros_like(W)
        for s, t, weight in edges:
            pull = (weight * strengths)[:, :, None] * (W[:, :, s] - W[:, :, t])
            pulls[:, :, s] += pull
            pulls[:, :, t] -= pull
        return pulls

    return _refined(quadratics, system.solve, drawn, strengths.shape[1])


class _EdgeSystem:
    """Block Cholesky factors without roots: `D_v⁻¹` of each node, and the factors of its neighbours."""

    def __init__(
        self,
        quadratics: Quadratics,
        strengths: Floats,
        edges: Sequence[tuple[int, int, float]],
        order: Elimination,
    ) -> None:
        K, T, C = quadratics.b.shape
        degrees = np.zeros(T)
        for s, t, weight in edges:
            degrees[s] += weight
            degrees[t] += weight
        pull = strengths[:, :, None, None] * np.eye(C)
        # Pivots are differences of terms as large as these, so that `δ` must be relative to them.
        columns = quadratics.scales[:, None, None] * quadratics.shares
        ridge = RIDGE * (columns + strengths[:, :, None] * degrees.max())[..., None] * np.eye(C)
        D = [quadratics.A[:, None, v] + ridge + degrees[v] * pull for v in range(T)]
        E = {}
        for s, t, weight in edges:
            E[s, t] = E[t, s] = np.broadcast_to(-weight * pull, (K, strengths.shape[1], C, C))
        self._steps: list[tuple[int, Floats, list[tuple[int, Floats]]]] = []
        for v, around in order.steps:
            inverted = inverse(D[v], 0.0)
            factors = [(u, matmul(E[u, v], inverted)) for u in around]
            for i, (u, factor) in enumerate(factors):
                change = matmul(factor, E[v, u])
                D[u] = D[u] - 0.5 * (change + np.swapaxes(change, -1, -2))
                for w in around[i + 1 :]:
                    change = matmul(factor, E[v, w])
                    E[u, w] = E[u, w] - change if (u, w) in E else -change
                    E[w, u] = np.swapaxes(E[u, w], -1, -2)
            self._steps.append((v, inverted, factors))

    def solve(self, R: Floats) -> Floats:
        """The solution `W` for right-hand sides `R`; both are (K, L, T, C)."""
        left = [R[:, :, v] for v in range(R.shape[2])]
        for v, _, factors in self._steps:
            for u, factor in factors:
                left[u] = left[u] - matmul(factor, left[v][..., None])[..., 0]
        W = np.empty_like(R)
        for v, inverted, factors in reversed(self._steps):
            w = matmul(inverted, left[v][..., None])[..., 0]
            for u, factor in factors:
                w = w - matmul(np.swapaxes(factor, -1, -2), W[:, :, u, :, None])[..., 0]
            W[:, :, v] = w
        return W


def _refined(quadratics: Quadratics, solve: Solver, drawn: Solver, strengths: int) -> Floats:
    """The solution (K, L, T, C) of `A_t w_t + drawn(W) = b_t`, by refinement with the approximate `solve`."""
    K, T, C = quadratics.b.shape
    W, scales = np.zeros((K, strengths, T, C)), np.sqrt(quadratics.shares)
    residual = np.broadcast_to(quadratics.b[:, None], W.shape).copy()
    size = float(np.abs(residual / scales).max(initial=0.0))
    for _ in range(_REFINEMENTS):
        better = W + solve(residual)
        after = quadratics.b[:, None] - quadratics.products(better) - drawn(better)
        left = float(np.abs(after / scales).max(initial=0.0))
        if not left < size:
            break
        W, residual, done, size = better, after, left > 0.5 * size, left
        if done or left == 0.0:
            break
    return W
