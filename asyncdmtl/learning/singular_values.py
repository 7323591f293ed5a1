"""Singular values of the models, and matrices whose singular values are replaced.

All matrices are (T, features) float64. The default arithmetic has the same bits on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from asyncdmtl.arithmetic.kinds import REPRODUCIBLE, Arithmetic
from asyncdmtl.arithmetic.solving import cholesky, positive_definite
from asyncdmtl.arrays import Floats

# Singular values from a Gram matrix have too few digits if they are below this fraction of the largest one.
_SMALL = 1e-3


def singular_values(W: Floats, arithmetic: Arithmetic = REPRODUCIBLE) -> Floats:
    """`σ(W)`, (min(T, features),), largest first."""
    return arithmetic.left_svd(W if len(W) <= W.shape[1] else W.T)[1]


def map_singular_values(
    W: Floats, f: Callable[[Floats], Floats], arithmetic: Arithmetic = REPRODUCIBLE
) -> Floats:
    """`U f(Σ) Vᵀ` of `W = U Σ Vᵀ`, for an `f` of all singular values with `0 ≤ f(σ) ≤ σ`."""
    wide = W if len(W) <= W.shape[1] else W.T
    # W = U Σ Vᵀ becomes U·diag(f(σ)/σ)·Uᵀ·W, so the long factor V is never formed. The small factor has norm
    # ≤ 1, so it does not magnify rounding errors.
    with np.errstate(over="ignore", invalid="ignore"):
        squared = arithmetic.gram(wide)
    factor = spectral_factor(squared, f, arithmetic) if np.isfinite(squared).all() else None
    if factor is None:
        U, sigma = arithmetic.left_svd(wide)
        factor = _factor(U, sigma, f(sigma), arithmetic)
    product = arithmetic.matmul(factor, wide)
    return product if wide is W else product.T


def spectral_factor(
    squared: Floats, f: Callable[[Floats], Floats], arithmetic: Arithmetic = REPRODUCIBLE
) -> Floats | None:
    """`A` (T, T) with `A·W = U f(Σ) Vᵀ` of a wide `W = U Σ Vᵀ`, from its Gram matrix `W Wᵀ` alone.

    The Gram matrix has the squares of the singular values, so small ones lose half of their digits. If `f`
    subtracts the same from every `σ`, rounding changes `f(σ)/σ` by at most `ε σ₁² / 2σ²`. The result is None
    unless that is below 1e-10 for every `σ` with `f(σ) > 0`.
    """
    squares, U = arithmetic.eigh(squared)
    squares, U = squares[::-1], U[:, ::-1]
    sigma = np.sqrt(np.maximum(squares, 0.0))
    mapped = f(sigma)
    kept = mapped > 0.0
    if kept.any() and sigma[kept].min() < _SMALL * sigma[0]:
        return None
    return _factor(U, sigma, mapped, arithmetic)


def blocked_singular_values(
    blocks: Callable[[], Iterator[Floats]], *, once: bool = False, arithmetic: Arithmetic = REPRODUCIBLE
) -> Floats | None:
    """`σ(W)`, largest first, of a wide `W` given in blocks of columns; None if the blocks do not suffice.

    `blocks` is called twice. With `once` it is called once, and the error is up to `√ε σ₁`, 1.5e-8 of the
    largest, as the values come from `W Wᵀ`.

    With the eigenvectors `U` of `W Wᵀ`, the rows of `Uᵀ W` are orthogonal up to rounding, even very small
    rows. With their norms `D`, the matrix `D⁻¹ Uᵀ W Wᵀ U D⁻¹ = L Lᵀ` is near the identity, and `σ(D L)` is as
    accurate as the result of a QR. Reference for such grading: Drmač and Veselić, "New Fast and Accurate
    Jacobi SVD Algorithm I", SIAM J. Matrix Anal. Appl. 29(4), 2008.
    """
    whole = _gram(blocks(), arithmetic)
    if not np.isfinite(whole).all():
        return None
    squares, U = arithmetic.eigh(whole)
    if once:
        rough: Floats = np.sqrt(np.maximum(squares[::-1], 0.0))
        return rough
    turned = _gram((arithmetic.matmul(U.T, W) for W in blocks()), arithmetic)
    norms = np.sqrt(np.diag(turned))
    there = norms > 0.0
    D = norms[there]
    graded = turned[np.ix_(there, there)] / (D[:, None] * D)
    if not positive_definite(graded):  # some rows consist of rounding errors only
        return None
    sigma = np.zeros(len(norms))
    sigma[: len(D)] = arithmetic.left_svd(D[:, None] * cholesky(graded))[1]
    return sigma


def squared_l1_threshold(sigma: Floats, mu: float) -> float:
    """The solution `τ` of `τ = μ Σ_i max(σ_i − τ, 0)` for `σ_i ≥ 0`, largest first.

    The prox of `½ μ ‖σ‖₁²` subtracts it from every `σ_i`. If only the first `k` stay positive, `τ = μ Σ_{i≤k}
    σ_i / (1 + μk)`; the correct `k` is the last one whose `σ_k` exceeds `τ`. Reference: Martins et al.,
    "Online Learning of Structured Predictors with Multiple Kernels", AISTATS 2011.
    """
    thresholds = mu * np.cumsum(sigma) / (1.0 + mu * np.arange(1, len(sigma) + 1))
    positive = int((sigma > thresholds).sum())
    return float(thresholds[max(positive, 1) - 1])


def _factor(U: Floats, sigma: Floats, mapped: Floats, arithmetic: Arithmetic) -> Floats:
    """`U diag(f(σ)/σ) Uᵀ`, of the `σ` that are not mapped to 0."""
    kept = mapped > 0.0
    return arithmetic.matmul(U[:, kept] * (mapped[kept] / sigma[kept]), U[:, kept].T)


def _gram(blocks: Iterator[Floats], arithmetic: Arithmetic) -> Floats:
    """`W Wᵀ` of a matrix given in blocks of columns."""
    return functools.reduce(np.add, map(arithmetic.gram, blocks))
