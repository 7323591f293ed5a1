"""Tables in files as partitions of many tasks, and as rows to test on or to predict.

`load_table` reads the rows that `asyncdmtl run` trains on, and splits them into test rows and partitions.
`load_partitions` is for a worker whose files are its partitions. `read_table` reads rows to predict.
Partitions are `RawPartition`s, which become numbers once all sites have agreed on an encoding.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.data.class_weights import balanced
from asyncdmtl.data.columns import (
    Column,
    Texts,
    as_text,
    is_missing,
    is_numeric,
    to_numbers,
    to_text,
    update_digest,
)
from asyncdmtl.data.files import STDIN, Source, find_files, standard_input
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.readers import Wanted, check_columns, read_columns
from asyncdmtl.data.reading import Reading, identity, normalised
from asyncdmtl.data.surveys import ONE_KIND, check_categories
from asyncdmtl.data.table import WEIGHT, Table, TableSpec
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.plan.validation import whole_number

log = logging.getLogger(__name__)

# The most characters of the name of a task or partition: names must fit in tables.
MAX_NAME_LENGTH = 200

# A target with at most so many distinct whole numbers might hold classes: a warning says that it is taken as
# numbers.
_FEW_NUMBERS = 5


@dataclass(frozen=True, eq=False)
class TableData:
    """The result of `load_table`.

    Attributes
    ----------
    partitions : tuple of RawPartition
        `p0`, `p1`, …, task after task, tasks in natural order.
    test : mapping of task to RawPartition
        Rows to test on. Tasks without any are absent.
    loss : str
        The loss that the target suggests, see `suggest_loss`.
    """

    partitions: tuple[RawPartition, ...]
    test: Mapping[str, RawPartition]
    loss: str


def load_table(spec: TableSpec, seed: int) -> TableData:
    """Read all rows, hold out some rows of each task for tests, and cut the rest into partitions.

    The rows of a task are assigned in an order drawn from the seed and the name of the task. If there are two
    classes, both are spread evenly over test rows and partitions. Within a partition, rows are in the order
    of the file. A task with fewer rows than `parts` has one partition for each row. Rows without task or
    target are left out with a warning. Balanced weights are those of the training rows of each task.

    Raises
    ------
    UsageError
        `seed` is no whole number of at least 0, or there are no two classes to be balanced. It is a
        DataError if a file or column cannot be read or trained on.
    """
    whole_number("seed", seed)
    table = _concatenate(_read(spec, find_files(spec.files)))
    assert table.target is not None
    _check(table, "data")
    loss = suggest_loss(table.target, spec.target)
    if spec.class_weight is not None and loss != "logistic":
        rule = f"is for a target of two classes, and {spec.target!r} is one of numbers"
        raise UsageError("--class-weight", rule, spec.class_weight)
    classes = _identities(table.target) if loss == "logistic" else None
    partitions: list[RawPartition] = []
    test: dict[str, RawPartition] = {}
    for task, rows in table.of_tasks().items():
        mixed = _mix(rows, classes, np.random.default_rng([seed, *task.encode()]))
        aside = min(round(spec.test_fraction * len(rows)), len(rows) - 1)
        # Rows are sorted by class here, so that test rows at equal distances contain each class in its share.
        chosen = (2 * np.arange(aside) + 1) * len(rows) // max(2 * aside, 1)
        train = np.delete(mixed, chosen)
        if aside:
            test[task] = _partition(spec, table, f"test/{task}", task, np.sort(mixed[chosen]))
        for part in range(min(spec.parts, len(train))):
            own = np.sort(train[part :: spec.parts])
            partitions.append(_partition(spec, table, f"p{len(partitions)}", task, own))
    weighted = tuple(partitions) if spec.class_weight is None else balanced(partitions)
    return TableData(weighted, test, loss)


def load_partitions(spec: TableSpec, *, copies: bool = False) -> tuple[RawPartition, ...]:
    """The partitions of a worker: the rows of each task in each of its files.

    A partition is named after the file (without directories and ending) and the task: `north/school 3`, or
    `SITE/north/school 3` with `spec.site`. Equal files have equal names at all sites. All rows are for
    training. Files are read one by one, so that a partition does not depend on what else is stored here.
    With `copies`, files of one name and the same bytes are one file, as where they lie at several workers;
    other files of one name are named after their folder as well, as `--site FOLDER` names them there.

    Raises
    ------
    UsageError
        `test_fraction`, `parts` or `class_weight` is set. It is a DataError if a file or column cannot be
        read or trained on, or two files have the same name or the same rows.
    """
    if spec.parts != 1:
        rule = "cuts tables of which a placement or --partitions says who stores what; here each file's rows "
        raise UsageError("--parts", f"{rule}of a task are a partition", spec.parts)
    if spec.test_fraction:
        raise UsageError("test fraction", "must be left alone: files are partitions", spec.test_fraction)
    if spec.class_weight is not None:
        rule = "must be left out where files are partitions: no site knows the classes of a task at all sites"
        raise UsageError("--class-weight", rule, spec.class_weight)
    sources = find_files(spec.files)
    if copies:
        sources = _without_copies(sources)
    partitions: list[RawPartition] = []
    for stem, source, table in zip(_names(sources, copies), sources, _read(spec, sources), strict=True):
        _check(table, f"data file {source.name}")
        for task, rows in table.of_tasks().items():
            name = f"{stem}/{task}"
            name = name if spec.site is None else f"{normalised(spec.site)}/{name}"
            partitions.append(_partition(spec, table, name, task, rows))
    return tuple(partitions)


def _without_copies(sources: Sequence[Source]) -> tuple[Source, ...]:
    """The first file of each name and content."""
    found: dict[tuple[str, bytes], Source] = {}
    for source in sources:
        found.setdefault((source.stem, source.digest()), source)
    return tuple(found.values())


def _names(sources: Sequence[Source], folders: bool) -> list[str]:
    """A name for each file, with that of its folder if it needs one; DataError if two have the same name."""
    stems = [source.stem for source in sources]
    counts = Counter(stems)
    if folders:
        stems = [
            f"{source.folder}/{stem}" if counts[stem] > 1 and source.folder else stem
            for stem, source in zip(stems, sources, strict=True)
        ]
        counts = Counter(stems)
    if twice := [source.name for stem, source in zip(stems, sources, strict=True) if counts[stem] > 1]:
        raise DataError("data files", "must have different names, without directories and endings", twice)
    return stems


def read_table(patterns: Sequence[str], wanted: Wanted, features: Sequence[str], reading: Reading) -> Table:
    """Read the rows to predict, from all files in order; no row is left out.

    Parameters
    ----------
    patterns : sequence of str
        See `files.find_files`; or one of `files.STDIN` alone: standard input, which is CSV.
    wanted : Wanted
        The columns to read; its `key` is the column of tasks.
    features : sequence of str
        Columns that every file must have.
    reading : Reading

    Raises
    ------
    DataError
        A file cannot be read or lacks a column.
    """
    tables = []
    for source in [standard_input()] if len(patterns) == 1 and patterns[0] in STDIN else find_files(patterns):
        columns = read_columns(source, replace(wanted, needed=features), reading)
        tasks = to_text(columns[wanted.key])
        tables.append(Table(tasks, None, {name: columns[name] for name in features}, None))
    return _concatenate(tables)


def suggest_loss(target: Column, name: str = "target") -> str:
    """The loss for a target: "logistic" for two classes (text or two whole numbers), else "squared".

    Raises
    ------
    DataError
        The target is text with one class or with more than two.
    """
    if is_numeric(target):
        values = sorted(set(target.tolist()))
        whole = all(value.is_integer() for value in values)
        if whole and 2 < len(values) <= _FEW_NUMBERS:
            few = ", ".join(as_text(value) for value in values)
            log.warning("target %r has the values %s only: taken as numbers, not as classes", name, few)
        return "logistic" if len(values) == 2 and whole else "squared"
    classes = sorted({identity(value) for value in target.tolist()})
    if len(classes) != 2:
        rule = "must be numbers or have two classes (CodedMultiTaskClassifier can train one against the rest)"
        raise DataError(f"target {name!r}", rule, classes[:10])
    return "logistic"


def _read(spec: TableSpec, sources: Sequence[Source]) -> list[Table]:
    """One table for each file, with the rows that have a task and a target."""
    only = None if spec.features is None else {spec.target, spec.weight or WEIGHT, *spec.features}
    needed = (spec.target, *(spec.features or ()), *([spec.weight] if spec.weight else []))
    wanted = Wanted(spec.task, spec.target, only, spec.omit, needed=needed)
    files = [read_columns(source, wanted, spec.reading) for source in sources]
    _check_kinds(sources, files, spec)
    for source, columns in zip(sources, files, strict=True):
        _check_finite(
            source, {k: column for k, column in columns.items() if k not in (spec.task, spec.weight)}
        )
    features, weight = _roles(spec, list(dict.fromkeys(name for columns in files for name in columns)))
    tables = []
    for source, columns in zip(sources, files, strict=True):
        check_columns(source, columns, [spec.target, *features, *([weight] if weight else [])])
        weights = _weights(columns[weight], f"weight {weight!r} of {source.name}") if weight else None
        tasks, target = to_text(columns[spec.task]), columns[spec.target]
        table = Table(tasks, target, {name: columns[name] for name in features}, weights)
        tables.append(_usable(table, source.name))
    _check_copies(sources, tables)
    return tables


def _check_kinds(sources: Sequence[Source], files: Sequence[Mapping[str, Column]], spec: TableSpec) -> None:
    """Refuse a column that is one of numbers in one file and of text in another."""
    found: dict[str, dict[bool, tuple[str, object]]] = {}
    for source, columns in zip(sources, files, strict=True):
        for name, column in columns.items():
            if name != spec.task and not (missing := is_missing(column)).all():
                example = column[~missing][0]
                found.setdefault(name, {}).setdefault(is_numeric(column), (source.name, example))
    for name, kinds in found.items():
        if len(kinds) == 2:
            (numbers, _), (text, example) = kinds[True], kinds[False]
            raise DataError(f"column {name!r}", f"{ONE_KIND}: numbers in {numbers}, text in {text}", example)


def _check_finite(source: Source, columns: Mapping[str, Column]) -> None:
    """Refuse infinite numbers, which no model can be trained on."""
    for name, column in columns.items():
        if is_numeric(column) and (infinite := np.isinf(column)).any():
            count, first = int(np.count_nonzero(infinite)), int(infinite.argmax())
            rule = "must be finite (--missing inf takes infinite numbers for missing values): infinite in "
            rule += f"{count} of {len(column)} rows, first in row {first + 1}"
            raise DataError(f"column {name!r} of {source.name}", rule, float(column[first]))


def _check_copies(sources: Sequence[Source], tables: Sequence[Table]) -> None:
    """Refuse two files with the same rows, which would be counted twice."""
    seen: dict[bytes, str] = {}
    for source, table in zip(sources, tables, strict=True):
        content = hashlib.blake2b(digest_size=16, usedforsecurity=False)
        for name in sorted(table.columns):
            content.update(name.encode())
            update_digest(content, table.columns[name])
        for column in (table.tasks, table.target, table.weights):
            if column is not None:
                update_digest(content, column)
        other = seen.setdefault(content.digest(), source.name)
        if other != source.name:
            raise DataError("data files", f"must not have the same rows: as {other}", source.name)


def _roles(spec: TableSpec, names: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """The names of the features, and of the column of weights, if there is one."""
    taken = (spec.task, spec.target, *(spec.features or ()))
    weight = spec.weight or (WEIGHT if WEIGHT in names and WEIGHT not in taken else None)
    features = spec.features or tuple(name for name in names if name not in (*taken, weight))
    if not features:
        raise DataError("features", "must be at least one column beside task, target and weight", names)
    return features, weight


def _weights(column: Column, what: str) -> Floats:
    weights = to_numbers(column, what)
    if (bad := ~(np.isfinite(weights) & (weights >= 0.0))).any():
        raise DataError(what, "must be a finite number of at least 0 in every row", float(weights[bad][0]))
    return weights


def _usable(table: Table, name: str) -> Table:
    """The rows of a file that can be trained on; a warning says how many others there are."""
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
        joined(targets) if targets else None,
        {name: joined([table.columns[name] for table in tables]) for name in first.columns},
        np.concatenate(weights) if weights else None,
    )


def joined(columns: Sequence[Column]) -> Column:
    """Concatenate columns of one kind. A column without any value becomes text if another column is text."""
    numeric = all(map(is_numeric, columns))
    joined: Column = np.concatenate([column if numeric else to_text(column) for column in columns])
    return joined


def _check(table: Table, what: str) -> None:
    """Refuse names of tasks that cannot be printed, and columns of names or free text."""
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
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise DataError(what, f"must be named by at most {MAX_NAME_LENGTH} printable characters", name)


def _identities(target: Column) -> Texts:
    """The class of each row, in one spelling for each class."""
    texts = to_text(target)
    found = {text: identity(text) for text in set(texts.tolist())}
    classes: Texts = np.array([found[text] for text in texts.tolist()], dtype=np.object_)
    return classes


def _mix(rows: Indices, classes: Texts | None, rng: np.random.Generator) -> Indices:
    """The rows in random order; if there are classes, the rows of each class are together."""
    mixed = rng.permutation(rows)
    if classes is None:
        return mixed
    return mixed[np.argsort(classes[mixed] == classes[mixed].max(), kind="stable")]


def _partition(spec: TableSpec, table: Table, name: str, task: str, rows: Indices) -> RawPartition:
    _check_name("partition", name)
    part = table.take(rows)
    assert part.target is not None
    return RawPartition(name, task, part.columns, part.target, part.weights, spec.target)
