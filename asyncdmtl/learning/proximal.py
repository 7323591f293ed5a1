"""The work behind the proximal operators of couplings: singular values, and the two that take iteration.

All matrices are (T, features) float64. An iterative result has a fixed accuracy and depends on nothing
but its arguments, so that all who compute it on like machines get the same bits.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from scipy.sparse import csr_matrix

from asyncdmtl.arrays import Floats

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

# Of the largest singular value: below it, those of a Gram matrix have too few digits.
_SMALL = 1e-3
_MEMORY = 6


def singular_values(W: Floats) -> Floats:
    """`σ(W)`, (min(T, features),), largest first."""
    _, sigma = _right_factor(W if len(W) >= W.shape[1] else W.T)
    return sigma


def map_singular_values(W: Floats, f: Callable[[Floats], Floats]) -> Floats:
    """`U f(Σ) Vᵀ` of `W = U Σ Vᵀ`, for an `f` that is given all `σ` and has `0 ≤ f(σ) ≤ σ`."""
    wide = len(W) < W.shape[1]
    V, sigma = _right_factor(W.T if wide else W)
    mapped = f(sigma)
    kept = mapped > 0.0
    # W = U Σ Vᵀ becomes W·V·diag(f(σ)/σ)·Vᵀ: the long factor U is never formed, and since the small
    # factor has norm ≤ 1 and nothing is magnified, rounding stays that of the QR.
    factor = (V[:, kept] * (mapped[kept] / sigma[kept])) @ V[:, kept].T
    product: Floats = factor @ W if wide else W @ factor
    return product


def spectral_factor(gram: Floats, f: Callable[[Floats], Floats]) -> Floats | None:
    """`A` (T, T) with `A·W = U f(Σ) Vᵀ` of a wide `W = U Σ Vᵀ`, from its Gram matrix `W Wᵀ` alone.

    The Gram matrix has the squares of singular values, and so only half of the digits of small ones. Rounding
    moves `f(σ)/σ` by no more than `ε σ₁² / 2σ²`, if `f` takes the same off every `σ`: None unless that is
    below 1e-10 for every `σ` that is kept.
    """
    squares, U = np.linalg.eigh(gram)
    squares, U = squares[::-1], U[:, ::-1]
    sigma = np.sqrt(np.maximum(squares, 0.0))
    mapped = f(sigma)
    kept = mapped > 0.0
    if kept.any() and sigma[kept].min() < _SMALL * sigma[0]:
        return None
    factor: Floats = (U[:, kept] * (mapped[kept] / sigma[kept])) @ U[:, kept].T
    return factor


def blocked_singular_values(blocks: Callable[[], Iterator[Floats]], *, once: bool = False) -> Floats | None:
    """`σ(W)`, largest first, of a wide `W` that is had in blocks of columns, twice; None if it cannot be so.

    Had only `once`, small ones miss by up to `√ε σ₁`, 1.5e-8 of the largest, as they come from `W Wᵀ`.

    The eigenvectors `U` of `W Wᵀ` make the rows of `Uᵀ W` orthogonal but for rounding, however small they
    are. With their norms `D` and `D⁻¹ Uᵀ W Wᵀ U D⁻¹ = L Lᵀ`, near the identity, `σ(D L)` has all the digits
    that a QR would give. Reference for such grading: Drmač and Veselić, "New Fast and Accurate Jacobi SVD
    Algorithm I", SIAM J. Matrix Anal. Appl. 29(4), 2008.
    """
    gram = _gram(blocks())
    if not np.isfinite(gram).all():
        return None
    squares, U = np.linalg.eigh(gram)
    if once:
        rough: Floats = np.sqrt(np.maximum(squares[::-1], 0.0))
        return rough
    gram = _gram(U.T @ W for W in blocks())
    norms = np.sqrt(np.diag(gram))
    there = norms > 0.0
    D = norms[there]
    try:
        L = np.linalg.cholesky(gram[np.ix_(there, there)] / np.outer(D, D))
    except np.linalg.LinAlgError:  # rows that are nothing but rounding
        return None
    sigma = np.zeros(len(norms))
    sigma[: len(D)] = np.linalg.svd(D[:, None] * L, compute_uv=False)
    return sigma


def squared_l1_threshold(sigma: Floats, mu: float) -> float:
    """`τ = μ Σ_i max(σ_i − τ, 0)`, what the prox of `½ μ ‖σ‖₁²` takes off every `σ_i ≥ 0` (largest first).

    If just the first `k` stay positive, `τ = μ Σ_{i≤k} σ_i / (1 + μk)`; the right `k` is the last one whose
    `σ_k` exceeds it. Reference: Martins et al., "Online Learning of Structured Predictors with Multiple
    Kernels", AISTATS 2011.
    """
    thresholds = mu * np.cumsum(sigma) / (1.0 + mu * np.arange(1, len(sigma) + 1))
    positive = int((sigma > thresholds).sum())
    return float(thresholds[max(positive, 1) - 1])


def sparse_low_rank_prox(W: Floats, mu: float, rho: float) -> Floats:
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
    spectral = float(singular_values(V)[0])
    if spectral <= radius and rho * radius >= 1.0:
        return np.zeros_like(W)
    # The best weight by trial: the geometric mean of what large and small singular values ask for.
    beta = max(1.0, math.sqrt(spectral / radius))
    H = np.zeros_like(V)
    for S, step in islice(_accelerated(_meeting(V, 1.0, radius, rho, beta), H), _STEPS):
        H = np.clip(S, -rho * radius, rho * radius)
        if beta * np.abs(step).max() <= _PROX_ACCURACY:
            break
    prox: Floats = W - H * largest
    return prox


def sparse_low_rank_split(W: Floats, rho: float) -> tuple[Floats, Floats]:
    """`P`, `Q` with `P + Q = W` and `ρ ‖P‖₁ + ‖Q‖_*` nearly the least.

    Iterated until that value is within 1e-6 of itself from the lower bound `⟨G, W⟩` of its dual, the
    maximum over `‖G‖₂ ≤ 1`, `|G_ij| ≤ ρ`: after 20 to 500 iterations, where it ends in any case. Where `W` is
    large and its split far from unique, 1e-5 may be left.
    """
    scale = float(singular_values(W)[0])
    if scale == 0.0:
        return W, W
    W = W / scale
    upper, lower, best = np.inf, 0.0, W
    beta = _SPLIT_WEIGHT * float(np.abs(W).max())
    steps = _accelerated(_meeting(W, 0.0, 1.0, rho, beta), np.zeros_like(W))
    for S, step in islice(steps, 0, _SPLIT_STEPS, _SPLIT_EVERY):
        H = np.clip(S, -rho, rho)
        # At the optimum it is the sparse part: what the box pushes back.
        P = beta * (S - H)
        value = float(rho * np.abs(P).sum() + singular_values(W - P).sum())
        if value < upper:
            upper, best = value, P
        lower = max(lower, float((H * W).sum()) / max(1.0, float(singular_values(H)[0])))
        if upper - lower <= _GAP * upper or not step.any():
            break
    return best * scale, (W - best) * scale


def pair_differences(W: Floats) -> Floats:
    """`w_s − w_t` for all `s < t`: (T(T−1)/2, features)."""
    s, t = np.triu_indices(len(W), 1)
    differences: Floats = W[s] - W[t]
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
        Q, R = np.linalg.qr(W.T)
        rotated: Floats = clustered_prox(R.T, mu) @ Q.T
        return rotated
    spread = _spread_of_pairs(T)
    tolerance = _ACCURACY * float(np.abs(W).max()) / T
    Z = Y = np.zeros((spread.shape[1], features))
    momentum = 1.0
    for _ in range(_ITERATIONS):
        # 1/T: the inverse of the largest eigenvalue of the complete graph's Laplacian.
        moved = Y + pair_differences(W - spread @ Y) / T
        lengths = np.sqrt(np.einsum("pf,pf->p", moved, moved))
        moved *= np.minimum(1.0, mu / np.maximum(lengths, mu))[:, None]
        if np.abs(moved - Y).max() <= tolerance:
            Z = moved
            break
        if np.vdot(Y - moved, moved - Z) > 0.0:
            momentum = 1.0
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum * momentum))
        Y = moved + (momentum - 1.0) / following * (moved - Z)
        Z, momentum = moved, following
    prox: Floats = W - spread @ Z
    return prox


def _spread_of_pairs(T: int) -> csr_matrix:
    """(T, T(T−1)/2): adds the vector of the pair `(s, t)` to `s` and takes it off `t`."""
    s, t = np.triu_indices(T, 1)
    pairs = np.arange(len(s))
    signs = np.repeat([1.0, -1.0], len(s))
    return csr_matrix((signs, (np.concatenate([s, t]), np.tile(pairs, 2))), shape=(T, len(s)))


def _meeting(W: Floats, gamma: float, radius: float, rho: float, beta: float) -> Callable[[Floats], Floats]:
    """A non-expansive map `S → S + G − H`, still where `H` has the largest `⟨H, W⟩ − ½ γ ‖H‖²`.

    That is over the `H` in both the ball `‖H‖₂ ≤ radius` and the box `|H_ij| ≤ ρ·radius`: Douglas and
    Rachford's splitting with weight `β` (Eckstein and Bertsekas, Mathematical Programming 55, 1992), `H`
    being `S` cut off at the box and `G` a point of the ball.
    """

    def move(S: Floats) -> Floats:
        H = np.clip(S, -rho * radius, rho * radius)
        moved: Floats = S - H + _into_ball((W + beta * (2.0 * H - S)) / (gamma + beta), radius)
        return moved

    return move


def _into_ball(M: Floats, radius: float) -> Floats:
    """The matrix with `‖·‖₂ ≤ radius` nearest to `M`: larger singular values are cut off.

    By way of the smaller Gram matrix: it squares the condition number, but that shows in small singular
    values, and these stay as they are.
    """
    wide = len(M) < M.shape[1]
    squares, V = np.linalg.eigh(M @ M.T if wide else M.T @ M)
    large = squares > radius * radius
    V = V[:, large]
    excess = V * (1.0 - radius / np.sqrt(squares[large]))
    projected: Floats = M - excess @ (V.T @ M) if wide else M - (M @ V) @ excess.T
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
        before, length = length, float(np.linalg.norm(step))
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
    gram = changes @ changes.T
    # Where steps differ by little more than rounding, so does their combination from the last result.
    gram[np.diag_indices_from(gram)] += 1e-14 * np.trace(gram) + 1e-24 * np.vdot(F[-1], F[-1])
    if not gram.any():
        return results[-1]
    weights = np.linalg.solve(gram, changes @ F[-1])
    x = results[-1].copy()
    for weight, earlier, later in zip(weights, results, islice(results, 1, None), strict=False):
        x -= weight * (later - earlier)
    return x


def _right_factor(tall: Floats) -> tuple[Floats, Floats]:
    """`V` (n, n) and singular values (n,) of a tall (m, n) matrix `U Σ Vᵀ`, m ≥ n.

    By way of `R` of its QR, not of the Gram matrix, which would square the condition number.
    """
    _, sigma, Vt = np.linalg.svd(np.linalg.qr(tall, mode="r"))
    return Vt.T, sigma


def _gram(blocks: Iterator[Floats]) -> Floats:
    """`W Wᵀ` of a matrix that is had in blocks of columns."""
    return functools.reduce(np.add, (W @ W.T for W in blocks))
