"""What is told of the columns of a partition, so that all sites can agree on an encoding.

Counts, means and sums of squares of numbers, and the names of categories and of classes: nothing else leaves
a site. (Of a partition with a single row, these are that row.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, as_text, is_missing, is_numeric
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.plan.placement import natural_key

MOST_CATEGORIES = 1000
# Of a target with more values than these, numbers are not told at all: classes they are not.
MOST_LABELS = 3
# Fewer categories are no sign of a column of names, however few the rows.
_FEW = 20
_NEARLY_ALL = 0.9
_MOST_ROWS = 2**53


@dataclass(frozen=True)
class Moments:
    """A column of numbers: how many, their mean, and `M2`, the sum of their squared deviations from it."""

    count: int
    mean: float
    M2: float

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """The moments of numbers without NaN: equal numbers give equal bits on every CPU.

        A column of one value has an `M2` of exactly 0, and that value as its mean.

        Raises
        ------
        DataError
            A number that is not finite, or too large to be squared.
        """
        if not np.isfinite(values).all():
            raise DataError("values", "must be finite", float(values[~np.isfinite(values)][0]))
        if not len(values):
            return cls(0, 0.0, 0.0)
        mean = float(values[0])
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(2):  # the second time mends what rounding did to the first
                mean += _sum(values - mean) / len(values)
            M2 = _sum((values - mean) ** 2)
        if not math.isfinite(M2):
            raise DataError("values", "has numbers too large to be squared", float(np.abs(values).max()))
        return cls(len(values), mean, M2)

    @classmethod
    def pooled(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of all rows, from those of disjoint parts; their order changes the last bit only.

        `M2 = Σ M2_i + Σ n_i (mean_i − mean)²`: Chan, Golub, LeVeque, "Algorithms for Computing the Sample
        Variance", The American Statistician 37(3), 1983.

        Raises
        ------
        DataError
            Sums that are too large for a float64.
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
        return cls(n, mean, M2)

    def as_dict(self) -> dict[str, Any]:
        """Plain types; `from_dict` reads them."""
        return {"count": self.count, "mean": self.mean, "M2": self.M2}

    @classmethod
    def from_dict(cls, what: str, content: Any) -> Moments:
        """Read what `as_dict` gave; UsageError if it makes no sense."""
        count, mean, M2 = read_fields(what, content, count=int, mean=float, M2=float)
        if not 0 <= count <= _MOST_ROWS or M2 < 0.0 or (count == 0 and (mean, M2) != (0.0, 0.0)):
            raise UsageError(what, "must have a count and an M2 of at least 0", content)
        return cls(count, mean, M2)


@dataclass(frozen=True)
class Categories:
    """A column of text: its distinct values in natural order, and how many rows have none."""

    values: tuple[str, ...]
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types; `from_dict` reads them."""
        return {"values": list(self.values), "missing": self.missing}

    @classmethod
    def from_dict(cls, what: str, content: Any) -> Categories:
        """Read what `as_dict` gave; UsageError if it makes no sense."""
        values, missing = read_fields(what, content, values=list, missing=int)
        names = read_names(f"values of {what}", values)
        if not 1 <= len(names) <= MOST_CATEGORIES or not 0 <= missing <= _MOST_ROWS:
            raise UsageError(what, f"must have 1 to {MOST_CATEGORIES} values", len(names))
        return cls(names, missing)


@dataclass(frozen=True)
class Labels:
    """The target: its name, and its distinct values as far as they may be classes.

    Numbers are told if there are at most `MOST_LABELS` of them, else none; of text, the first few. `more`
    says that there are others. `moments` are those of numbers; of text, those of nothing.
    """

    name: str
    values: tuple[float, ...] | tuple[str, ...]
    text: bool
    more: bool
    moments: Moments = Moments(0, 0.0, 0.0)

    @classmethod
    def of(cls, name: str, target: Column) -> Labels:
        """The labels of a target without missing values; DataError if it has numbers that are too large."""
        text = not is_numeric(target)
        moments = Moments.of(target[:0].astype(np.float64) if text else target.astype(np.float64))
        distinct = sorted(set(target.tolist()), key=natural_key if text else None)
        more = len(distinct) > MOST_LABELS
        return cls(name, tuple(distinct[:MOST_LABELS] if text or not more else ()), text, more, moments)

    def as_dict(self) -> dict[str, Any]:
        """Plain types; `from_dict` reads them."""
        told = {"name": self.name, "values": list(self.values), "text": self.text, "more": self.more}
        return {**told, "moments": self.moments.as_dict()}

    @classmethod
    def from_dict(cls, content: Any) -> Labels:
        """Read what `as_dict` gave; UsageError if it makes no sense."""
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
        if len(values) > MOST_LABELS or (not more and not values):
            raise UsageError(what, f"must be 1 to {MOST_LABELS}, or said to be more", values)
        return cls(name, labels, text, more, moments)


ColumnSurvey = Moments | Categories


@dataclass(frozen=True)
class Survey:
    """What is told of a partition that came from a file; empty for one of prepared numbers.

    Attributes
    ----------
    rows : int
    target : Labels or None
        None only if the survey is empty.
    columns : mapping of name to Moments or Categories
        In the order of the file. A column in which every value is missing has `Moments` with a count of 0,
        whatever it has elsewhere.
    """

    rows: int = 0
    target: Labels | None = None
    columns: Mapping[str, ColumnSurvey] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, Column], name: str, target: Column, what: str) -> Survey:
        """Look at the feature columns and at the target, called `name`, of a partition, called `what`.

        Raises
        ------
        DataError
            Names a column, or the target, with infinite or huge numbers, or one with too many categories.
        """
        found: dict[str, ColumnSurvey] = {}
        for label, column in columns.items():
            missing = is_missing(column)
            try:
                if is_numeric(column):
                    found[label] = Moments.of(column[~missing])
                else:
                    values = set(column.tolist()) - {None}
                    check_categories(values)
                    found[label] = Categories(tuple(sorted(values, key=natural_key)), int(missing.sum()))
            except DataError as error:
                raise DataError(f"column {label!r} of {what}", error.rule, error.value) from error
        try:
            labels = Labels.of(name, target)
        except DataError as error:
            raise DataError(f"target {name!r} of {what}", error.rule, error.value) from error
        return cls(len(target), labels, found)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to encode."""
        return self.target is None

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and msgpack; `from_dict` reads them."""
        if self.target is None:
            return {}
        columns = [[name, column.as_dict()] for name, column in self.columns.items()]
        return {"rows": self.rows, "target": self.target.as_dict(), "columns": columns}

    @classmethod
    def from_dict(cls, content: Any) -> Survey:
        """Read what `as_dict` gave, wherever it has been since.

        Raises
        ------
        UsageError
            Something is missing, unknown, of the wrong type, or out of range.
        """
        if isinstance(content, Mapping) and not content:
            return cls()
        rows, target, columns = read_fields("survey", content, rows=int, target=dict, columns=list)
        if not 1 <= rows <= _MOST_ROWS or not columns:
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
        return cls(rows, labels, found)


def common_classes(targets: Mapping[str, Labels], loss: str) -> tuple[str, tuple[str, str] | None]:
    """The target of all partitions: its name, and its classes as text if the loss is one for classes.

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
                what, f"must be numbers for {loss} loss, as in partition {first!r} it is not", told.values[0]
            )
        return told.name, None
    values = sorted({value for labels in targets.values() for value in labels.values}, key=_label_order)
    more = [id_ for id_, labels in targets.items() if labels.more]
    if more or len(values) != 2:
        rule = f"must have two classes for {loss} loss"
        rule += f"; it has more in partition {more[0]!r}" if more else ""
        raise DataError(what, rule, values or f"more than {MOST_LABELS} different numbers")
    return told.name, (as_text(values[0]), as_text(values[1]))


def check_categories(values: Collection[str], rows: int | None = None) -> None:
    """Refuse a column of text with so many different values that it must be one of names or free text.

    Parameters
    ----------
    values : collection of str
        The different ones.
    rows : int, optional
        How many rows have a value; given where these are all rows, not just those of a small partition.

    Raises
    ------
    DataError
        More than `MOST_CATEGORIES`, or nearly as many as rows.
    """
    if len(values) > MOST_CATEGORIES or (rows is not None and len(values) > max(_FEW, _NEARLY_ALL * rows)):
        rule = f"has {len(values)} different texts, too many for categories (--omit can leave it out)"
        raise DataError("values", rule, min(values, key=_telling))


def _telling(value: str) -> tuple[bool, Any]:
    """The order of texts as examples: what keeps a column from being one of numbers comes first."""
    try:
        float(value)
    except ValueError:
        return False, natural_key(value)
    return True, natural_key(value)


def read_fields(what: str, content: Any, **types: type) -> list[Any]:
    """The values of a mapping that must have exactly these keys and types, and no number that is not finite.

    Raises
    ------
    UsageError
        It has not.
    """
    if not isinstance(content, Mapping) or set(content) != set(types):
        raise UsageError(what, f"must have exactly {', '.join(types)}", content)
    for name, kind in types.items():
        value = content[name]
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"{name} of {what}", f"must be of type {kind.__name__}, and finite", value)
    return [content[name] for name in types]


def read_names(what: str, names: Any) -> tuple[str, ...]:
    """A list of different texts, as a tuple; else UsageError."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(what, "must be a list of texts", names)
    if len(set(names)) != len(names):
        raise UsageError(what, "must be different", names)
    return tuple(names)


def read_pairs(what: str, pairs: list[Any]) -> list[tuple[str, Any]]:
    """A list of pairs with different names in front; else UsageError."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UsageError(what, "must be pairs", pairs)
    return list(zip(read_names(what, [name for name, _ in pairs]), [rest for _, rest in pairs], strict=True))


def _label_order(value: float | str) -> Any:
    return natural_key(value) if isinstance(value, str) else value


def _sum(values: Floats) -> float:
    """The sum, by adding halves: errors grow with log₂ of the rows, in an order that no CPU changes."""
    while len(values) > 1:
        half = len(values) // 2
        halves = values[:half] + values[half : 2 * half]
        if len(values) % 2:
            halves[0] += values[-1]
        values = halves
    return float(values[0])
