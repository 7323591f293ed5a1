"""Iterative proximal operators: sparse plus low-rank, and clustered.

All matrices are (T, features) float64. A result has a fixed accuracy and depends only on its arguments.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from asyncdmtl.arithmetic.kinds import REPRODUCIBLE, Arithmetic
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.solving import positive_definite, qr, solve
from asyncdmtl.arithmetic.sums import norm, sum_of_all, sum_of_squares, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.singular_values import singular_values

# The accuracy of the clustered prox, relative to the largest entry of W. Rounding permits no better.
_ACCURACY = 1e-12

# The most iterations of the clustered prox.
_ITERATIONS = 10_000

# The most iterations of the sparse-low-rank prox; its docstring has the usual numbers.
_STEPS = 2_000

# The accuracy of the sparse-low-rank prox, relative to the largest entry of W.
_PROX_ACCURACY = 1e-10

# The most iterations of the sparse-low-rank split.
_SPLIT_STEPS = 500

# Iterations of the split between two computations of its duality gap, which costs as much as one iteration.
_SPLIT_EVERY = 10

# The weight of the Douglas–Rachford iteration that finds the split, by trial on the digits and school data.
_SPLIT_WEIGHT = 0.1

# The duality gap at which the split is accepted, relative to its value.
_GAP = 1e-6


# The number of earlier steps that the acceleration combines, by trial on the digits and school data.
_MEMORY = 6


def sparse_low_rank_prox(W: Floats, mu: float, rho: float, arithmetic: Arithmetic = REPRODUCIBLE) -> Floats:
    """`argmin_U ½ ‖U − W‖_F² + μ min_{P+Q=U} (ρ ‖P‖₁ + ‖Q‖_*)`.

    By Moreau's identity it is `W − G`, where `G` is the point nearest to `W` in the intersection of `{‖G‖₂ ≤
    μ}` and `{|G_ij| ≤ μρ}`. The iteration ends when no entry of `W − G` is farther from the normal cone at
    `G` than 1e-10 of the largest entry of `W`. That takes 10 to 50 iterations if `μ` is about a tenth of
    `‖W‖₂`, and hundreds if it is a thousandth. It ends after 2,000 in any case, which are needed only for a
    `μ` that hardly changes `W`. The memory is about 20 matrices of the size of `W`.
    """
    largest = float(np.abs(W).max())
    # No entry of W changes by more than μρ, which here is below rounding. (W may be 0.)
    if mu * rho <= 1e-17 * largest or largest == 0.0:
        return W
    V, radius = W / largest, mu / largest
    spectral = float(singular_values(V, arithmetic)[0])
    if spectral <= radius and rho * radius >= 1.0:
        return np.zeros_like(W)
    # The best weight by trial: the geometric mean of the weights for large and for small singular values.
    beta = max(1.0, math.sqrt(spectral / radius))
    H = np.zeros_like(V)
    for S, step in islice(_accelerated(_meeting(V, 1.0, radius, rho, beta, arithmetic), H), _STEPS):
        H = np.clip(S, -rho * radius, rho * radius)
        if beta * np.abs(step).max() <= _PROX_ACCURACY:
            break
    prox: Floats = W - H * largest
    return prox


def sparse_low_rank_split(
    W: Floats, rho: float, arithmetic: Arithmetic = REPRODUCIBLE
) -> tuple[Floats, Floats]:
    """`P`, `Q` with `P + Q = W` that nearly minimise `ρ ‖P‖₁ + ‖Q‖_*`.

    The iteration ends when that value exceeds its dual lower bound, the maximum of `⟨G, W⟩` over `‖G‖₂ ≤ 1`
    and `|G_ij| ≤ ρ`, by at most 1e-6 of itself. That takes 20 to 500 iterations; it ends after 500 in any
    case. For a large `W` whose split is far from unique, a gap of 1e-5 may remain.
    """
    scale = float(singular_values(W, arithmetic)[0])
    if scale == 0.0:
        return W, W
    W = W / scale
    upper, lower, best = np.inf, 0.0, W
    beta = _SPLIT_WEIGHT * float(np.abs(W).max())
    steps = _accelerated(_meeting(W, 0.0, 1.0, rho, beta, arithmetic), np.zeros_like(W))
    for S, step in islice(steps, 0, _SPLIT_STEPS, _SPLIT_EVERY):
        H = np.clip(S, -rho, rho)
        # At the optimum this is the sparse part: the projection on the box removes it from S.
        P = beta * (S - H)
        value = rho * sum_of_all(np.abs(P)) + sum_of_all(singular_values(W - P, arithmetic))
        if value < upper:
            upper, best = value, P
        lower = max(lower, sum_of_all(H * W) / max(1.0, float(singular_values(H, arithmetic)[0])))
        if upper - lower <= _GAP * upper or not step.any():
            break
    return best * scale, (W - best) * scale


def pair_differences(W: Floats) -> Floats:
    """`w_s − w_t` for all `s < t`, one after another: (features, T(T−1)/2)."""
    T, features = W.shape
    models = np.ascontiguousarray(W.T)
    differences = np.empty((features, T * (T - 1) // 2))
    for s, pairs in enumerate(_pairs(T)):
        np.subtract(models[:, s, None], models[:, s + 1 :], out=differences[:, pairs])
    return differences


def clustered_prox(W: Floats, mu: float) -> Floats:
    """`argmin_U ½ ‖U − W‖_F² + μ Σ_{s<t} ‖u_s − u_t‖₂`.

    Projected gradient on the dual, one vector of length at most `μ` for each pair (the alternating
    minimisation of Chi and Lange, "Splitting Methods for Convex Clustering", JCGS 24(4), 2015), accelerated
    and restarted when it overshoots (O'Donoghue and Candès, Foundations of Computational Mathematics
    15(3), 2015). The iteration ends when a step moves no vector, in units of `W`, by more than 1e-12 of the
    largest entry of `W`.
    """
    T, features = W.shape
    if T == 1 or mu == 0.0:
        return W
    if features > T:
        # Lengths do not depend on the basis, and T directions span all models.
        Q, R = qr(W.T)
        return matmul(clustered_prox(R.T, mu), Q.T)
    tolerance = _ACCURACY * float(np.abs(W).max()) / T
    Z = Y = np.zeros((features, T * (T - 1) // 2))
    momentum = 1.0
    for _ in range(_ITERATIONS):
        # 1/T: the inverse of the largest eigenvalue of the complete graph's Laplacian.
        moved = Y + pair_differences(W - _of_tasks(Y, T)) / T
        moved *= np.minimum(1.0, mu / np.maximum(norm(moved), mu))
        if np.abs(moved - Y).max() <= tolerance:
            Z = moved
            break
        if sum_of_all((Y - moved) * (moved - Z)) > 0.0:
            momentum = 1.0
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum * momentum))
        Y = moved + (momentum - 1.0) / following * (moved - Z)
        Z, momentum = moved, following
    prox: Floats = W - _of_tasks(Z, T)
    return prox


def _of_tasks(pairs: Floats, tasks: int) -> Floats:
    """(T, features): the vector of each pair `(s, t)` is added to row `s` and subtracted from row `t`."""
    added = np.zeros((len(pairs), tasks))
    for s, own in enumerate(_pairs(tasks)):
        added[:, s] += total(pairs[:, own], 1)
        added[:, s + 1 :] -= pairs[:, own]
    return np.ascontiguousarray(added.T)


def _pairs(tasks: int) -> Iterator[slice]:
    """For every task, the positions of its pairs with all later tasks."""
    start = 0
    for s in range(tasks):
        yield slice(start, start + tasks - 1 - s)
        start += tasks - 1 - s


def _meeting(
    W: Floats, gamma: float, radius: float, rho: float, beta: float, arithmetic: Arithmetic
) -> Callable[[Floats], Floats]:
    """A non-expansive map `S → S + G − H` whose fixed points maximise `⟨H, W⟩ − ½ γ ‖H‖²`.

    The maximum is over the `H` in both the ball `‖H‖₂ ≤ radius` and the box `|H_ij| ≤ ρ·radius`. The map is
    Douglas and Rachford's splitting with weight `β` (Eckstein and Bertsekas, Mathematical Programming 55,
    1992); `H` is the projection of `S` on the box, and `G` is a point of the ball.
    """

    def move(S: Floats) -> Floats:
        H = np.clip(S, -rho * radius, rho * radius)
        moved: Floats = S - H + _into_ball((W + beta * (2.0 * H - S)) / (gamma + beta), radius, arithmetic)
        return moved

    return move


def _into_ball(M: Floats, radius: float, arithmetic: Arithmetic) -> Floats:
    """The matrix with `‖·‖₂ ≤ radius` nearest to `M`: larger singular values are cut off.

    It is computed from the smaller Gram matrix. That squares the condition number, but affects only small
    singular values, which are not changed here.
    """
    wide = len(M) < M.shape[1]
    squares, V = arithmetic.eigh(arithmetic.gram(M if wide else M.T))
    large = squares > radius * radius
    V = V[:, large]
    excess = V * (1.0 - radius / np.sqrt(squares[large]))
    product = arithmetic.matmul
    projected: Floats = M - (product(excess, product(V.T, M)) if wide else product(product(M, V), excess.T))
    return projected


def _accelerated(move: Callable[[Floats], Floats], x: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Accelerated iteration to a fixed point `x = move(x)` of a non-expansive map.

    Each iteration yields `x` and the step `move(x) − x`. Anderson's acceleration: the next `x` is the affine
    combination of the last results of `move` whose steps nearly cancel (Walker and Ni, "Anderson Acceleration
    for Fixed-Point Iterations", SIAM J. Numer. Anal. 49(4), 2011). If a step is longer than the one before,
    the iteration continues from the last result instead, as unaccelerated steps never get longer.
    """
    results: deque[Floats] = deque(maxlen=_MEMORY + 1)
    steps: deque[Floats] = deque(maxlen=_MEMORY + 1)
    length = np.inf
    while True:
        result = move(x)
        step = result - x
        yield x, step
        before, length = length, float(norm(step.reshape(-1)))
        if length > before and len(steps) > 1:
            x, length = results[-1], np.inf
            results.clear()
            steps.clear()
        else:
            results.append(result)
            steps.append(step)
            x = _cancelling(results, steps)


def _cancelling(results: Sequence[Floats], steps: Sequence[Floats]) -> Floats:
    """The affine combination of `results` whose combination of `steps` is nearly the shortest."""
    F = np.array([step.ravel() for step in steps])
    changes = np.diff(F, axis=0)
    products = gram(changes)
    # A small ridge keeps the combination near the last result if steps differ by little more than rounding.
    diagonal = np.diag_indices_from(products)
    products[diagonal] += 1e-14 * float(total(products[diagonal])) + 1e-24 * float(sum_of_squares(F[-1]))
    if not products.any() or not positive_definite(products):
        return results[-1]
    weights = solve(products, matmul(changes, F[-1]))
    x = results[-1].copy()
    for weight, earlier, later in zip(weights, results, islice(results, 1, None), strict=False):
        x -= weight * (later - earlier)
    return x
