"""The work behind the proximal operators of couplings: singular values, and the two that take iteration.

All matrices are (T, features) float64. An iterative result has a fixed accuracy and depends on nothing
but its arguments, so that all who compute it on like machines get the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]

# Relative to the largest number of W: as near to the optimum as rounding lets an iteration come.
_ACCURACY = 1e-12
_GAP = 1e-7
_ITERATIONS = 10_000


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
    `{‖G‖₂ ≤ μ}` and `{|G_ij| ≤ μρ}`. Iterated until the points found in each of the two differ by no more
    than 1e-12 of the largest number of `W`; on trials that took from 50 to 800 iterations.
    """
    if mu == 0.0:
        return W
    largest = float(np.abs(W).max())
    # The best weight by trial: 2 where the penalty takes nearly all, more the less it takes.
    beta = min(max(2.0, 0.4 * float(singular_values(W)[0]) / mu), 1e6)
    for _, G, H in islice(_approach(W, 1.0, mu, rho, beta), _ITERATIONS):
        if np.abs(G - H).max() <= _ACCURACY * largest:
            break
    prox: Floats = W - H
    return prox


def sparse_low_rank_split(W: Floats, rho: float) -> tuple[Floats, Floats]:
    """`P`, `Q` with `P + Q = W` and `ρ ‖P‖₁ + ‖Q‖_*` least.

    Iterated until that value is within 1e-7 of itself from the lower bound `⟨G, W⟩` of its dual, the
    maximum over `‖G‖₂ ≤ 1`, `|G_ij| ≤ ρ`, or for 10,000 iterations: hundreds are usual, and where `W` is
    degenerate (its split far from unique) all of them may pass with 1e-6 not quite reached.
    """
    scale = float(singular_values(W)[0])
    if scale == 0.0:
        return W, W
    W = W / scale
    beta = 0.05
    upper, lower, best = np.inf, 0.0, W
    for S, G, H in islice(_approach(W, 0.0, 1.0, rho, beta), 0, _ITERATIONS, 10):
        # At the optimum both are the sparse part: what the box pushes back, and what the ball leaves.
        for P in (beta * (S - H), beta * (S + G - 2.0 * H)):
            value = float(rho * np.abs(P).sum() + singular_values(W - P).sum())
            if value < upper:
                upper, best = value, P
        lower = max(lower, float((H * W).sum()) / max(1.0, float(singular_values(H)[0])))
        if upper - lower <= _GAP * upper:
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


def _approach(
    W: Floats, gamma: float, radius: float, rho: float, beta: float
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Towards the maximum of `⟨G, W⟩ − ½ γ ‖G‖²` over `‖G‖₂ ≤ radius`, `|G_ij| ≤ ρ·radius`.

    Douglas and Rachford's splitting with weight `β` (Eckstein and Bertsekas, Mathematical Programming 55,
    1992): gives `S`, `G` in the spectral ball and `H` in the box, and moves `S` by `G − H` until they meet.
    """
    S = np.zeros_like(W)
    while True:
        H = np.clip(S, -rho * radius, rho * radius)
        M = (W + beta * (2.0 * H - S)) / (gamma + beta)
        G = map_singular_values(M, lambda sigma: np.minimum(sigma, radius))
        yield S, G, H
        S = S + G - H


def _right_factor(tall: Floats) -> tuple[Floats, Floats]:
    """`V` (n, n) and singular values (n,) of a tall (m, n) matrix `U Σ Vᵀ`, m ≥ n.

    By way of `R` of its QR, not of the Gram matrix, which would square the condition number.
    """
    _, sigma, Vt = np.linalg.svd(np.linalg.qr(tall, mode="r"))
    return Vt.T, sigma
