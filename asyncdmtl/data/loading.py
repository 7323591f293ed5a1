"""Loading of the data that the option `--data` names: a recipe, or tables in files."""

from __future__ import annotations

import csv
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncdmtl.data import recipes, tables
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.files import ENDINGS
from asyncdmtl.data.held_back import hold_back
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.reading import Reading
from asyncdmtl.data.sources import NumberRows
from asyncdmtl.data.stored import Stored
from asyncdmtl.data.surveys import Survey
from asyncdmtl.data.table import TableSpec
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import check_targets
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.plan.placement import Placement

TABLE_DEFAULTS: Mapping[str, Any] = {
    "coupling": "nuclear", "rounds": 5000, "tolerance": 1e-6, "intercept": "free", "standardise": True,
    "dtype": "float64",
}  # fmt: skip
"""Settings of runs on tables, unless options give others; λ is chosen by cross-validation.

The dtype is float64: in float32, the objective would end 1e-5 above its minimum if columns nearly repeat each
other, as they often do in real tables.
"""


@dataclass(frozen=True, eq=False)
class Loaded:
    """Partitions of raw rows, rows to test on, and default settings for them.

    Attributes
    ----------
    name : str
        The value of `--data`.
    stored : tuple of Partition or RawPartition
        The partitions.
    test : mapping of task to (`X`, `y`) or RawPartition
        Rows to test on.
    defaults : mapping
        Default settings for the data, by name.
    metric : str or None
        The metric of test rows, if it is not that of the loss.
    task : str or None
        For tables, the name of the column of tasks.
    """

    name: str
    stored: tuple[Stored, ...]
    test: Mapping[str, NumberRows | RawPartition]
    defaults: Mapping[str, Any]
    metric: str | None = None
    task: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the partitions, in order."""
        return tuple(stored.id for stored in self.stored)

    def prepared(self, settings: Settings) -> Prepared:
        """All rows as numbers, with the same encoding that the server of a run would compute.

        Raises
        ------
        DataError
            Names the column that cannot be encoded, or targets of test rows that do not suit the loss.
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
            check_targets(settings.loss, test[task][1], f"test rows of task {task!r}")
        return Prepared(tuple(stored.encoded(encoding) for stored in self.stored), test, encoding)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Encoded rows to train on and to test on (task → `X`, `y`), and their encoding."""

    partitions: tuple[Partition, ...]
    test: Mapping[str, NumberRows]
    encoding: Encoding

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that are trained on."""
        return frozenset(partition.task for partition in self.partitions)


def is_table(spec: str | Sequence[str]) -> bool:
    """Whether a value of `--data` names files, not a recipe."""
    if not isinstance(spec, str):
        return True
    names = _files_of(spec)
    return "*" in spec or any(
        "://" in name or name.lower().endswith(ENDINGS) or Path(name).is_dir() for name in names
    )


def table_spec(given: Mapping[str, Any]) -> TableSpec:
    """The description of tables that the data options give.

    Raises
    ------
    UsageError
        Task or target is missing, and the files are not all `.npz`, which have default names for them.
    """
    patterns = _files_of(given["data"])
    npz = all(pattern.lower().endswith(".npz") for pattern in patterns)
    named = {name: given[name] for name in ("task", "target") if given[name] is not None}
    for name in ("task", "target"):
        if name not in named and not npz:
            raise UsageError(f"--{name}", "must name a column of the data", None)
    features = None if given["features"] is None else names_of(given["features"])
    omit = names_of(given.get("omit") or ())
    cut = {name: given[name] for name in ("test_fraction", "parts") if given.get(name) is not None}
    return TableSpec(
        patterns,
        **named,
        features=features,
        omit=omit,
        weight=given["weight"],
        class_weight=given.get("class_weight"),
        **cut,
        reading=reading_of(given),
        site=given.get("site"),
    )


def reading_of(given: Mapping[str, Any]) -> Reading:
    """The options by which cells of files are read; UsageError names one that breaks a rule."""
    options: dict[str, Any] = {
        name: names_of(given[name]) for name in ("missing", "categorical", "header") if given.get(name)
    }
    options |= {
        name: given[name]
        for name in ("keep_missing_words", "decimal", "separator", "encoding")
        if given.get(name) is not None
    }
    return Reading(**options)


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The names that an option gives: one text with commas between names, or several texts, one name each.

    In one text, a name in double quotes may have commas and outer spaces in it, as in CSV.
    """
    texts = [given] if isinstance(given, str) else list(given)
    if len(texts) > 1:
        return tuple(texts)
    cells = next(csv.reader(texts, skipinitialspace=True), [])
    # Spaces before a name are skipped by the reader, except in quotes.
    return tuple(name.rstrip() for name in cells if name.strip())


def _files_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The names that `--data` gives. The name of a file that is there is one name, even with commas in it."""
    return (given,) if isinstance(given, str) and Path(given).exists() else names_of(given)


def load(given: Mapping[str, Any], *, test: bool = True) -> Loaded:
    """Load all partitions of a recipe or a table.

    Parameters
    ----------
    given : mapping
        The data options, and `seed`.
    test : bool
        Whether to load test rows too.

    Raises
    ------
    UsageError
        An option is missing or breaks a rule. It is a DataError if the data cannot be read or trained on.
    """
    if not is_table(given["data"]):
        if given.get("by_file"):
            raise UsageError("--by-file", "is for data in files", given["data"])
        return _recipe(given, None, test)
    if given.get("by_file"):
        return _by_file(given)
    spec = table_spec(given)
    table = tables.load_table(spec, given["seed"])
    defaults = {**TABLE_DEFAULTS, "loss": table.loss}
    return Loaded(
        ", ".join(spec.files), table.partitions, table.test if test else {}, defaults, task=spec.task
    )


def load_stored(given: Mapping[str, Any], only: Collection[str] | None) -> tuple[Stored, ...]:
    """Load the partitions that a worker stores.

    Parameters
    ----------
    given : mapping
        The data options, and `seed`.
    only : collection of str or None
        Names of partitions of a recipe or a table. With None, all partitions of a recipe are loaded; of
        files, each file's rows of a task are one partition (`tables.load_partitions`).

    Raises
    ------
    UsageError
        An option is missing or breaks a rule. It is a DataError if the data cannot be read or trained on.
    """
    if not is_table(given["data"]):
        return _recipe(given, only, False).stored
    if only is not None and given.get("site") is not None:
        raise UsageError("--site", "is for files that are partitions as they are", given["site"])
    if only is None:
        return tables.load_partitions(table_spec(given))
    if given.get("by_file"):
        with unwarned():
            stored = tables.load_partitions(table_spec(given), copies=True)
        return tuple(part for part in stored if part.id in only)
    # The process that chose the names has read the whole table and has shown its warnings.
    with unwarned():
        loaded = load(given, test=False)
    if unknown := sorted(set(only) - set(loaded.ids)):
        rule = f"has the partitions {loaded.ids[0]} to {loaded.ids[-1]}; unknown"
        raise UsageError(f"data {loaded.name}", rule, unknown)
    return tuple(stored for stored in loaded.stored if stored.id in only)


def load_share(given: Mapping[str, Any], worker: int, workers: int, copies: int) -> tuple[Stored, ...]:
    """Load what one of several workers stores when partitions are stored cyclically, as `Placement.cyclic`.

    Parameters
    ----------
    given : mapping
        The data options, and `seed`, which are the same at all workers.
    worker, workers, copies : int
        The number of this worker from 0 on, of all workers, and of those that store each partition.

    Raises
    ------
    UsageError
        As `load_stored`. It is a PlacementError if there cannot be so many copies.
    """
    if is_table(given["data"]):
        stored = load(given, test=False).stored
        own = Placement.cyclic(workers, len(stored), copies).stored[worker]
        return tuple(stored[part] for part in own)
    ids = recipes.load(given["data"], seed=given["seed"], only=(), test=False).ids
    own = Placement.cyclic(workers, len(ids), copies).stored[worker]
    return load_stored(given, [ids[part] for part in own])


def _by_file(given: Mapping[str, Any]) -> Loaded:
    """Partitions as workers make them of files, without the rows that workers keep for tests."""
    if given["parts"] is not None:
        raise UsageError("--parts", "cannot be given with --by-file", given["parts"])
    spec = table_spec({**given, "test_fraction": None})
    stored = tables.load_partitions(spec, copies=True)
    loss = tables.suggest_loss(tables.joined([part.target for part in stored]), spec.target)
    kept = tuple(hold_back(part, given["test_fraction"] or 0.0, given["seed"])[0] for part in stored)
    return Loaded(", ".join(spec.files), kept, {}, {**TABLE_DEFAULTS, "loss": loss}, task=spec.task)


@contextmanager
def unwarned() -> Iterator[None]:
    """Suppress warnings in a `with` block, since another process of the run shows the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def recipe_defaults(dataset: recipes.Dataset) -> dict[str, Any]:
    """The default settings of a recipe."""
    intercept = "free" if dataset.intercept else "none"
    return {**dataset.suggested, "loss": dataset.loss, "intercept": intercept}


def _recipe(given: Mapping[str, Any], only: Collection[str] | None, test: bool) -> Loaded:
    for name in (
        "task", "target", "features", "omit", "weight", "class_weight", "test_fraction", "parts", "missing",
        "categorical", "keep_missing_words", "decimal", "separator", "encoding", "header",
    ):  # fmt: skip
        if given.get(name) not in (None, False, ()):
            rule = f"is for data in files only ({', '.join(ENDINGS)}), and {given['data']!r} is none"
            raise UsageError(f"--{name.replace('_', '-')}", rule, given[name])
    dataset = recipes.load(given["data"], seed=given["seed"], only=only, test=test)
    defaults = recipe_defaults(dataset)
    return Loaded(given["data"], dataset.partitions, dataset.test, defaults, dataset.metric)
