"""Count, mean and sum of squared deviations of a column of numbers, and how to pool them over partitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.fields import read_fields
from asyncdmtl.errors import DataError, UsageError

# The least `M2` of numbers that differ. Below it, squares lose digits, and in the end become 0.
LEAST_SQUARES = 2.0**-960

# The most rows that a partition may claim to have: up to this, float64 holds every count exactly.
MAX_ROWS = 2**53


@dataclass(frozen=True)
class Moments:
    """A column of numbers: their count, their mean, and `M2`, the sum of their squared deviations from it."""

    count: int
    mean: float
    M2: float

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """The moments of numbers (rows,) without NaN. Equal numbers give equal bits on every CPU.

        A column in which all numbers are equal has an `M2` of exactly 0, and that number as its mean; any
        other column has an `M2` of at least `LEAST_SQUARES`.

        Raises
        ------
        DataError
            A number that is not finite, or too large to be squared.
        """
        return cls._of_rows(("values",), values[np.newaxis])["values"]

    @classmethod
    def of_columns(cls, columns: Mapping[str, Floats]) -> dict[str, Moments]:
        """The moments of each column (rows,) of a table, without its missing values, which are NaN.

        Raises
        ------
        DataError
            As `of`; it names the column.
        """
        if not columns:
            return {}
        # Thousands of short columns take a few operations on a matrix, not a few for each.
        matrix, names = np.stack(list(columns.values())), list(columns)
        missing = np.isnan(matrix)
        whole = ~missing.any(axis=1)
        found = cls._of_rows([names[at] for at in np.flatnonzero(whole)], matrix[whole])
        for at in np.flatnonzero(~whole):
            found |= cls._of_rows([names[at]], matrix[at : at + 1, ~missing[at]])
        return {name: found[name] for name in columns}

    @classmethod
    def _of_rows(cls, names: Sequence[str], matrix: Floats) -> dict[str, Moments]:
        """The moments of each row of a matrix without NaN."""
        count = matrix.shape[1]
        if not count:
            return dict.fromkeys(names, NO_MOMENTS)
        _refuse(names, matrix, ~np.isfinite(matrix), "must be finite")
        means = matrix[:, 0].copy()
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(2):  # the second pass corrects the rounding of the first
                means += _sums(matrix - means[:, np.newaxis]) / count
            M2 = _sums((matrix - means[:, np.newaxis]) ** 2)
        _refuse(names, matrix, ~np.isfinite(M2)[:, np.newaxis], "has numbers too large to be squared")
        differ = (matrix != matrix[:, :1]).any(axis=1)
        M2[differ] = np.maximum(M2[differ], LEAST_SQUARES)
        numbers = zip(names, means.tolist(), M2.tolist(), strict=True)
        return {name: cls(count, mean, squares) for name, mean, squares in numbers}

    @classmethod
    def pooled(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of all rows, from those of disjoint parts. Their order changes the last bit only.

        `M2 = Σ M2_i + Σ n_i (mean_i − mean)²`: Chan, Golub, LeVeque, "Algorithms for Computing the Sample
        Variance", The American Statistician 37(3), 1983.

        Raises
        ------
        DataError
            A sum is too large for a float64.
        """
        parts = [part for part in parts if part.count]
        if not parts:
            return cls(0, 0.0, 0.0)
        n, mean = sum(part.count for part in parts), parts[0].mean
        try:
            for _ in range(2):
                mean += math.fsum(part.count * (part.mean - mean) for part in parts) / n
            M2 = math.fsum(part.M2 + part.count * (part.mean - mean) * (part.mean - mean) for part in parts)
        except (OverflowError, ValueError):
            M2 = math.inf
        if not math.isfinite(M2):
            raise DataError(
                "values", "has numbers too large to be squared", max(abs(part.mean) for part in parts)
            )
        differ = any(part.M2 or part.mean != parts[0].mean for part in parts)
        return cls(n, mean, max(M2, LEAST_SQUARES) if differ else M2)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        return {"count": self.count, "mean": self.mean, "M2": self.M2}

    @classmethod
    def from_dict(cls, what: str, content: Any) -> Moments:
        """Read what `as_dict` returned. UsageError, which calls it `what`, if it is malformed."""
        count, mean, M2 = read_fields(what, content, count=int, mean=float, M2=float)
        if not 0 <= count <= MAX_ROWS or M2 < 0.0 or (count == 0 and (mean, M2) != (0.0, 0.0)):
            raise UsageError(what, "must have a count and an M2 of at least 0", content)
        return cls(count, mean, M2)


NO_MOMENTS = Moments(0, 0.0, 0.0)
"""The moments of a column without numbers."""


def _refuse(names: Sequence[str], matrix: Floats, bad: NDArray[np.bool_], rule: str) -> None:
    """DataError for the first row with a bad number, showing the largest of them."""
    if bad.any():
        at = int(bad.any(axis=1).argmax())
        values = matrix[at][np.broadcast_to(bad[at], matrix.shape[1:])]
        raise DataError(names[at], rule, float(values[np.abs(values).argmax()]))


def _sums(values: Floats) -> Floats:
    """The sum of each row, as a halving tree: errors grow with log₂ of its length; every CPU adds alike."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        halves = values[:, :half] + values[:, half : 2 * half]
        if values.shape[1] % 2:
            halves[:, 0] += values[:, -1]
        values = halves
    return values[:, 0]
