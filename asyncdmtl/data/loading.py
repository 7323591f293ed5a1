"""What `--data` means: a recipe that makes data, or tables in files; and what a run needs of either."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.data import recipes, tables
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.files import ENDINGS
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.stored import Stored
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition

Rows = tuple[NDArray[np.float64], NDArray[np.float64]]

# For data of one's own: what suits most, to the end. λ is chosen by cross-validation. In float32, models come
# to rest 1e-5 above the least where columns nearly repeat each other, as they often do in real tables.
TABLE_DEFAULTS: Mapping[str, Any] = {
    "coupling": "nuclear", "rounds": 5000, "tolerance": 1e-6, "intercept": "free", "standardise": True,
    "dtype": "float64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Loaded:
    """Partitions of raw rows, rows to test on, and the settings that suit them.

    Attributes
    ----------
    name : str
        What was asked for.
    stored : tuple of Partition or RawPartition
    test : mapping of task to rows
        `X`, `y` or a RawPartition.
    defaults : mapping
        Settings that suit the data, by name.
    metric : str or None
        What test rows are scored by, if not what suits the loss.
    task : str or None
        The name of the column, for tables.
    """

    name: str
    stored: tuple[Stored, ...]
    test: Mapping[str, Rows | RawPartition]
    defaults: Mapping[str, Any]
    metric: str | None = None
    task: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the partitions."""
        return tuple(stored.id for stored in self.stored)

    def prepared(self, settings: Settings) -> Prepared:
        """All rows as numbers, with the encoding that a run's server would find.

        Raises
        ------
        DataError
            Names the column that cannot be encoded.
        """
        surveys = {stored.id: Survey.from_dict(stored.declaration().survey) for stored in self.stored}
        encoding = pool(surveys, settings.loss, standardise=settings.standardise, centre=settings.centred)
        test = {}
        for task, rows in self.test.items():
            if isinstance(rows, RawPartition):
                encoded = rows.encoded(encoding)
                test[task] = encoded.X, encoded.y
            else:
                test[task] = rows
        return Prepared(tuple(stored.encoded(encoding) for stored in self.stored), test, encoding)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows that are numbers: to train on, to test on (task → `X`, `y`), and how they were made."""

    partitions: tuple[Partition, ...]
    test: Mapping[str, Rows]
    encoding: Encoding

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that are trained on."""
        return frozenset(partition.task for partition in self.partitions)


def is_table(spec: str) -> bool:
    """Whether `--data` names files rather than a recipe."""
    return "://" in spec or "*" in spec or spec.lower().endswith(ENDINGS)


def table_spec(given: Mapping[str, Any]) -> tables.TableSpec:
    """What the data options say of tables.

    Raises
    ------
    UsageError
        Task or target is missing where the file does not say it by itself.
    """
    patterns = tuple(part for part in given["data"].split(",") if part)
    npz = all(pattern.lower().endswith(".npz") for pattern in patterns)
    named = {name: given[name] for name in ("task", "target") if given[name] is not None}
    for name in ("task", "target"):
        if name not in named and not npz:
            raise UsageError(f"--{name}", "must name a column of the data", None)
    features = None if given["features"] is None else tuple(_names(given["features"]))
    omit = tuple(_names(given.get("omit") or ""))
    cut = {name: given[name] for name in ("test_fraction", "parts") if given.get(name) is not None}
    return tables.TableSpec(patterns, **named, features=features, omit=omit, weight=given["weight"], **cut)


def load(given: Mapping[str, Any], *, test: bool = True) -> Loaded:
    """All partitions of a recipe or a table.

    Parameters
    ----------
    given : mapping
        The data options, and `seed`.
    test : bool
        Whether to have rows to test on.

    Raises
    ------
    UsageError
        As DataError, or naming the option.
    """
    if not is_table(given["data"]):
        return _recipe(given, None, test)
    spec = table_spec(given)
    table = tables.load_table(spec, given["seed"])
    defaults = {**TABLE_DEFAULTS, "loss": table.loss}
    return Loaded(given["data"], table.partitions, table.test if test else {}, defaults, task=spec.task)


def load_stored(given: Mapping[str, Any], only: Collection[str] | None) -> tuple[Stored, ...]:
    """What a worker stores: those of the partitions of a recipe or table whose names are given.

    Without names (None) all of a recipe, and of files each file's rows of a task (`tables.load_partitions`).

    Raises
    ------
    UsageError
        As DataError, or naming the option.
    """
    if not is_table(given["data"]):
        return _recipe(given, only, False).stored
    if only is None:
        return tables.load_partitions(table_spec(given))
    # Who knows partitions of a whole table by name has read it, and was warned then.
    with unwarned():
        loaded = load(given, test=False)
    if unknown := sorted(set(only) - set(loaded.ids)):
        rule = f"has the partitions {loaded.ids[0]} to {loaded.ids[-1]}; unknown"
        raise UsageError(f"data {loaded.name}", rule, unknown)
    return tuple(stored for stored in loaded.stored if stored.id in only)


@contextmanager
def unwarned() -> Iterator[None]:
    """Keep back what another process of the same run warns of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def recipe_defaults(dataset: recipes.Dataset) -> dict[str, Any]:
    """Settings that suit a recipe."""
    intercept = "free" if dataset.intercept else "none"
    return {**dataset.suggested, "loss": dataset.loss, "intercept": intercept}


def _recipe(given: Mapping[str, Any], only: Collection[str] | None, test: bool) -> Loaded:
    for name in ("task", "target", "features", "omit", "weight", "test_fraction", "parts"):
        if given.get(name) is not None:
            rule = f"is for data in files only ({', '.join(ENDINGS)}), and {given['data']!r} is none"
            raise UsageError(f"--{name.replace('_', '-')}", rule, given[name])
    dataset = recipes.load(given["data"], seed=given["seed"], only=only, test=test)
    defaults = recipe_defaults(dataset)
    return Loaded(given["data"], dataset.partitions, dataset.test, defaults, dataset.metric)


def _names(text: str) -> list[str]:
    """Column names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
