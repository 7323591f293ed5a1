"""Surveys: the summary of a partition's columns that a site sends, so that all sites agree on an encoding.

A survey holds counts, means and sums of squares of numbers, the names of categories and of classes, and
fingerprints. Nothing else leaves a site. (The mean of a partition with a single row is that row.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, as_text, is_numeric
from asyncdmtl.data.fields import read_fields, read_names, read_pairs
from asyncdmtl.data.fingerprints import NO_FINGERPRINTS, Fingerprints
from asyncdmtl.data.moments import MAX_ROWS, NO_MOMENTS, Moments
from asyncdmtl.data.reading import identity
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.plan.placement import natural_key

# The most categories of a column. Each becomes a feature; columns with more are likely names or free text.
MAX_CATEGORIES = 1000

ONE_KIND = (
    "must be of one kind (--missing names cells without a value, --categorical makes numbers categories)"
)
"""The rule that a column breaks if it is numbers in some partitions and text in others."""

# The most distinct values of a target that a survey contains. Two classes need two; a third one shows that
# there are more.
MAX_LABELS = 3

# Up to this number of categories, a column is never taken for names or free text: if there are few rows, real
# categories may differ in nearly every row, too.
_FEW_CATEGORIES = 20

# A column is taken for names or free text if its distinct values are at least this share of its rows.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Categories:
    """The survey of a column of text: its distinct values in natural order, and the rows without a value."""

    values: tuple[str, ...]
    missing: int

    @classmethod
    def of(cls, name: str, column: Column) -> Categories:
        """The categories of a column of text. DataError names it if it has too many."""
        cells = column.tolist()
        values = set(cells) - {None}
        try:
            check_categories(values)
        except DataError as error:
            raise DataError(name, error.rule, error.value) from error
        return cls(tuple(sorted(values, key=natural_key)), cells.count(None))

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        return {"values": list(self.values), "missing": self.missing}

    @classmethod
    def from_dict(cls, what: str, content: Any) -> Categories:
        """Read what `as_dict` returned. UsageError if it is malformed."""
        values, missing = read_fields(what, content, values=list, missing=int)
        names = read_names(f"values of {what}", values)
        if not 1 <= len(names) <= MAX_CATEGORIES or not 0 <= missing <= MAX_ROWS:
            raise UsageError(what, f"must have 1 to {MAX_CATEGORIES} values", len(names))
        return cls(names, missing)


@dataclass(frozen=True)
class Labels:
    """The survey of the target: its name, and its distinct values if they may be classes.

    Attributes
    ----------
    name : str
    values : tuple of float or of str
        The distinct numbers if there are at most `MAX_LABELS`, else none; for text, the first `MAX_LABELS`.
    text : bool
        Whether the target is text, not numbers.
    more : bool
        Whether there are distinct values that `values` lacks.
    moments : Moments
        The moments of numbers. For text, the moments of no numbers at all.
    """

    name: str
    values: tuple[float, ...] | tuple[str, ...]
    text: bool
    more: bool
    moments: Moments = NO_MOMENTS

    @classmethod
    def of(cls, name: str, target: Column) -> Labels:
        """The labels of a target without missing values. DataError if a number is too large."""
        text = not is_numeric(target)
        moments = Moments.of(target) if is_numeric(target) else NO_MOMENTS
        distinct = _distinct_classes(target.tolist()) if text else sorted(set(target.tolist()))
        more = len(distinct) > MAX_LABELS
        return cls(name, tuple(distinct[:MAX_LABELS] if text or not more else ()), text, more, moments)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        told = {"name": self.name, "values": list(self.values), "text": self.text, "more": self.more}
        return {**told, "moments": self.moments.as_dict()}

    @classmethod
    def from_dict(cls, content: Any) -> Labels:
        """Read what `as_dict` returned. UsageError if it is malformed."""
        name, values, text, more, told = read_fields(
            "survey of the target", content, name=str, values=list, text=bool, more=bool, moments=dict
        )
        moments = Moments.from_dict("survey of the target", told)
        if text == bool(moments.count):
            raise UsageError("survey of the target", "must have moments if, and only if, it is numbers", told)
        what = "values of the target"
        if text:
            labels: Any = read_names(what, values)
        else:
            labels = tuple(values)
            if not all(type(value) is float and math.isfinite(value) for value in values):
                raise UsageError(what, "must be finite numbers", values)
        if len(values) > MAX_LABELS or (not more and not values):
            raise UsageError(what, f"must be 1 to {MAX_LABELS}, or said to be more", values)
        return cls(name, labels, text, more, moments)


ColumnSurvey = Moments | Categories


@dataclass(frozen=True)
class Survey:
    """The survey of a partition that was read from a file. It is empty for a partition of numbers.

    Attributes
    ----------
    rows : int
    target : Labels or None
        None only if the survey is empty.
    columns : mapping of name to Moments or Categories
        In the order of the file. A column in which every value is missing has `Moments` with a count of 0,
        even if it is a column of text in other partitions.
    weighted : bool
        Whether rows have weights.
    fingerprints : Fingerprints
        Fingerprints of the rows and columns, to find out how supposed copies of a partition differ.
    """

    rows: int = 0
    target: Labels | None = None
    columns: Mapping[str, ColumnSurvey] = field(default_factory=dict)
    weighted: bool = False
    fingerprints: Fingerprints = NO_FINGERPRINTS

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Column],
        name: str,
        target: Column,
        what: str,
        weights: Floats | None = None,
    ) -> Survey:
        """Survey a partition.

        Parameters
        ----------
        columns : mapping of name to (rows,) array
            The features.
        name : str
            The name of the target.
        target : (rows,) array
        what : str
            Names the partition in errors.
        weights : (rows,) float64 array, optional

        Raises
        ------
        DataError
            Names a column, or the target, that has infinite or huge numbers or too many categories.
        """
        try:
            moments = Moments.of_columns({label: c for label, c in columns.items() if is_numeric(c)})
            found = {label: moments.get(label) or Categories.of(label, c) for label, c in columns.items()}
        except DataError as error:
            raise DataError(f"column {error.argument!r} of {what}", error.rule, error.value) from error
        try:
            labels = Labels.of(name, target)
        except DataError as error:
            raise DataError(f"target {name!r} of {what}", error.rule, error.value) from error
        everything = {**columns, name: target}
        if weights is not None:
            everything["weight"] = weights
        return cls(len(target), labels, found, weights is not None, Fingerprints.of(everything))

    @property
    def is_empty(self) -> bool:
        """Whether the partition is numbers already, with nothing to encode."""
        return self.target is None

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON and msgpack, which `from_dict` reads."""
        if self.target is None:
            return {}
        columns = [[name, column.as_dict()] for name, column in self.columns.items()]
        told = {"rows": self.rows, "target": self.target.as_dict(), "columns": columns}
        return told | {"weighted": self.weighted, "fingerprints": self.fingerprints.as_dict()}

    @classmethod
    def from_dict(cls, content: Any) -> Survey:
        """Read what `as_dict` returned, after any transport; nothing in it is trusted.

        Raises
        ------
        UsageError
            Something is missing, unknown, of the wrong type, or out of range.
        """
        if isinstance(content, Mapping) and not content:
            return cls()
        rows, target, columns, weighted, prints = read_fields(
            "survey", content, rows=int, target=dict, columns=list, weighted=bool, fingerprints=dict
        )
        if not 1 <= rows <= MAX_ROWS or not columns:
            raise UsageError("survey", "must have at least one row and one column", (rows, len(columns)))
        found: dict[str, ColumnSurvey] = {}
        for name, survey in read_pairs("columns of the survey", columns):
            what = f"survey of column {name!r}"
            kind = Categories if isinstance(survey, Mapping) and "values" in survey else Moments
            found[name] = kind.from_dict(what, survey)
            told = found[name]
            if (told.count if isinstance(told, Moments) else told.missing) > rows:
                raise UsageError(what, f"must be of at most {rows} rows", survey)
        labels = Labels.from_dict(target)
        if labels.moments.count not in (0, rows):
            raise UsageError("survey of the target", f"must be of {rows} rows", labels.moments.count)
        return cls(rows, labels, found, weighted, Fingerprints.from_dict(prints))


def common_classes(targets: Mapping[str, Labels], loss: str) -> tuple[str, tuple[str, str] | None]:
    """The name of the target of all partitions, and its two classes as text (None for a regression).

    Parameters
    ----------
    targets : mapping of partition id to Labels
    loss : str
        A name in `LOSSES`.

    Raises
    ------
    DataError
        Names the target, and a partition where it has another name or kind or does not suit the loss.
    """
    first, told = next(iter(targets.items()))
    what = f"target {told.name!r}"
    for id_, labels in targets.items():
        if labels.name != told.name:
            raise DataError(what, f"must be the target of all partitions; that of {id_!r}", labels.name)
        if labels.text != told.text:
            of = "text" if labels.text else "numbers"
            rule = f"must be of one kind: it is not {of} in partition {first!r}, but in {id_!r}"
            raise DataError(what, rule, list(labels.values))
    if not LOSSES[loss].classification:
        if told.text:
            raise DataError(
                what, f"must be numbers for {loss} loss, but is text in partition {first!r}", told.values[0]
            )
        return told.name, None
    told_values = [value for labels in targets.values() for value in labels.values]
    values = _distinct_classes(told_values) if told.text else sorted(set(told_values))
    more = [id_ for id_, labels in targets.items() if labels.more]
    if more or len(values) != 2:
        rule = f"must have two classes for {loss} loss"
        rule += f"; it has more in partition {more[0]!r}" if more else ""
        raise DataError(what, rule, values or f"more than {MAX_LABELS} different numbers")
    return told.name, (as_text(values[0]), as_text(values[1]))


def check_categories(values: Collection[str], rows: int | None = None) -> None:
    """Refuse a column of text with so many distinct values that it must hold names or free text.

    Parameters
    ----------
    values : collection of str
        The distinct values.
    rows : int, optional
        The number of rows with a value. Leave it out for a single partition, whose rows may be few.

    Raises
    ------
    DataError
        There are more than `MAX_CATEGORIES` distinct values, or nearly as many as rows.
    """
    nearly_distinct = rows is not None and len(values) > max(_FEW_CATEGORIES, _NEARLY_ALL * rows)
    if nearly_distinct or len(values) > MAX_CATEGORIES:
        rule = f"has {len(values)} different texts, too many for categories (--omit can leave it out)"
        raise DataError("values", rule, min(values, key=_telling))


def _telling(value: str) -> tuple[bool, Any]:
    """The sort key of examples in errors: a text that is no number comes first."""
    try:
        float(value)
    except ValueError:
        return False, natural_key(value)
    return True, natural_key(value)


def _distinct_classes(values: Sequence[Any]) -> list[Any]:
    """The different classes in natural order, each in its first spelling."""
    spelled: dict[str, str] = {}
    for value in sorted(set(values), key=natural_key):
        spelled.setdefault(identity(value), value)
    return list(spelled.values())
