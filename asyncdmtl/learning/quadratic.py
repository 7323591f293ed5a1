"""The coupled quadratic problem: least squares of all tasks under a coupling.

`min_W Σ_t (½ w_tᵀ A_t w_t − b_tᵀ w_t + ½ c_t) + λ R(W)` for every coupling of `coupling`, for several data
sets (folds of cross-validation) and several λ at a time. Statistics of least squares make such a problem
(`statistics`), and so does a step of Newton's method (`newton_trainer`).

Quadratic penalties are solved directly (`direct`), all others by splitting (`splitting`). All arithmetic is
that of `asyncdmtl.arithmetic`: all workers that solve a problem get the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import solving
from asyncdmtl.arithmetic.kinds import Arithmetic
from asyncdmtl.arithmetic.products import Factor
from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.second_derivatives import Chosen, LowRank, SecondDerivatives, Whole, apply

# The ratio of second derivatives above which a column counts as far smaller than others; and the least share
# of a ridge, so that its inverse does not drown other numbers.
_UNUSUAL, _LEAST_SHARE = 1e6, 1e-14


class Accuracy(NamedTuple):
    """How far above the least an objective may be: relative to it, or at all, perhaps for each of `K`."""

    relative: float
    absolute: float | Floats = 0.0

    def reached(self, gap: Floats, value: Floats) -> NDArray[np.bool_]:
        """Whether these gaps are small enough at these values."""
        absolute = np.asarray(self.absolute)[..., None]
        done: NDArray[np.bool_] = gap <= np.maximum(self.relative * np.abs(value), absolute)
        return done

    def of(self, chosen: NDArray[np.bool_] | slice) -> Accuracy:
        """The accuracy of some of the data sets."""
        absolute = self.absolute
        return Accuracy(self.relative, absolute[chosen]) if isinstance(absolute, np.ndarray) else self


class Resolvent(Protocol):
    """The matrices `(A_t + ρ I)⁻¹` of some data sets."""

    def times(self, W: Floats) -> Floats:
        """Products with models (K, L, T, C)."""

    def of(self, chosen: Chosen) -> Self:
        """Those of some of the data sets."""


class QuadraticTerms(ABC):
    """`K` data sets of the same `T` tasks: `f(W) = Σ_t (½ w_tᵀ A_t w_t − b_tᵀ w_t + ½ c_t)` of each.

    Attributes
    ----------
    b : (K, T, C) float64 array
        Each in the range of its `A`.
    c : (K, T) float64 array
        At least `b_tᵀ A_t⁺ b_t`, as `yᵀy / n` is for least squares: `f` is then never negative.
    """

    b: Floats
    c: Floats

    @property
    @abstractmethod
    def diagonals(self) -> Floats:
        """The diagonals (K, T, C) of all `A`."""

    @abstractmethod
    def of(self, chosen: Chosen) -> Self:
        """The terms of the `chosen` data sets."""

    @abstractmethod
    def products(self, W: Floats) -> Floats:
        """`A_t w_t` for models (K, L, T, C), of `L` strengths for each data set."""

    @abstractmethod
    def resolvent(self, rho: Floats) -> Resolvent:
        """`(A_t + ρ I)⁻¹` with `ρ` (K,) of each data set."""

    @property
    def scale(self) -> float:
        """The mean of the diagonals of all `A`; 1 if the mean is 0."""
        diagonals = self.diagonals
        return float(total(diagonals.reshape(-1), 0)) / diagonals.size or 1.0

    @cached_property
    def shares(self) -> Floats:
        """`column_shares` (C,) of the mean diagonals of all `A`."""
        return column_shares(mean(self.diagonals.reshape(-1, self.b.shape[2]), 0))

    @property
    def scales(self) -> Floats:
        """The `scale` (K,) of each data set."""
        diagonals = self.diagonals.reshape(len(self.b), -1)
        means = total(diagonals, 1) / diagonals.shape[1]
        return np.where(means > 0.0, means, 1.0)

    def value(self, W: Floats, AW: Floats | None = None) -> Floats:
        """`f` (K, L) of models (K, L, T, C); `AW` are their `products`, if they are known."""
        AW = self.products(W) if AW is None else AW
        terms = W * (0.5 * AW - self.b[:, None])
        return total(total(terms, 3) + 0.5 * self.c[:, None, :], 2)

    def _check(self, parts: Sequence[Floats], n: int) -> None:
        shape = self.b.shape
        if len(shape) != 3 or shape[2] != n or self.c.shape != shape[:2]:
            raise UsageError("b and c", f"must be (K, T, {n}) and (K, T)", (shape, self.c.shape))
        if not all(np.isfinite(part).all() for part in (*parts, self.b, self.c)):
            raise UsageError("A, b and c", "must be finite", shape)


@dataclass(frozen=True, eq=False)
class Quadratics(QuadraticTerms):
    """Terms with whole matrices.

    Attributes
    ----------
    A : (K, T, C, C) float64 array
        Symmetric and positive semidefinite.

    Raises
    ------
    UsageError
        Shapes do not fit each other, or numbers are not finite.
    """

    A: Floats
    b: Floats
    c: Floats

    def __post_init__(self) -> None:
        if self.A.shape != (*self.b.shape, self.b.shape[-1]):
            raise UsageError("A and b", "must be (K, T, C, C) and (K, T, C)", (self.A.shape, self.b.shape))
        self._check([self.A], self.A.shape[-1])

    @property
    def diagonals(self) -> Floats:
        """The diagonals (K, T, C) of all `A`."""
        diagonals: Floats = np.einsum("ktii->kti", self.A)
        return diagonals

    def of(self, chosen: Chosen) -> Quadratics:
        """The quadratics of the `chosen` data sets."""
        part = Quadratics(self.A[chosen], self.b[chosen], self.c[chosen])
        if "_factor" in self.__dict__:
            part.__dict__["_factor"] = self._factor.of(chosen)
        return part

    def products(self, W: Floats) -> Floats:
        """`A_t w_t` for models (K, L, T, C), of `L` strengths for each data set."""
        return apply(self._factor, W)

    def resolvent(self, rho: Floats) -> Resolvent:
        """`(A_t + ρ I)⁻¹` with `ρ` (K,) of each data set."""
        return _Inverse(Factor(inverse(self.A, rho[:, None])))

    def spectra(self, arithmetic: Arithmetic) -> tuple[Floats, Floats]:
        """Eigenvalues (K, T, C) and eigenvectors of all `A`, kept for the next time."""
        if arithmetic not in self._decomposed:
            self._decomposed[arithmetic] = arithmetic.eigh(self.A)
        return self._decomposed[arithmetic]

    @cached_property
    def _decomposed(self) -> dict[Arithmetic, tuple[Floats, Floats]]:
        """What `spectra` found."""
        return {}

    @cached_property
    def _factor(self) -> Factor:
        """`A`, prepared for many products."""
        return Factor(self.A)


@dataclass(frozen=True, eq=False)
class LowRankQuadratics(QuadraticTerms):
    """Terms with matrices that are diagonal but for few directions.

    Attributes
    ----------
    A : LowRank
    """

    A: LowRank
    b: Floats
    c: Floats

    def __post_init__(self) -> None:
        self._check([self.A.diagonal, self.A.P, self.A.S], self.A.diagonal.shape[-1])

    @property
    def diagonals(self) -> Floats:
        """The diagonals (K, T, C) of all `A`."""
        return self.A.diagonals

    def of(self, chosen: Chosen) -> LowRankQuadratics:
        """The terms of the `chosen` data sets."""
        return LowRankQuadratics(self.A.of(chosen), self.b[chosen], self.c[chosen])

    def products(self, W: Floats) -> Floats:
        """`A_t w_t` for models (K, L, T, C), of `L` strengths for each data set."""
        return self.A.times(W)

    def resolvent(self, rho: Floats) -> Resolvent:
        """`(A_t + ρ I)⁻¹` with `ρ` (K,) of each data set."""
        return self.A.plus(rho[:, None, None]).inverse()


def quadratic_terms(A: SecondDerivatives, b: Floats, c: Floats) -> QuadraticTerms:
    """The terms with such matrices, by their form."""
    if isinstance(A, Whole):
        return Quadratics(A.A, b, c)
    assert isinstance(A, LowRank)
    return LowRankQuadratics(A, b, c)


class _Inverse:
    """A resolvent from whole matrices."""

    def __init__(self, factor: Factor) -> None:
        self._factor = factor

    def times(self, W: Floats) -> Floats:
        return apply(self._factor, W)

    def of(self, chosen: Chosen) -> _Inverse:
        return _Inverse(self._factor.of(chosen))


def column_shares(sizes: Floats) -> Floats:
    """The factors (…, C) by which the ridge of columns that are far smaller than others is smaller.

    They are 1 for columns of usual sizes, and for those without data. A ridge that is a share of the mean
    diagonal would hold models of columns that are 10,000 times smaller where they are.

    Parameters
    ----------
    sizes : (…, C) float64 array
        Second derivatives along the columns.
    """
    scale = mean(sizes, sizes.ndim - 1)[..., None]
    shares = np.clip(_UNUSUAL * sizes / np.where(scale > 0.0, scale, 1.0), _LEAST_SHARE, 1.0)
    return np.where(sizes > 0.0, shares, 1.0)


def inverse(A: Floats, ridge: float | Floats) -> Floats:
    """`(A_t + ridge·I)⁻¹` of (…, C, C) matrices; `ridge` may be one number for each matrix."""
    shift = np.asarray(ridge, dtype=np.float64)[..., None, None] * np.eye(A.shape[-1])
    return solving.inverse(A + shift)
