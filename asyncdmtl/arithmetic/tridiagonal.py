"""Symmetric matrices become tridiagonal, and tridiagonal ones diagonal, in a fixed order of operations.

Reflections: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, section 8.3. Divide and conquer: Gu
and Eisenstat, "A Divide-and-Conquer Algorithm for the Symmetric Tridiagonal Eigenproblem", SIAM J. Matrix
Anal. Appl. 16(1), 1995; roots of the secular equation: Li, "Solving Secular Equations Stably and
Efficiently", LAPACK Working Note 89, 1993.

Nothing is deflated. Instead, poles that coincide are moved apart by a unit in the last place, and weights of
0 are raised by less than that. So all problems of a level have one shape and are solved together. Everything
is batched: arrays have a first axis of `b` matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import fold, sum_of_squares, total
from asyncdmtl.arrays import Floats

# A column whose sum of squares is below this counts as 0: beside a matrix of norm 1 it is negligible, and its
# squares are subnormal or nearly so, with few bits.
_NOTHING = 2.0**-960

# The least weight of a pole, and the least coupling of two halves, in a matrix of norm 1: smaller ones are
# raised to this.
_LIFTED = 2.0**-60

# The least distance of two poles, even if both are tiny.
_APART = 2.0**-400

# The search for a root ends when a step moves it by less than this share of its distance to the nearest pole.
_FOUND = 2.0**-50

# Steps of that search, at most: as many halvings of the bracket reach full accuracy.
_STEPS = 60

# It also ends when the function is at most this share of the sum of its terms' magnitudes, which is rounding.
_NOISE = 2.0**-51

# The most rows of a leaf in the tree of subproblems.
_LEAF = 16


@dataclass(frozen=True)
class Reflected:
    """`S = Q T Qᵀ` with `T` tridiagonal and `Q` a product of reflections `I − β_k v_k v_kᵀ`.

    Attributes
    ----------
    diagonal, beside : (b, n) and (b, n − 1) arrays
        Of `T`.
    reflectors : (b, n, n) array
        `v_k` in row `k`, from column `k + 1` on.
    betas : (b, n) array
    """

    diagonal: Floats
    beside: Floats
    reflectors: Floats
    betas: Floats

    def back(self, X: Floats) -> Floats:
        """`Q·X` of (b, n, m); `X` is overwritten."""
        b, n, columns = X.shape
        memory = np.empty(X.size)
        for k in reversed(range(n - 2)):
            v = self.reflectors[:, k, k + 1 :, None]
            below = X[:, k + 1 :]
            products = memory[: below.size].reshape(b, n - k - 1, columns)
            along = fold(np.multiply(below, v, out=products).swapaxes(0, 1)) * self.betas[:, k, None]
            below -= np.multiply(v, along[:, None, :], out=products)
        return X


def reflected(S: Floats) -> Reflected:
    """Make `S` (b, n, n), symmetric with norm about 1, tridiagonal; `S` is overwritten."""
    b, n = S.shape[:2]
    reflectors, betas = np.zeros((b, n, n)), np.zeros((b, n))
    # Memory for the products of a step, which all steps reuse.
    memory = np.empty(b * n * n)
    for k in range(n - 2):
        v, rest = S[:, k + 1 :, k].copy(), S[:, k + 1 :, k + 1 :]
        squares = sum_of_squares(v, 1)
        some = squares > _NOTHING
        length = np.sqrt(np.where(some, squares, 0.0))
        first = v[:, 0].copy()
        signed = np.where(first >= 0.0, length, -length)
        S[:, k + 1, k] = -signed
        v[:, 0] += signed
        v[~some] = 0.0
        beta = np.where(some, 1.0 / np.where(some, squares + np.abs(first) * length, 1.0), 0.0)
        m = n - k - 1
        products = memory[: b * m * m].reshape(b, m, m)
        p = fold(np.multiply(rest, v[:, :, None], out=products).swapaxes(0, 1)) * beta[:, None]
        half = total(p * v, 1)
        half *= 0.5 * beta
        p -= half[:, None] * v
        rest -= np.multiply(v[:, :, None], p[:, None, :], out=products)
        rest -= np.multiply(p[:, :, None], v[:, None, :], out=products)
        reflectors[:, k, k + 1 :] = v
        betas[:, k] = beta
    diagonal = np.diagonal(S, axis1=1, axis2=2).copy()
    beside = np.diagonal(S, offset=-1, axis1=1, axis2=2).copy()
    return Reflected(diagonal, beside, reflectors, betas)


def diagonalised(diagonal: Floats, beside: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (b, n), ascending, and eigenvectors (b, n, n) of tridiagonal matrices with norm at most 1.

    `diagonal` is (b, n) with `n ≥ 2`, `beside` (b, n − 1).
    """
    b, n = diagonal.shape
    leaves = 1
    while -(-n // leaves) > _LEAF or leaves < 2:
        leaves *= 2
    size = -(-n // leaves)
    padded = 1
    while padded < size:
        padded *= 2
    # Pad the matrix to a full tree. The eigenvalues of the padding are larger than its own, and are cut off
    # again.
    d = np.broadcast_to(np.linspace(4.0, 5.0, size * leaves), (b, size * leaves)).copy()
    e = np.zeros((b, size * leaves))
    d[:, :n], e[:, : n - 1] = diagonal, beside
    couplings = np.abs(e)
    d -= couplings
    d[:, 1:] -= couplings[:, :-1]
    d, e = d.reshape(b * leaves, size), e.reshape(b * leaves, size)
    values, Q = _leaf(d, e, padded)
    ends = e[:, -1].reshape(b, leaves)
    while ends.shape[1] > 1:
        values, Q = _merged(values, Q, ends[:, ::2].reshape(-1))
        ends = ends[:, 1::2]
    return values[:, :n], Q[:, :n, :n]


def _leaf(d: Floats, e: Floats, padded: int) -> tuple[Floats, Floats]:
    """Eigenvalues and eigenvectors of many small tridiagonal matrices (B, size), merged from single rows."""
    B, size = d.shape
    wide, beside = np.broadcast_to(np.linspace(8.0, 9.0, padded), (B, padded)).copy(), np.zeros((B, padded))
    wide[:, :size], beside[:, : size - 1] = d, e[:, : size - 1]
    values, Q = wide.reshape(-1, 1), np.ones((B * padded, 1, 1))
    while values.shape[1] < padded:
        ends = beside[:, values.shape[1] - 1 :: values.shape[1]][:, ::2].reshape(-1)
        values, Q = _merged(values, Q, ends)
    return values[:, :size], Q[:, :size, :size]


def _merged(values: Floats, Q: Floats, couplings: Floats) -> tuple[Floats, Floats]:
    """Merge neighbours (2b, s) into (b, 2s): `diag(T₁, T₂) + |c| u uᵀ` with `u = (e_s, sign(c) e₁)`."""
    b, s = len(couplings), values.shape[1]
    halves = Q.reshape(b, 2, s, s)
    sign = np.where(couplings < 0.0, -1.0, 1.0)
    z = np.concatenate([halves[:, 0, -1, :], sign[:, None] * halves[:, 1, 0, :]], axis=1)
    order = np.argsort(values.reshape(b, 2 * s), axis=1, kind="stable")
    d = _spread(np.take_along_axis(values.reshape(b, 2 * s), order, axis=1))
    z = np.take_along_axis(z, order, axis=1)
    # Both rows have length 1 up to rounding.
    z = np.where(np.abs(z) < _LIFTED, _LIFTED, z) * np.sqrt(0.5)
    rho = np.maximum(2.0 * np.abs(couplings), _LIFTED)
    found, V = _secular(d, z, rho)
    inverse = np.argsort(order, axis=1, kind="stable")
    V = np.take_along_axis(V, inverse[:, :, None], axis=1)
    return found, matmul(halves, V.reshape(b, 2, s, 2 * s)).reshape(b, 2 * s, 2 * s)


def _spread(d: Floats) -> Floats:
    """Ascending numbers (b, n), moved apart where they coincide."""
    d = d.copy()
    for i in range(1, d.shape[1]):
        least = d[:, i - 1] + np.maximum(np.spacing(np.abs(d[:, i - 1])), _APART)
        np.maximum(d[:, i], least, out=d[:, i])
    return d


def _secular(d: Floats, z: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (b, n) and eigenvectors (b, n, n) of `diag(d) + ρ z zᵀ`.

    The differences `d_j − λ_i` have full relative accuracy. From them follows the `ẑ` for which the computed
    roots are exact, and vectors from `ẑ` are orthogonal up to rounding.
    """
    distance, values = _roots(d, z, rho)
    diagonal = np.arange(d.shape[1])
    apart = d[:, None, :] - d[:, :, None]
    apart[:, diagonal, diagonal] = 1.0
    factors = np.divide(distance, apart)
    np.negative(factors, out=factors)
    squares = _product_of(factors.transpose(2, 0, 1))
    weights = np.where(z < 0.0, -1.0, 1.0) * np.sqrt(np.abs(squares))
    V = weights[:, :, None] / distance
    V /= np.sqrt(sum_of_squares(V, 1))[:, None, :]
    return values, V


def _product_of(factors: Floats) -> Floats:
    """The product along the first axis, as a halving tree."""
    n = len(factors)
    while n > 1:
        half = n // 2
        np.multiply(factors[:half], factors[half : 2 * half], out=factors[:half])
        if n > 2 * half:
            factors[0] *= factors[2 * half]
        n = half
    product: Floats = factors[0]
    return product


def _roots(d: Floats, z: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """`d_j − λ_i` (b, n, n) and `λ` (b, n) for the roots of `1 + ρ Σ_j z_j² / (d_j − λ)`.

    The unknown is the distance `ν` of a root from the nearer of the two poles beside it. Each step solves for
    the root of a function with these two poles alone: first with their own weights, then with weights that
    give the slopes of all poles on either side at the current point (the "middle way"). Where that leaves the
    bracket, the bracket is halved.
    """
    n = d.shape[1]
    weights = rho[:, None] * (z * z)
    # The last root lies at most ρ above the last pole, since `z` has length 1.
    gaps = np.concatenate([d[:, 1:] - d[:, :-1], 1.0001 * rho[:, None]], axis=1)
    nu = 0.5 * gaps
    apart = d[:, :, None] - d[:, None, :]
    f = 1.0 + fold((weights[:, :, None] / (apart - nu[:, None, :])).swapaxes(0, 1))
    left = (f >= 0.0) | (np.arange(n) == n - 1)
    following = np.minimum(np.arange(n) + 1, n - 1)
    weights_after = np.concatenate([weights[:, 1:], np.zeros_like(rho)[:, None]], axis=1)
    sign = np.where(left, 1.0, -1.0)
    own, other = np.where(left, weights, weights_after), np.where(left, weights_after, weights)
    poles = np.where(left[:, None, :], apart, apart[:, :, following])
    low, high = np.zeros_like(nu), gaps
    upper = np.tri(n, k=-1)
    lower = 1.0 - upper
    found = np.zeros(nu.shape, np.bool_)
    distance, slopes = np.empty_like(poles), np.empty_like(poles)
    # Four sums over poles in each step, computed as one: of terms, of their magnitudes, and of slopes on
    # either side.
    parts = np.empty((n, 4, len(d), n))
    terms, sizes, below, above = parts.transpose(1, 2, 0, 3)
    # If the constant is 0, one of the two forms of the root is infinite, and the other one is used.
    with np.errstate(divide="ignore", invalid="ignore"):
        step = _root_of_two(sign * f, own, other, nu, gaps)
        for _ in range(_STEPS):
            signed = sign * f
            low, high = np.where(signed < 0.0, nu, low), np.where(signed > 0.0, nu, high)
            found |= np.abs(step - nu) <= _FOUND * nu
            between = np.where(low > 0.0, np.sqrt(low) * np.sqrt(high), 0.5 * high)
            moved = np.where((step > low) & (step < high), step, between)
            nu = np.where(found, nu, moved)
            np.subtract(poles, (sign * nu)[:, None, :], out=distance)
            if found.all():
                break
            np.divide(weights[:, :, None], distance, out=terms)
            np.divide(terms, distance, out=slopes)
            np.multiply(slopes, lower, out=below)
            np.multiply(slopes, upper, out=above)
            np.abs(terms, out=sizes)
            added, size, slope_below, slope_above = fold(parts)
            f = 1.0 + added
            rest = gaps - nu
            own = np.where(left, slope_below, slope_above)
            other = np.where(left, slope_above, slope_below)
            step = _root_of_two(sign * f, own * (nu * nu), other * (rest * rest), nu, gaps)
            found |= np.abs(f) <= _NOISE * (1.0 + size)
    return distance, np.where(left, d, d[:, following]) + sign * nu


def _root_of_two(f: Floats, own: Floats, other: Floats, nu: Floats, gap: Floats) -> Floats:
    """The `x` in (0, gap) where `c − own/x + other/(gap − x)` is 0, with the `c` that makes it `f` at `ν`."""
    c = f + own / nu - other / (gap - nu)
    a = c * gap + own + other
    difference = c * gap - own + other
    root = np.sqrt(difference * difference + 4.0 * own * other)
    return np.where(a > 0.0, 2.0 * (own * gap) / (a + root), (a - root) / (2.0 * c))
