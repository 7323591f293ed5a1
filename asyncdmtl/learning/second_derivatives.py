"""Second derivatives of the losses of tasks: whole matrices, or diagonal ones that differ in few directions.

Steps (`descent`) need the same of both kinds: what is left once free intercepts are at their best, products,
and solutions of systems. The second kind takes memory and time by the length of models, not by its square.
Reference for its inverses: Woodbury's formula, Golub and Van Loan, "Matrix Computations", 4th edition, 2013,
section 2.1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import solving
from asyncdmtl.arithmetic.products import Factor, matmul
from asyncdmtl.arithmetic.spectral import eigh
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices

Chosen = NDArray[np.bool_] | Indices | Sequence[int] | slice


def apply(M: Floats | Factor, W: Floats) -> Floats:
    """`M_t w_t` for matrices (K, T, C, C) and models (K, L, T, C)."""
    columns = np.ascontiguousarray(W.transpose(0, 2, 3, 1))
    product = M.times(columns) if isinstance(M, Factor) else matmul(M, columns)
    return np.ascontiguousarray(product.transpose(0, 3, 1, 2))


class Intercepts(NamedTuple):
    """The second derivatives by intercepts, (K, T), and by intercept and coefficients, (K, T, C)."""

    pull: Floats
    row: Floats


class SecondDerivatives(Protocol):
    """Symmetric matrices of `K` data sets and `T` tasks, of `n` numbers each."""

    @property
    def diagonals(self) -> Floats:
        """The diagonals (K, T, n)."""

    @property
    def intercepts(self) -> Intercepts:
        """The last rows."""

    def of(self, chosen: Chosen) -> Self:
        """Those of some data sets."""

    def eliminated(self, share: Floats) -> Self:
        """Without the last row and column: less `share` (K, T) times the outer product of the last row."""

    def plus(self, ridge: Floats) -> Self:
        """With `ridge` (K, T, n) added to the diagonals."""

    def times(self, W: Floats) -> Floats:
        """Products with models (K, L, T, n)."""

    def solved(self, b: Floats) -> Floats:
        """The solutions (K, T, n) of the systems with right-hand sides (K, T, n)."""


@dataclass(frozen=True, eq=False)
class Whole:
    """Matrices (K, T, n, n), symmetric to the last bit."""

    A: Floats

    @property
    def diagonals(self) -> Floats:
        """The diagonals (K, T, n): a view."""
        diagonals: Floats = np.einsum("ktii->kti", self.A)
        return diagonals

    @property
    def intercepts(self) -> Intercepts:
        """The last rows."""
        return Intercepts(self.A[:, :, -1, -1], self.A[:, :, -1, :-1])

    def of(self, chosen: Chosen) -> Whole:
        """Those of some data sets."""
        return Whole(self.A[chosen])

    def eliminated(self, share: Floats) -> Whole:
        """Without the last row and column, see `SecondDerivatives`."""
        row = self.intercepts.row
        # A product of symmetric terms is symmetric to the last bit, and so is the difference.
        outer = row[..., :, None] * row[..., None, :]
        outer *= share[..., None, None]
        return Whole(np.subtract(self.A[:, :, :-1, :-1], outer, out=outer))

    def plus(self, ridge: Floats) -> Whole:
        """With a larger diagonal."""
        larger = Whole(self.A.copy())
        larger.diagonals[:] += ridge
        return larger

    def times(self, W: Floats) -> Floats:
        """Products with models (K, L, T, n)."""
        return apply(self.A, W)

    def solved(self, b: Floats) -> Floats:
        """The solutions (K, T, n) of systems."""
        return solving.solve(self.A, b)


@dataclass(frozen=True, eq=False)
class LowRank:
    """`diag(D) + P S Pᵀ`, positive definite.

    Attributes
    ----------
    diagonal : (K, T, n) float64 array
        `D`, above 0.
    P : (K, T, n, r) float64 array
    S : (K, T, r, r) float64 array
        Symmetric.
    """

    diagonal: Floats
    P: Floats
    S: Floats

    @property
    def diagonals(self) -> Floats:
        """The diagonals (K, T, n) of the whole matrices."""
        return self.diagonal + total(matmul(self.P, self.S) * self.P, 3)

    @property
    def intercepts(self) -> Intercepts:
        """The last rows."""
        last = matmul(self.S, self.P[:, :, -1, :, None])
        rows = matmul(self.P, last)[..., 0]
        return Intercepts(self.diagonal[:, :, -1] + rows[:, :, -1], rows[:, :, :-1])

    def of(self, chosen: Chosen) -> LowRank:
        """Those of some data sets."""
        return LowRank(self.diagonal[chosen], self.P[chosen], self.S[chosen])

    def eliminated(self, share: Floats) -> LowRank:
        """Without the last row and column, see `SecondDerivatives`: only `S` changes."""
        last = matmul(self.S, self.P[:, :, -1, :, None])[..., 0]
        outer = last[..., :, None] * last[..., None, :] * share[..., None, None]
        return LowRank(self.diagonal[:, :, :-1], self.P[:, :, :-1], self.S - outer)

    def plus(self, ridge: Floats) -> LowRank:
        """With a larger diagonal."""
        return replace(self, diagonal=self.diagonal + ridge)

    def times(self, W: Floats) -> Floats:
        """Products with models (K, L, T, n)."""
        columns = np.ascontiguousarray(W.transpose(0, 2, 3, 1))
        inner = matmul(self.S, matmul(np.swapaxes(self.P, 2, 3), columns))
        products = self.diagonal[..., None] * columns + matmul(self.P, inner)
        return np.ascontiguousarray(products.transpose(0, 3, 1, 2))

    def solved(self, b: Floats) -> Floats:
        """The solutions (K, T, n) of systems."""
        return self.inverse().times(b[:, None])[:, 0]

    def inverse(self) -> LowRank:
        """The inverses, of the same form.

        Raises
        ------
        UsageError
            A matrix is not positive definite to rounding.
        """
        E, root, core = self._core()
        SG = matmul(self.S, root)
        shrunk = matmul(matmul(SG, solving.inverse(core)), np.swapaxes(SG, 2, 3)) - self.S
        return LowRank(E, E[..., None] * self.P, 0.5 * (shrunk + np.swapaxes(shrunk, 2, 3)))

    def positive(self) -> NDArray[np.bool_]:
        """Which matrices (K, T) are positive definite."""
        return solving.positive_definite(self._core()[2])

    def _core(self) -> tuple[Floats, Floats, Floats]:
        """`E = 1/D`, `G^½` of `G = Pᵀ E P`, and `I + G^½ S G^½`: positive definite if the matrices are."""
        E = 1.0 / self.diagonal
        G = matmul(np.swapaxes(self.P, 2, 3), E[..., None] * self.P)
        values, V = eigh(0.5 * (G + np.swapaxes(G, 2, 3)))
        roots = np.sqrt(np.maximum(values, 0.0))
        root = matmul(V * roots[..., None, :], np.swapaxes(V, 2, 3))
        core = matmul(matmul(root, self.S), root)
        return E, root, 0.5 * (core + np.swapaxes(core, 2, 3)) + np.eye(core.shape[-1])
