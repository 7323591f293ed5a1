"""From columns of numbers and text to the rows that linear models learn from, the same at all sites.

Each site surveys its partitions, `pool` makes one `Encoding` of all surveys, and each site encodes its rows
with it. Statistics, category names and class labels are all that leaves a site (`surveys` tells which).

- Numbers: a missing one becomes the mean over all sites; with `standardise` the mean is taken off, and what
  is left divided by the standard deviation (scikit-learn's `StandardScaler`; missing values do not count).
- Text and true/false: a column of 0 and 1 for every category; one column where there are only two. Where
  values are missing, that is a category of its own. A category that no site had encodes as zeros.
- A column that is the same in all rows says nothing beside an intercept, and is left out with a warning.
- A target that is a number is centred: its mean over all sites is taken off, and given back to predictions.
  An intercept that is free of the coupling makes up for any shift; a penalised one is drawn to that mean.

What is encoded is equal at all holders: shift and scale come from the server, and a difference and a quotient
have the same bits on every CPU.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import (
    Column,
    as_column,
    as_text,
    is_missing,
    is_numeric,
    to_numbers,
    to_text,
    update_digest,
)
from asyncdmtl.data.features import CategoryColumn, EncodedColumn, NumberColumn, read_column
from asyncdmtl.data.surveys import (
    Categories,
    ColumnSurvey,
    Moments,
    Survey,
    check_categories,
    common_classes,
    read_fields,
    read_names,
    read_pairs,
)
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Declaration, Partition
from asyncdmtl.plan.placement import natural_key

__all__ = ["Encoding", "RawPartition", "Survey", "pool"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoding:
    """How columns become features, and targets become labels; empty where data are numbers already.

    Attributes
    ----------
    columns : tuple of NumberColumn or CategoryColumn
        What is used, in order.
    dropped : mapping of name to reason
        Columns that are not.
    target : str
        The name of the target.
    classes : (str, str) or None
        What the labels 0 and 1 stand for, as text (numbers as `as_text` writes them); None for a regression.
    offset : float
        What is taken off a target that is a number, and must be added to predictions.

    Raises
    ------
    UsageError
        No column, or two features with the same name.
    """

    columns: tuple[EncodedColumn, ...]
    dropped: Mapping[str, str]
    target: str
    classes: tuple[str, str] | None
    offset: float = 0.0

    def __post_init__(self) -> None:
        if len(set(self.features)) < len(self.features):
            twice = sorted(name for name in set(self.features) if self.features.count(name) > 1)
            raise UsageError("features", "must have different names; twice", twice)

    @classmethod
    def empty(cls) -> Encoding:
        """The one for prepared numbers."""
        return cls((), {}, "", None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to encode."""
        return not self.columns

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the `F` encoded columns."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(column.name for column in self.columns)

    @property
    def categories(self) -> tuple[str, ...]:
        """Those of `sources` that are text, even if a file has digits only."""
        return tuple(column.name for column in self.columns if isinstance(column, CategoryColumn))

    def encode_rows(self, columns: Mapping[str, Column]) -> Floats:
        """Columns of equal length → `X` (rows, F) float64, C-contiguous. Other columns are ignored.

        Raises
        ------
        DataError
            Names a column that is absent, is text instead of numbers, or has infinite values.
        """
        for name in self.sources:
            if name not in columns:
                raise DataError(f"column {name!r}", "must be among the columns", list(columns))
        found = {name: as_column(columns[name], f"column {name!r}") for name in self.sources}
        lengths = {name: len(column) for name, column in found.items()}
        if len(set(lengths.values())) != 1:
            raise DataError("columns", "must be some, of equal length", lengths)
        X = np.empty((next(iter(lengths.values())), len(self.features)))
        at = 0
        for column in self.columns:
            width = len(column.features)
            column.encode(found[column.name], X[:, at : at + width])
            at += width
        return X

    def encode_target(self, values: Column) -> Floats:
        """Targets as `y` (rows,) float64: labels 0 and 1 for a classification, else numbers less `offset`.

        Raises
        ------
        DataError
            Names a value that is none of the classes, or no finite number.
        """
        what = f"target {self.target!r}"
        column = as_column(values, what)
        if is_missing(column).any():
            raise DataError(what, "must have a value in every row; row", int(is_missing(column).argmax()))
        if self.classes is None:
            numbers = to_numbers(column, what)
            if np.isinf(numbers).any():
                raise DataError(what, "must be finite", float(numbers[np.isinf(numbers)][0]))
            centred: Floats = numbers - self.offset
            return centred
        labels = to_text(column)
        y: Floats = (labels == self.classes[1]).astype(np.float64)
        if (unknown := (y == 0.0) & (labels != self.classes[0])).any():
            raise DataError(what, f"must be {' or '.join(map(repr, self.classes))}", labels[unknown][0])
        return y

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and msgpack; `from_dict` reads them."""
        if self.is_empty:
            return {}
        return {
            "columns": [[column.name, column.as_dict()] for column in self.columns],
            "dropped": [list(pair) for pair in self.dropped.items()],
            "target": self.target,
            "classes": None if self.classes is None else list(self.classes),
            "offset": self.offset,
        }

    @classmethod
    def from_dict(cls, content: Any) -> Encoding:
        """Read what `as_dict` gave, wherever it has been since.

        Raises
        ------
        UsageError
            Something is missing, unknown, of the wrong type, or out of range.
        """
        if isinstance(content, Mapping) and not content:
            return cls.empty()
        what = "encoding"
        classes = content.get("classes") if isinstance(content, Mapping) else None
        columns, dropped, target, _, offset = read_fields(
            what,
            content,
            columns=list,
            dropped=list,
            target=str,
            classes=type(None) if classes is None else list,
            offset=float,
        )
        if not columns:
            raise UsageError("columns of the encoding", "must be at least one", columns)
        reasons = read_pairs("dropped columns", dropped)
        if not all(isinstance(reason, str) for _, reason in reasons):
            raise UsageError("dropped columns", "must have reasons", dropped)
        if classes is not None and len(classes := read_names("classes", classes)) != 2:
            raise UsageError("classes", "must be two", classes)
        read = tuple(read_column(*pair) for pair in read_pairs("columns of the encoding", columns))
        return cls(read, dict(reasons), target, classes, offset)


@dataclass(frozen=True, eq=False)
class RawPartition:
    """Some of the rows of one task, as they came from a file.

    Parameters
    ----------
    id, task : str
    columns : mapping of name to (rows,) array-like
        The features, each numbers or text or true/false; missing values are NaN or None. Kept as
        `columns.as_column` gives them.
    target : (rows,) array-like
        The same, with a value in every row.
    weights : (rows,) array-like, optional
        How much each row counts; see `Partition`.
    target_name : str

    Raises
    ------
    DataError
        No row, no column, different lengths, a column of neither kind, or a target that is missing or not
        finite.
    """

    id: str
    task: str
    columns: Mapping[str, Column]
    target: Column
    weights: Floats | None = None
    target_name: str = "target"

    def __post_init__(self) -> None:
        what = f"of partition {self.id!r}"
        columns = {name: as_column(c, f"column {name!r} {what}") for name, c in self.columns.items()}
        target = as_column(self.target, f"target {self.target_name!r} {what}")
        lengths = {name: len(column) for name, column in columns.items()}
        if not len(target) or not columns or set(lengths.values()) != {len(target)}:
            rule = f"must be some, with as many values as the target ({len(target)}), at least one"
            raise DataError(f"columns {what}", rule, lengths)
        if is_missing(target).any() or (is_numeric(target) and np.isinf(target.astype(np.float64)).any()):
            raise DataError(
                f"target {self.target_name!r} {what}", "must have a finite value in every row", target
            )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "target", target)
        if self.weights is not None:
            object.__setattr__(self, "weights", to_numbers(as_column(self.weights, f"weights {what}"), what))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.target)

    def digest(self) -> bytes:
        """16 bytes of BLAKE2b over names and content."""
        h = hashlib.blake2b(digest_size=CONTENT_DIGEST_BYTES)
        for name in (self.id, self.task, self.target_name, *self.columns):
            raw = name.encode()
            h.update(len(raw).to_bytes(8, "little") + raw)
        for column in (*self.columns.values(), self.target):
            update_digest(h, column)
        if self.weights is not None:
            update_digest(h, self.weights)
        return h.digest()

    def survey(self) -> Survey:
        """What is told of this partition.

        Raises
        ------
        DataError
            Names a column with infinite or huge numbers, or with too many categories.
        """
        return Survey.of(self.columns, self.target_name, self.target, f"partition {self.id!r}")

    def declaration(self) -> Declaration:
        """What a worker that stores this partition declares; DataError as `survey`."""
        return Declaration(self.id, self.task, self.digest(), self.rows, self.survey().as_dict())

    def encoded(self, encoding: Encoding) -> Partition:
        """The partition to train on.

        Raises
        ------
        DataError
            The encoding is empty, or not for these columns, or gives numbers that are not finite.
        """
        if encoding.is_empty:
            raise DataError(
                f"partition {self.id!r}",
                "has columns of a file, but the run is on numbers",
                list(self.columns),
            )
        try:
            X, y = encoding.encode_rows(self.columns), encoding.encode_target(self.target)
        except DataError as error:
            raise DataError(f"partition {self.id!r}: {error.argument}", error.rule, error.value) from error
        return Partition(self.id, self.task, X, y, self.weights)


def pool(surveys: Mapping[str, Survey], loss: str, *, standardise: bool, centre: bool = False) -> Encoding:
    """The encoding that follows from the surveys of all partitions, whoever declared them first.

    Parameters
    ----------
    surveys : mapping of partition id to Survey
        Each partition once.
    loss : str
        A name in `LOSSES`.
    standardise : bool
        Whether numbers get mean 0 and standard deviation 1 over all rows of all partitions.
    centre : bool
        Whether a target that is a number gets mean 0.

    Returns
    -------
    Encoding
        Columns in the order of the first partition; empty if all surveys are.

    Raises
    ------
    DataError
        Names the column and a partition where they disagree on columns, on the kind of one, or on the target;
        where all features are constant, or categories too many; or where the target does not suit the loss.
    """
    if loss not in LOSSES:
        raise UsageError("loss", f"must be one of {', '.join(LOSSES)}", loss)
    ordered = {id_: surveys[id_] for id_ in sorted(surveys, key=natural_key)}
    from_files = [id_ for id_, survey in ordered.items() if not survey.is_empty]
    if not from_files:
        return Encoding.empty()
    if len(from_files) < len(ordered):
        prepared = [id_ for id_ in ordered if ordered[id_].is_empty]
        rule = f"must come from files, as {from_files[0]!r}, or all be of numbers"
        raise DataError("partitions", rule, prepared)
    targets = {id_: survey.target for id_, survey in ordered.items() if survey.target}
    target, classes = common_classes(targets, loss)
    offset = 0.0
    if centre and classes is None:
        offset = Moments.pooled([labels.moments for labels in targets.values()]).mean
    names = _common_columns(ordered)
    columns: list[EncodedColumn] = []
    dropped: dict[str, str] = {}
    for name in names:
        made = _column(
            name, {id_: survey.columns[name] for id_, survey in ordered.items()}, ordered, standardise
        )
        if isinstance(made, str):
            dropped[name] = made
        else:
            columns.append(made)
    if not columns:
        raise DataError("features", "must not all be constant", dropped)
    _warn(dropped)
    return Encoding(tuple(columns), dropped, target, classes, offset)


def _warn(dropped: Mapping[str, str]) -> None:
    """Tell which columns are left out: in one line all that have one reason."""
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, own in dropped.items() if own == reason]
        if len(names) == 1:
            log.warning("column %r is left out: %s", *names, reason)
        else:
            log.warning("columns %s are left out: each %s", names, reason.removeprefix("it "))


def _common_columns(surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """The names of the columns that every partition has, in the order of the first."""
    all_names = dict.fromkeys(name for survey in surveys.values() for name in survey.columns)
    for id_, survey in surveys.items():
        for name in all_names:
            if name not in survey.columns:
                rule = f"must be in every partition; in {id_!r}"
                raise DataError(f"column {name!r}", rule, list(survey.columns))
    return tuple(all_names)


def _column(
    name: str, surveys: Mapping[str, ColumnSurvey], partitions: Mapping[str, Survey], standardise: bool
) -> EncodedColumn | str:
    """How to encode a column; or why it is left out."""
    text = {id_: survey for id_, survey in surveys.items() if isinstance(survey, Categories)}
    numbers = {id_: survey for id_, survey in surveys.items() if isinstance(survey, Moments)}
    counted = [id_ for id_, moments in numbers.items() if moments.count]
    if text and counted:
        id_, other = next(iter(text)), counted[0]
        rule = f"must be of one kind: it has numbers in partition {other!r}, and text in {id_!r}"
        raise DataError(f"column {name!r}", rule, text[id_].values[-1])
    try:
        if not text:
            return _number_column(name, Moments.pooled(list(numbers.values())), standardise)
        values = {value for survey in text.values() for value in survey.values}
        rows = sum(partitions[id_].rows - survey.missing for id_, survey in text.items())
        check_categories(values, rows)
    except DataError as error:
        raise DataError(f"column {name!r}", error.rule, error.value) from error
    missing = rows < sum(survey.rows for survey in partitions.values())
    if len(values) == 1 and not missing:
        return f"it is always {next(iter(values))!r}"
    return CategoryColumn(name, tuple(sorted(values, key=natural_key)), missing)


def _number_column(name: str, moments: Moments, standardise: bool) -> NumberColumn | str:
    if not moments.count:
        return "it never has a value"
    if (scale := math.sqrt(moments.M2 / moments.count)) == 0.0:
        return f"it is always {as_text(moments.mean)}"
    if not standardise:
        return NumberColumn(name, moments.mean, 0.0, 1.0)
    return NumberColumn(name, moments.mean, moments.mean, scale)
