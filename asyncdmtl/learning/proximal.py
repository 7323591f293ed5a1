"""The work behind the proximal operators of couplings that take iteration.

All matrices are (T, features) float64. An iterative result has a fixed accuracy and depends on nothing
but its arguments, so that all who compute it on like machines get the same bits.
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

# Relative to the largest number of W: as near to the optimum as rounding lets an iteration come.
_ACCURACY = 1e-12
_ITERATIONS = 10_000

# Of the sparse and the low-rank part; weight and memory by trial on digits and school.
_STEPS = 2_000
_PROX_ACCURACY = 1e-10
_SPLIT_STEPS = 500
_SPLIT_EVERY = 10
_SPLIT_WEIGHT = 0.1
_GAP = 1e-6

_MEMORY = 6


def sparse_low_rank_prox(W: Floats, mu: float, rho: float, arithmetic: Arithmetic = REPRODUCIBLE) -> Floats:
    """`argmin_U ½ ‖U − W‖_F² + μ min_{P+Q=U} (ρ ‖P‖₁ + ‖Q‖_*)`.

    By Moreau's identity it is `W − G` with `G` the point nearest to `W` in the intersection of
    `{‖G‖₂ ≤ μ}` and `{|G_ij| ≤ μρ}`. Iterated until no number of `W − G` misses the normal cone at `G` by
    more than 1e-10 of the largest number of `W`: after 10 to 50 iterations where `μ` is a tenth of `‖W‖₂`
    or so, hundreds where it is a thousandth, and 2,000 at the most, which only a `μ` can need that moves `W`
    by next to nothing. Holds some 20 matrices of the size of `W`.
    """
    largest = float(np.abs(W).max())
    # No number of W changes by more than μρ: here that is lost in rounding, and W may be 0.
    if mu * rho <= 1e-17 * largest or largest == 0.0:
        return W
    V, radius = W / largest, mu / largest
    spectral = float(singular_values(V, arithmetic)[0])
    if spectral <= radius and rho * radius >= 1.0:
        return np.zeros_like(W)
    # The best weight by trial: the geometric mean of what large and small singular values ask for.
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
    """`P`, `Q` with `P + Q = W` and `ρ ‖P‖₁ + ‖Q‖_*` nearly the least.

    Iterated until that value is within 1e-6 of itself from the lower bound `⟨G, W⟩` of its dual, the
    maximum over `‖G‖₂ ≤ 1`, `|G_ij| ≤ ρ`: after 20 to 500 iterations, where it ends in any case. Where `W` is
    large and its split far from unique, 1e-5 may be left.
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
        # At the optimum it is the sparse part: what the box pushes back.
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
    15(3), 2015). Iterated until a step moves no vector, in units of `W`, by more than 1e-12 of the
    largest number of `W`.
    """
    T, features = W.shape
    if T == 1 or mu == 0.0:
        return W
    if features > T:
        # Lengths do not change with the basis, and T directions hold all models.
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
    """(T, features): the vector of each pair `(s, t)` added to `s` and taken off `t`."""
    added = np.zeros((len(pairs), tasks))
    for s, own in enumerate(_pairs(tasks)):
        added[:, s] += total(pairs[:, own], 1)
        added[:, s + 1 :] -= pairs[:, own]
    return np.ascontiguousarray(added.T)


def _pairs(tasks: int) -> Iterator[slice]:
    """For every task where its pairs with all later tasks are."""
    start = 0
    for s in range(tasks):
        yield slice(start, start + tasks - 1 - s)
        start += tasks - 1 - s


def _meeting(
    W: Floats, gamma: float, radius: float, rho: float, beta: float, arithmetic: Arithmetic
) -> Callable[[Floats], Floats]:
    """A non-expansive map `S → S + G − H`, still where `H` has the largest `⟨H, W⟩ − ½ γ ‖H‖²`.

    That is over the `H` in both the ball `‖H‖₂ ≤ radius` and the box `|H_ij| ≤ ρ·radius`: Douglas and
    Rachford's splitting with weight `β` (Eckstein and Bertsekas, Mathematical Programming 55, 1992), `H`
    being `S` cut off at the box and `G` a point of the ball.
    """

    def move(S: Floats) -> Floats:
        H = np.clip(S, -rho * radius, rho * radius)
        moved: Floats = S - H + _into_ball((W + beta * (2.0 * H - S)) / (gamma + beta), radius, arithmetic)
        return moved

    return move


def _into_ball(M: Floats, radius: float, arithmetic: Arithmetic) -> Floats:
    """The matrix with `‖·‖₂ ≤ radius` nearest to `M`: larger singular values are cut off.

    By way of the smaller Gram matrix: it squares the condition number, but that shows in small singular
    values, and these stay as they are.
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
    """Towards `x = move(x)` of a non-expansive map: gives `x` and the step `move(x) − x`, again and again.

    Anderson's acceleration: the next `x` is the affine combination of the last results of `move` whose
    steps nearly cancel (Walker and Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer.
    Anal. 49(4), 2011). Where the step there is longer than the one before, it goes on from the last
    result instead: plain moves never lengthen a step.
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
    """The affine combination of `results` for which that of `steps` is nearly the shortest."""
    F = np.array([step.ravel() for step in steps])
    changes = np.diff(F, axis=0)
    products = gram(changes)
    # Where steps differ by little more than rounding, so does their combination from the last result.
    diagonal = np.diag_indices_from(products)
    products[diagonal] += 1e-14 * float(total(products[diagonal])) + 1e-24 * float(sum_of_squares(F[-1]))
    if not products.any() or not positive_definite(products):
        return results[-1]
    weights = solve(products, matmul(changes, F[-1]))
    x = results[-1].copy()
    for weight, earlier, later in zip(weights, results, islice(results, 1, None), strict=False):
        x -= weight * (later - earlier)
    return x
