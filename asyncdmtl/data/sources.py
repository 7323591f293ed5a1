"""Sources of data sets that ship: handwritten digits, and synthetic regression.

A source is a frozen dataclass whose fields are its parameters. A recipe (`recipes`) names a source and gives
values to the parameters. A new source is a subclass of `Source` and a line in `SOURCES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import DataError

NumberRows = tuple[Floats, Floats]
"""`X` (rows, features) and `y` (rows,), float64."""

Sides = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""For each task, the digits with target 1 and the digits with target 0."""


@dataclass(frozen=True)
class Source(ABC):
    """Makes the rows of a data set. The fields are its parameters; `least` gives the minimum of each."""

    loss: ClassVar[str]
    metric: ClassVar[str]
    intercept: ClassVar[bool]
    least: ClassVar[Mapping[str, int]]

    rows: int
    parts: int

    def __post_init__(self) -> None:
        for name, least in self.least.items():
            if not least <= getattr(self, name) < math.inf:
                raise DataError(name, f"must be at least {least}", getattr(self, name))
        if self.parts > self.rows:
            raise DataError("parts", f"must not exceed the rows of a task ({self.rows})", self.parts)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tasks."""

    @property
    @abstractmethod
    def strength(self) -> float:
        """The strength λ to suggest if the recipe does not give one."""

    @abstractmethod
    def partition(self, task: int, part: int, seed: int) -> NumberRows:
        """Training rows of one of the `parts` of a task."""

    @abstractmethod
    def test(self, task: int, seed: int) -> NumberRows:
        """Test rows of a task."""

    def rows_of(self, part: int) -> slice:
        """The rows of a task that make up a part. The sizes of two parts differ by at most one."""
        return slice(part * self.rows // self.parts, (part + 1) * self.rows // self.parts)


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1797 handwritten digits (8 × 8 pixels) as ten tasks: digit `t` against the rest.

    Every task gets `rows` rows of its own, which alternate between its two sides, so that parts are balanced
    too. The test rows of a task are the rows of either side that no task trains on. Features are pixels
    divided by 16, targets are 1 and 0, and the models are least-squares classifiers.
    """

    loss = "squared"
    metric = "ROC AUC"
    intercept = True
    least: ClassVar[Mapping[str, int]] = {"rows": 2, "parts": 1}
    # The most rows per task that leave test rows of each digit.
    most_rows: ClassVar[int] = 80
    sides: ClassVar[Sides] = tuple(((t,), tuple(sorted({*range(10)} - {t}))) for t in range(10))

    rows: int = 40
    parts: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows > self.most_rows:
            raise DataError(
                "rows", f"must be at most {self.most_rows}, to leave some for the test", self.rows
            )

    @property
    def names(self) -> tuple[str, ...]:
        """`digit 0` … `digit 9`."""
        return tuple(f"digit {t}" for t in range(10))

    @property
    def strength(self) -> float:
        """`0.02·√(40/rows)`: the best λ measured at 40 rows, scaled like sampling noise."""
        return 0.02 * math.sqrt(40 / self.rows)

    def partition(self, task: int, part: int, seed: int) -> NumberRows:
        """Training rows of one part of a task."""
        return self._rows(task, _draw_digits(self.sides, self.rows, seed)[0][task][self.rows_of(part)])

    def test(self, task: int, seed: int) -> NumberRows:
        """The rows of either side of a task that no task trains on."""
        left = _draw_digits(self.sides, self.rows, seed)[1]
        return self._rows(task, left[np.isin(_digits()[1][left], sum(self.sides[task], ()))])

    def _rows(self, task: int, chosen: Indices) -> NumberRows:
        pixels, digits = _digits()
        return pixels[chosen], np.isin(digits[chosen], self.sides[task][0]).astype(np.float64)


@dataclass(frozen=True)
class DigitPairs(Digits):
    """The ten pairs of five digits that are easily confused: one digit against another.

    The best classifiers of pairs are differences of five vectors, so they lie in a subspace of dimension
    four, as the nuclear norm assumes. (Classifiers of one digit against the rest have no such structure.)
    """

    loss = "logistic"
    # The most rows per task that leave test rows of each digit, since every digit is in four pairs.
    most_rows: ClassVar[int] = 60
    sides: ClassVar[Sides] = tuple(((a,), (b,)) for a, b in combinations((1, 3, 5, 8, 9), 2))

    rows: int = 10

    @property
    def names(self) -> tuple[str, ...]:
        """`1 or 3` … `8 or 9`."""
        return tuple(f"{a} or {b}" for (a,), (b,) in self.sides)

    @property
    def strength(self) -> float:
        """0.1: the best λ measured at 6 to 20 rows per task, where it hardly depends on the rows."""
        return 0.1


@dataclass(frozen=True)
class Synthetic(Source):
    """Regression tasks whose true models lie in one subspace of dimension `rank`.

    `y = x·w_t + noise·ε` with `x` and `ε` standard normal and `w_t = c_t·B`. `B` (rank, features) is shared
    by all tasks, `c_t` belongs to the task, and `E‖w_t‖² = 1`: the signal has variance 1 for any size.
    Every partition is drawn from a generator of its own, so a worker makes only the partitions it stores.
    """

    loss = "squared"
    metric = "RMSE"
    intercept = False
    least: ClassVar[Mapping[str, int]] = {
        "tasks": 1, "rows": 1, "features": 1, "rank": 1, "noise": 0, "parts": 1, "test_rows": 0,
    }  # fmt: skip

    rows: int = 40
    parts: int = 2
    tasks: int = 8
    features: int = 50
    rank: int = 2
    noise: float = 0.5
    test_rows: int = 200

    @property
    def names(self) -> tuple[str, ...]:
        """`task 0`, `task 1`, …."""
        return tuple(f"task {t}" for t in range(self.tasks))

    @property
    def strength(self) -> float:
        """`0.6·(noise / √rows)·(√features + √tasks)`, a share of the spectral norm of the gradients' noise.

        Up to the constant it is the strength of nuclear-norm regression in Negahban and Wainwright,
        "Estimation of (near) low-rank matrices with noise and high-dimensional scaling", 2011.
        """
        return 0.6 * self.noise / math.sqrt(self.rows) * (math.sqrt(self.features) + math.sqrt(self.tasks))

    def partition(self, task: int, part: int, seed: int) -> NumberRows:
        """Training rows of one part of a task."""
        own = self.rows_of(part)
        return self._draw(task, own.stop - own.start, _generator(seed, "rows", task, part), seed)

    def test(self, task: int, seed: int) -> NumberRows:
        """`test_rows` further rows of a task."""
        return self._draw(task, self.test_rows, _generator(seed, "test", task), seed)

    def _draw(self, task: int, rows: int, rng: np.random.Generator, seed: int) -> NumberRows:
        own = _generator(seed, "task", task).standard_normal(self.rank)
        w = matmul(own, _basis(self.rank, self.features, seed))
        # Rounded to float32, so that last bits that differ between CPUs do not change the digest.
        X = rng.standard_normal((rows, self.features), dtype=np.float32).astype(np.float64)
        y = matmul(X, w) + self.noise * rng.standard_normal(rows)
        return X, y.astype(np.float32).astype(np.float64)


@cache
def _digits() -> tuple[Floats, Indices]:
    """Pixels (1797, 64) from 0 to 1, and the digit of each row: `sklearn.datasets.load_digits`."""
    # Importing scikit-learn takes 1.5 s of processor time and 140 MB in every worker process, so its file of
    # the digits is read without it where the file is found.
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1] / 16.0, table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    return pixels / 16.0, digits


@cache
def _draw_digits(sides: Sides, rows: int, seed: int) -> tuple[tuple[Indices, ...], Indices]:
    """The rows that each task trains on, alternating between its sides; and the rows left for the test."""
    digits = _digits()[1]
    pool = _generator(seed, "digits").permutation(len(digits))
    chosen = []
    for positive, negative in sides:
        both = np.empty(rows, dtype=np.int64)
        both[0::2] = pool[np.isin(digits[pool], positive)][: (rows + 1) // 2]
        both[1::2] = pool[np.isin(digits[pool], negative)][: rows // 2]
        pool = pool[~np.isin(pool, both)]
        chosen.append(both)
    return tuple(chosen), np.sort(pool)


@cache
def _basis(rank: int, features: int, seed: int) -> Floats:
    """`B` (rank, features), scaled so that standard normal combinations have a mean squared norm of 1."""
    rng = _generator(seed, "basis")
    B = rng.standard_normal((rank, features), dtype=np.float32).astype(np.float64)
    return B / math.sqrt(rank * features)


def _generator(seed: int, *key: str | int) -> np.random.Generator:
    """A random generator that is independent of the generators of other keys."""
    words = [int.from_bytes(word.encode(), "little") if isinstance(word, str) else word for word in key]
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=words))


SOURCES: Mapping[str, type[Source]] = MappingProxyType(
    {"digits": Digits, "digit-pairs": DigitPairs, "synthetic": Synthetic}
)
