"""From a `--data` specification to partitions, test rows and suggested settings.

    NAME                      a recipe that ships, such as digits
    NAME:key=value,key=value  the same with other parameters
    FILE.toml[:key=value…]    a recipe of one's own (datasets/README.md tells the format)

A recipe names a source and its parameters. A source is a frozen dataclass whose fields are the parameters;
a line in `SOURCES` adds one.
"""

from __future__ import annotations

import math
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition

Rows = tuple[Floats, Floats]
Sides = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


class Suggested(TypedDict):
    """Settings that suit a data set, for options that are not given."""

    coupling: str
    strength: float
    rounds: int


@dataclass(frozen=True)
class Dataset:
    """Partitions, test rows and suggested settings.

    Attributes
    ----------
    name : str
        The specification it was made from.
    loss : str
        A name in `asyncdmtl.learning.losses.LOSSES`.
    metric : str
        What test rows are scored by: "ROC AUC" or "RMSE".
    partitions : tuple of Partition
        Those that were asked for, in the order of `ids`.
    ids : tuple of str
        All partitions: `p0`, `p1`, …, task after task.
    test : mapping of task to `X` (rows, features) and `y` (rows,)
        Empty if it was not asked for.
    suggested : mapping
        `coupling`, `strength` and `rounds`.
    intercept : bool
        Whether models should have one.
    """

    name: str
    loss: str
    metric: str
    partitions: tuple[Partition, ...]
    ids: tuple[str, ...]
    test: Mapping[str, Rows]
    suggested: Suggested
    intercept: bool


@dataclass(frozen=True)
class Source(ABC):
    """Makes the rows of a data set; fields are its parameters, with the least value each may have."""

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
        """The strength to suggest where the recipe leaves it to the source."""

    @abstractmethod
    def partition(self, task: int, part: int, seed: int) -> Rows:
        """Training rows of one of the `parts` of a task."""

    @abstractmethod
    def test(self, task: int, seed: int) -> Rows:
        """Test rows of a task."""

    def rows_of(self, part: int) -> slice:
        """Which of a task's rows make up a part: sizes differ by one at most."""
        return slice(part * self.rows // self.parts, (part + 1) * self.rows // self.parts)


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1797 handwritten digits (8 × 8 pixels) as ten tasks: digit `t` against the rest.

    Every task gets `rows` rows of its own, alternating between its two sides, so that parts are
    balanced too; test rows are those of either side that no task trains on. Features are pixels / 16,
    targets 1 and 0, and the models their least-squares classifiers.
    """

    loss = "squared"
    metric = "ROC AUC"
    intercept = True
    least: ClassVar[Mapping[str, int]] = {"rows": 2, "parts": 1}
    # Every task may take its share and the test still has rows of each digit.
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
        """Measured at 40 rows (datasets/README.md); sampling noise falls with the root of the rows."""
        return 0.02 * math.sqrt(40 / self.rows)

    def partition(self, task: int, part: int, seed: int) -> Rows:
        """Training rows of one part of a task."""
        return self._rows(task, _draw_digits(self.sides, self.rows, seed)[0][task][self.rows_of(part)])

    def test(self, task: int, seed: int) -> Rows:
        """The rows of either side that no task trains on."""
        left = _draw_digits(self.sides, self.rows, seed)[1]
        return self._rows(task, left[np.isin(_digits()[1][left], sum(self.sides[task], ()))])

    def _rows(self, task: int, chosen: Indices) -> Rows:
        pixels, digits = _digits()
        return pixels[chosen], np.isin(digits[chosen], self.sides[task][0]).astype(np.float64)


@dataclass(frozen=True)
class DigitPairs(Digits):
    """The ten pairs of five digits that are easily confused: one digit against another.

    The best classifiers of pairs are differences of five vectors, a subspace of dimension four:
    what the nuclear norm looks for. (Those of digit against rest have no such structure.)
    """

    loss = "logistic"
    most_rows: ClassVar[int] = 60
    sides: ClassVar[Sides] = tuple(((a,), (b,)) for a, b in combinations((1, 3, 5, 8, 9), 2))

    rows: int = 10

    @property
    def names(self) -> tuple[str, ...]:
        """`1 or 3` … `8 or 9`."""
        return tuple(f"{a} or {b}" for (a,), (b,) in self.sides)

    @property
    def strength(self) -> float:
        """Measured from 6 to 20 rows, where the best λ hardly moves (datasets/README.md)."""
        return 0.1


@dataclass(frozen=True)
class Synthetic(Source):
    """Regression tasks whose true models lie in one subspace of dimension `rank`.

    `y = x·w_t + noise·ε` with `x` and `ε` standard normal and `w_t = c_t·B`: `B` (rank, features) is shared,
    `c_t` belongs to the task, and `E‖w_t‖² = 1`, so that the signal has variance 1 for any size.
    Every partition comes from a generator of its own: a worker makes just those that it stores.
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
        """`0.6·(noise / √rows)·(√features + √tasks)`, some of the spectral norm of the gradients' noise.

        What the theory of nuclear-norm regression asks for, up to the constant: Negahban and Wainwright,
        "Estimation of (near) low-rank matrices with noise and high-dimensional scaling", 2011.
        """
        return 0.6 * self.noise / math.sqrt(self.rows) * (math.sqrt(self.features) + math.sqrt(self.tasks))

    def partition(self, task: int, part: int, seed: int) -> Rows:
        """Training rows of one part of a task."""
        own = self.rows_of(part)
        return self._draw(task, own.stop - own.start, _generator(seed, "rows", task, part), seed)

    def test(self, task: int, seed: int) -> Rows:
        """`test_rows` further rows of a task."""
        return self._draw(task, self.test_rows, _generator(seed, "test", task), seed)

    def _draw(self, task: int, rows: int, rng: np.random.Generator, seed: int) -> Rows:
        w = _generator(seed, "task", task).standard_normal(self.rank) @ _basis(self.rank, self.features, seed)
        # Values are rounded to float32: a last bit that differs between CPUs must not change the digest.
        X = rng.standard_normal((rows, self.features), dtype=np.float32).astype(np.float64)
        y = X @ w + self.noise * rng.standard_normal(rows)
        return X, y.astype(np.float32).astype(np.float64)


SOURCES: Mapping[str, type[Source]] = MappingProxyType(
    {"digits": Digits, "digit-pairs": DigitPairs, "synthetic": Synthetic}
)


def load(spec: str, *, seed: int, only: Collection[str] | None = None, test: bool = True) -> Dataset:
    """Make the data set that `spec` describes (grammar: see the module).

    Parameters
    ----------
    spec : str
    seed : int
        Equal specification and seed give equal partitions everywhere.
    only : collection of str, optional
        The partitions to make; default all. The others cost no memory.
    test : bool
        Whether to make the test rows.

    Raises
    ------
    DataError
        No such recipe, file, parameter or partition, or a value of the wrong type or size.
    """
    if seed < 0:
        raise DataError("seed", "must be at least 0", seed)
    name, overrides = _parse(spec)
    content = _read(_recipe_path(name), name)
    source = _make_source(name, content, overrides)
    ids = tuple(f"p{n}" for n in range(len(source.names) * source.parts))
    if only is not None and (unknown := sorted(set(only) - set(ids))):
        raise DataError(f"data {spec}", f"has the partitions {ids[0]} to {ids[-1]}; unknown", unknown)
    partitions = tuple(
        Partition(ids[n], source.names[n // source.parts], *source.partition(*divmod(n, source.parts), seed))
        for n in range(len(ids))
        if only is None or ids[n] in only
    )
    rows = {task: source.test(t, seed) for t, task in enumerate(source.names)} if test else {}
    suggested = _suggested(name, content, source)
    return Dataset(spec, source.loss, source.metric, partitions, ids, rows, suggested, source.intercept)


def list_recipes() -> dict[str, str]:
    """The recipes that ship: name → one-line description."""
    return {
        path.stem: str(_read(path, path.stem)["description"]) for path in sorted(_folder().glob("*.toml"))
    }


@cache
def _digits() -> tuple[Floats, Indices]:
    # Here and not above: a worker on other data need not wait for scikit-learn.
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    return pixels / 16.0, digits


@cache
def _draw_digits(sides: Sides, rows: int, seed: int) -> tuple[tuple[Indices, ...], Indices]:
    """Rows that each task trains on, disjoint, its sides alternating; and the rows left for the test."""
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
    """`B` (rank, features), scaled so that standard normal combinations have an expected square norm of 1."""
    rng = _generator(seed, "basis")
    B = rng.standard_normal((rank, features), dtype=np.float32).astype(np.float64)
    return B / math.sqrt(rank * features)


def _generator(seed: int, *key: str | int) -> np.random.Generator:
    """An independent generator for each key."""
    words = [int.from_bytes(word.encode(), "little") if isinstance(word, str) else word for word in key]
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=words))


def _parse(spec: str) -> tuple[str, dict[str, str]]:
    """Name or file, and parameters."""
    # A path may itself have a colon in it, so the ending is what counts.
    if spec.endswith(".toml"):
        return spec, {}
    if ".toml:" in spec:
        head, _, tail = spec.rpartition(".toml:")
        name = f"{head}.toml"
    else:
        name, _, tail = spec.partition(":")
    overrides: dict[str, str] = {}
    for pair in filter(None, tail.split(",")):
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not (key and equals and value) or key in overrides:
            raise DataError(f"data {spec}", "must be NAME:key=value,key=value with each key once", pair)
        overrides[key] = value
    return name, overrides


def _folder() -> Path:
    """`datasets/`: within the package once installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    return next((f for f in (here / "datasets", here.parent / "datasets") if f.is_dir()), here / "datasets")


def _recipe_path(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    path = _folder() / f"{name}.toml"
    if name not in (known := sorted(p.stem for p in _folder().glob("*.toml"))):
        raise DataError("data", f"must be one of {', '.join(known)} or a recipe FILE.toml", name)
    return path


def _read(path: Path, name: str) -> dict[str, Any]:
    """A recipe's content, its shape checked."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"data recipe {name}", f"must be readable ({error.strerror})", str(path)) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"data recipe {name}", f"must be TOML ({error})", str(path)) from error
    known = {"source": str, "description": str, "parameters": dict, "suggested": dict}
    for key, value in content.items():
        if key not in known or not isinstance(value, known[key]):
            shape = ", ".join(f"{k} ({t.__name__})" for k, t in known.items())
            raise DataError(f"data recipe {name}", f"may have {shape}; not", {key: value})
    if content.get("source") not in SOURCES:
        raise DataError(
            f"data recipe {name}: source", f"must be one of {', '.join(SOURCES)}", content.get("source")
        )
    return content


def _make_source(name: str, content: Mapping[str, Any], overrides: Mapping[str, str]) -> Source:
    kind: Callable[..., Source] = SOURCES[content["source"]]
    types = {field.name: field.type for field in fields(SOURCES[content["source"]])}
    given = content.get("parameters", {}) | overrides
    values: dict[str, int | float] = {}
    for key, value in given.items():
        if key not in types:
            raise DataError(f"data {name}", f"has the parameters {', '.join(types)}; unknown", key)
        try:
            # By way of text, so that 2.5 is as wrong for a whole number in a file as on a command line.
            values[key] = float(str(value)) if types[key] == "float" else int(str(value))
        except ValueError as error:
            wanted = "a number" if types[key] == "float" else "a whole number"
            raise DataError(f"data {name}: {key}", f"must be {wanted}", value) from error
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"data {name}: {error.argument}", error.rule, error.value) from error


def _suggested(name: str, content: Mapping[str, Any], source: Source) -> Suggested:
    table = {"strength": source.strength} | content.get("suggested", {})
    try:
        if set(table) != set(Suggested.__annotations__):
            raise ValueError
        return Suggested(
            coupling=str(table["coupling"]), strength=float(table["strength"]), rounds=int(table["rounds"])
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"data recipe {name}: suggested", "needs a coupling, rounds, and perhaps a strength", table
        ) from error
