"""Singular values of the models, and matrices with other singular values in their place.

All matrices are (T, features) float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from asyncdmtl.arrays import Floats

# Of the largest singular value: below it, those of a Gram matrix have too few digits.
_SMALL = 1e-3


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


def _right_factor(tall: Floats) -> tuple[Floats, Floats]:
    """`V` (n, n) and singular values (n,) of a tall (m, n) matrix `U Σ Vᵀ`, m ≥ n.

    By way of `R` of its QR, not of the Gram matrix, which would square the condition number.
    """
    _, sigma, Vt = np.linalg.svd(np.linalg.qr(tall, mode="r"))
    return Vt.T, sigma


def _gram(blocks: Iterator[Floats]) -> Floats:
    """`W Wᵀ` of a matrix that is had in blocks of columns."""
    return functools.reduce(np.add, (W @ W.T for W in blocks))
