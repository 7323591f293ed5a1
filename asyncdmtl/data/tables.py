"""Data of one's own: from tables in files to partitions of many tasks, and rows to test on.

One column names the task of each row, one is the target, and the others are features. `load_table` splits and
cuts what `asyncdmtl run` trains on; `load_partitions` is for a worker, whose files are its partitions;
`read_table` reads rows to predict. What comes from them are `RawPartition`s: they become numbers once all
sites have agreed on an encoding.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.data.columns import Column, Texts, as_text, is_missing, is_numeric, to_numbers, to_text
from asyncdmtl.data.files import Source, find_files, read_columns
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import check_categories
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.validation import whole_number

log = logging.getLogger(__name__)


# Names in `.npz` files.
TASK, WEIGHT = "tasks", "sample_weight"
NAME_LENGTH = 200


@dataclass(frozen=True)
class TableSpec:
    """Which files to read, and what their columns mean.

    Parameters
    ----------
    files : tuple of str
        Paths, URLs, patterns (see `files.find_files`).
    task, target : str
        The column that names the task of each row, and the one to predict; the defaults are those of `.npz`.
    features : tuple of str, optional
        Columns to predict from, in this order; default all others.
    omit : tuple of str
        Columns not to predict from, nor to look at, where `features` does not say which.
    weight : str, optional
        A column of weights of at least 0; rows of weight 0 are left out. Default: `sample_weight`, if there
        is such a column.
    test_fraction : float
        The share of each task's rows to test on, from 0 to below 1.
    parts : int
        Into how many partitions each task is cut at the most.

    Raises
    ------
    UsageError
        Names the option that breaks a rule.
    """

    files: tuple[str, ...]
    task: str = TASK
    target: str = "y"
    features: tuple[str, ...] | None = None
    omit: tuple[str, ...] = ()
    weight: str | None = None
    test_fraction: float = 0.0
    parts: int = 1

    def __post_init__(self) -> None:
        if not self.files:
            raise UsageError("data", "must be at least one file", self.files)
        special = [name for name in (self.task, self.target, self.weight) if name is not None]
        if len(set(special)) < len(special):
            raise UsageError("task, target and weight", "must be different columns", special)
        if self.features is not None:
            if not self.features or len(set(self.features)) < len(self.features):
                raise UsageError("features", "must be different columns, at least one", self.features)
            if both := sorted(set(special) & set(self.features)):
                raise UsageError("features", "must not include task, target or weight, as", both)
        if self.omit and self.features is not None:
            raise UsageError("omit", "must not be given with features", self.omit)
        if both := sorted(set(special) & set(self.omit)):
            raise UsageError("omit", "must not include task, target or weight, as", both)
        if not isinstance(self.test_fraction, int | float) or not 0.0 <= self.test_fraction < 1.0:
            raise UsageError("test fraction", "must be at least 0 and below 1", self.test_fraction)
        whole_number("parts", self.parts, 1)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with what their columns mean: `tasks` (rows,) of str, `target` if there is one, the features."""

    tasks: Texts
    target: Column | None
    columns: Mapping[str, Column]
    weights: Floats | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.tasks)

    def take(self, rows: Indices) -> Table:
        """Some of the rows."""
        return Table(
            self.tasks[rows],
            None if self.target is None else self.target[rows],
            {name: column[rows] for name, column in self.columns.items()},
            None if self.weights is None else self.weights[rows],
        )

    def of_tasks(self) -> dict[str, Indices]:
        """The rows of each task, ascending; tasks in natural order."""
        if not self.rows:
            return {}
        codes: dict[str, int] = {}
        of = np.array([codes.setdefault(task, len(codes)) for task in self.tasks.tolist()], dtype=np.int64)
        cuts = np.cumsum(np.bincount(of, minlength=len(codes)))[:-1]
        rows = dict(zip(codes, np.split(np.argsort(of, kind="stable"), cuts), strict=True))
        return {task: rows[task] for task in sorted(rows, key=natural_key)}


@dataclass(frozen=True, eq=False)
class TableData:
    """What `load_table` makes of a table.

    Attributes
    ----------
    partitions : tuple of RawPartition
        `p0`, `p1`, …, task after task, tasks in natural order.
    test : mapping of task to RawPartition
        Rows to test on; tasks without any are not in it.
    loss : str
        The one to suggest, from `suggest_loss`.
    """

    partitions: tuple[RawPartition, ...]
    test: Mapping[str, RawPartition]
    loss: str


def load_table(spec: TableSpec, seed: int) -> TableData:
    """Read a table, set rows of each task aside for testing, and cut the others into partitions.

    A task gets `round(test_fraction·rows)` test rows, drawn with the seed, but keeps one row to train on.
    Where the target has two classes, test rows and partitions get their share of each (to within a row). Rows
    of a partition are in the order of the file. A task with fewer rows than `parts` has one for each row.

    Raises
    ------
    UsageError
        `seed` is no whole number from 0 on; or, as DataError, names the file and column that cannot be read
        or trained on. Rows without task or target are left out with a warning.
    """
    whole_number("seed", seed)
    table = _read(spec, find_files(spec.files))
    assert table.target is not None
    _check(table, "data")
    loss = suggest_loss(table.target, spec.target)
    classes = to_text(table.target) if loss == "logistic" else None
    partitions: list[RawPartition] = []
    test: dict[str, RawPartition] = {}
    for task, rows in table.of_tasks().items():
        mixed = _mix(rows, classes, np.random.default_rng([seed, *task.encode()]))
        aside = min(round(spec.test_fraction * len(rows)), len(rows) - 1)
        # Evenly spaced among rows that are ordered by class: the same share of each.
        chosen = (2 * np.arange(aside) + 1) * len(rows) // max(2 * aside, 1)
        train = np.delete(mixed, chosen)
        if aside:
            test[task] = _partition(spec, table, f"test/{task}", task, np.sort(mixed[chosen]))
        for part in range(min(spec.parts, len(train))):
            own = np.sort(train[part :: spec.parts])
            partitions.append(_partition(spec, table, f"p{len(partitions)}", task, own))
    return TableData(tuple(partitions), test, loss)


def load_partitions(spec: TableSpec) -> tuple[RawPartition, ...]:
    """What a worker stores: of each of its files, the rows of each task are a partition.

    It is called by the name of the file (without directories and ending) and the task, `north/school 3`:
    equal files have equal names everywhere. All rows are for training; files are read one by one, so that a
    partition does not depend on what else is stored here.

    Raises
    ------
    UsageError
        `test_fraction` or `parts` is set; or, as DataError, names the file and column that cannot be read or
        trained on, or two files of one name.
    """
    if spec.test_fraction or spec.parts != 1:
        raise UsageError("test fraction and parts", "must be left alone: files are partitions", spec)
    sources = find_files(spec.files)
    counts = Counter(source.stem for source in sources)
    if twice := [source.name for source in sources if counts[source.stem] > 1]:
        raise DataError("data files", "must have different names, without directories and endings", twice)
    partitions: list[RawPartition] = []
    for source in sources:
        table = _read(spec, [source])
        _check(table, f"data file {source.name}")
        for task, rows in table.of_tasks().items():
            partitions.append(_partition(spec, table, f"{source.stem}/{task}", task, rows))
    return tuple(partitions)


def read_table(
    patterns: Sequence[str], *, task: str, features: Sequence[str], text: Collection[str] = ()
) -> Table:
    """Rows to predict, of all files in turn, none left out.

    Parameters
    ----------
    patterns : sequence of str
        See `files.find_files`.
    task : str
        The column with the names of tasks.
    features, text : of str
        `Encoding.sources` and `Encoding.categories` of the model.

    Raises
    ------
    DataError
        A file cannot be read, lacks a column, or has a row without task.
    """
    tables = []
    for source in find_files(patterns):
        columns = read_columns(source, key=task, only=set(features), text=text)
        _check_columns(source, columns, features)
        tasks = columns[task]
        if (absent := is_missing(tasks)).any():
            rule = "must name a task in every row; row"
            raise DataError(f"column {task!r} of {source.name}", rule, int(absent.argmax()) + 1)
        tables.append(Table(to_text(tasks), None, {name: columns[name] for name in features}, None))
    return _concatenate(tables)


# Whole numbers that are so few might be classes.
MOST_SUSPICIOUS = 5


def suggest_loss(target: Column, name: str = "target") -> str:
    """The loss for a target: "logistic" for two classes (text or two whole numbers), else "squared".

    Raises
    ------
    DataError
        Text with one class or with more than two.
    """
    values = sorted(set(target.tolist()))
    if is_numeric(target):
        whole = all(value.is_integer() for value in values)
        if whole and 2 < len(values) <= MOST_SUSPICIOUS:
            few = ", ".join(as_text(value) for value in values)
            log.warning("target %r has the values %s only: taken as numbers, not as classes", name, few)
        return "logistic" if len(values) == 2 and whole else "squared"
    if len(values) != 2:
        rule = "must be numbers or have two classes (CodedMultiTaskClassifier can train one against the rest)"
        raise DataError(f"target {name!r}", rule, values[:10])
    return "logistic"


def _read(spec: TableSpec, sources: Sequence[Source]) -> Table:
    """All rows of some files that have a task and a target."""
    only = None if spec.features is None else {spec.target, spec.weight or WEIGHT, *spec.features}
    files = [read_columns(source, key=spec.task, only=only, omit=spec.omit) for source in sources]
    # What looks like numbers in one file is text if it is in another, and read again as it stands there.
    if mixed := _of_text(files) & _of_numbers(files):
        files = [
            read_columns(source, key=spec.task, only=only, omit=spec.omit, text=mixed) for source in sources
        ]
    features, weight = _roles(spec, list(dict.fromkeys(name for columns in files for name in columns)))
    tables = []
    for source, columns in zip(sources, files, strict=True):
        _check_columns(source, columns, [spec.target, *features, *([weight] if weight else [])])
        weights = _weights(columns[weight], f"weight {weight!r} of {source.name}") if weight else None
        tasks, target = to_text(columns[spec.task]), columns[spec.target]
        table = Table(tasks, target, {name: columns[name] for name in features}, weights)
        tables.append(_usable(table, source.name))
    return _concatenate(tables)


def _roles(spec: TableSpec, names: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Which columns are the features, and which has the weights, if any."""
    taken = (spec.task, spec.target, *(spec.features or ()))
    weight = spec.weight or (WEIGHT if WEIGHT in names and WEIGHT not in taken else None)
    features = spec.features or tuple(name for name in names if name not in (*taken, weight))
    if not features:
        raise DataError("features", "must be at least one column beside task, target and weight", names)
    return features, weight


def _check_columns(source: Source, columns: Mapping[str, Column], names: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise DataError(f"data file {source.name}", f"must have a column {name!r}", list(columns))


def _of_text(files: Sequence[Mapping[str, Column]]) -> set[str]:
    return {name for columns in files for name, column in columns.items() if not is_numeric(column)}


def _of_numbers(files: Sequence[Mapping[str, Column]]) -> set[str]:
    """Columns with a number in some file; one without any value is of either kind."""
    return {
        name
        for columns in files
        for name, column in columns.items()
        if is_numeric(column) and not is_missing(column).all()
    }


def _weights(column: Column, what: str) -> Floats:
    weights = to_numbers(column, what)
    if (bad := ~(np.isfinite(weights) & (weights >= 0.0))).any():
        raise DataError(what, "must be a finite number of at least 0 in every row", float(weights[bad][0]))
    return weights


def _usable(table: Table, name: str) -> Table:
    """The rows of a file that can be trained on; says how many others there are."""
    assert table.target is not None
    unusable = {"task": is_missing(table.tasks), "target": is_missing(table.target)}
    if table.weights is not None:
        unusable["weight"] = table.weights == 0.0
    kept = np.ones(table.rows, dtype=np.bool_)
    for what, missing in unusable.items():
        if count := int(np.count_nonzero(missing)):
            log.warning("%s: %d of %d rows have no %s and are left out", name, count, table.rows, what)
        kept &= ~missing
    if not kept.any():
        raise DataError(f"data file {name}", "must have a row with task and target", table.rows)
    return table if kept.all() else table.take(np.flatnonzero(kept))


def _concatenate(tables: Sequence[Table]) -> Table:
    """The rows of all tables, which have the same columns."""
    first = tables[0]
    if len(tables) == 1:
        return first
    targets = [table.target for table in tables if table.target is not None]
    weights = [table.weights for table in tables if table.weights is not None]
    return Table(
        np.concatenate([table.tasks for table in tables]),
        _joined(targets) if targets else None,
        {name: _joined([table.columns[name] for table in tables]) for name in first.columns},
        np.concatenate(weights) if weights else None,
    )


def _joined(columns: Sequence[Column]) -> Column:
    """One below the other; a column without any value is text among text."""
    numeric = all(map(is_numeric, columns))
    joined: Column = np.concatenate([column if numeric else to_text(column) for column in columns])
    return joined


def _check(table: Table, what: str) -> None:
    """Refuse names of tasks that cannot be shown, and columns of names or free text."""
    for task in set(table.tasks.tolist()):
        _check_name(f"task of {what}", task)
    for name, column in table.columns.items():
        if not is_numeric(column):
            values = set(column.tolist()) - {None}
            try:
                check_categories(values, table.rows - int(np.count_nonzero(is_missing(column))))
            except DataError as error:
                raise DataError(f"column {name!r} of {what}", error.rule, error.value) from error


def _check_name(what: str, name: str) -> None:
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise DataError(what, f"must be named by at most {NAME_LENGTH} printable characters", name)


def _mix(rows: Indices, classes: Texts | None, rng: np.random.Generator) -> Indices:
    """The rows in random order; those of one class together, if there are classes."""
    mixed = rng.permutation(rows)
    if classes is None:
        return mixed
    return mixed[np.argsort(classes[mixed] == classes[mixed].max(), kind="stable")]


def _partition(spec: TableSpec, table: Table, name: str, task: str, rows: Indices) -> RawPartition:
    _check_name("partition", name)
    part = table.take(rows)
    assert part.target is not None
    return RawPartition(name, task, part.columns, part.target, part.weights, spec.target)
