"""The encoding that turns columns of numbers and text into the features of linear models.

Each site surveys its partitions (`surveys`), the server pools all surveys into one `Encoding` (`pooling`),
and each site encodes its rows with it. The encoded numbers are equal at all holders of a partition: shift and
scale come from the server, and a difference and a quotient have the same bits on every CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, as_column, is_missing, label_of, to_numbers, to_text
from asyncdmtl.data.features import (
    CategoryColumn,
    EncodedColumn,
    NumberColumn,
    encode_numbers,
    read_column,
)
from asyncdmtl.data.fields import read_fields, read_names, read_pairs
from asyncdmtl.data.reading import identity
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES


@dataclass(frozen=True)
class Encoding:
    """How columns become features and targets become labels. It is empty if all columns are numbers already.

    Attributes
    ----------
    columns : tuple of NumberColumn or CategoryColumn
        The columns that are used, in order.
    dropped : mapping of name to reason
        The columns that are left out.
    target : str
        The name of the target.
    classes : (str, str) or None
        The classes of the labels 0 and 1, as text (numbers as `as_text` writes them); None for a regression.
    offset : float
        The number that is subtracted from a target, and must be added to predictions.

    Raises
    ------
    UsageError
        Two features have the same name.
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
        """The encoding of data that are numbers already."""
        return cls((), {}, "", None)

    @property
    def is_empty(self) -> bool:
        """Whether data are numbers already, with nothing to encode."""
        return not self.columns

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the `F` encoded columns."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the columns that are used."""
        return tuple(column.name for column in self.columns)

    @property
    def categories(self) -> tuple[str, ...]:
        """The columns of `sources` that are read as text, even if a file has only digits in them."""
        return tuple(column.name for column in self.columns if isinstance(column, CategoryColumn))

    def labels_of(self, loss: str) -> NDArray[Any] | None:
        """The two classes as they were in the data, numbers or texts, as an array; None for a regression."""
        if not LOSSES[loss].classification:
            return None
        labels = list(map(label_of, self.classes or ("0", "1")))
        alike = len({isinstance(label, str) for label in labels}) == 1
        return np.array(labels, dtype=None if alike else np.object_)

    def encode_rows(self, columns: Mapping[str, Column]) -> Floats:
        """Encode features.

        Parameters
        ----------
        columns : mapping of name to (rows,) array
            The columns of `sources`; others are ignored.

        Returns
        -------
        (rows, F) float64 array, C-contiguous.

        Raises
        ------
        DataError
            Names a column that is absent, has text instead of numbers, or has infinite values.
        """
        for name in self.sources:
            if name not in columns:
                raise DataError(f"column {name!r}", "must be among the columns", list(columns))
        found = {name: as_column(columns[name], f"column {name!r}") for name in self.sources}
        lengths = {name: len(column) for name, column in found.items()}
        if len(set(lengths.values())) != 1:
            raise DataError("columns", "must be some, of equal length", lengths)
        X = np.empty((next(iter(lengths.values())), len(self.features)))
        numbers: dict[int, NumberColumn] = {}
        at = 0
        for column in self.columns:
            width = len(column.features)
            if isinstance(column, NumberColumn):
                numbers[at] = column
            else:
                column.encode(found[column.name], X[:, at : at + width])
            at += width
        if numbers:
            X[:, list(numbers)] = encode_numbers(list(numbers.values()), found).T
        return X

    def encode_target(self, values: Column) -> Floats:
        """Encode targets.

        Parameters
        ----------
        values : (rows,) array

        Returns
        -------
        (rows,) float64 array: labels 0 and 1 for a classification, else numbers minus `offset`.

        Raises
        ------
        DataError
            A value is missing, is none of the classes, or is no finite number.
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
        of = {label: i for i, label in enumerate(map(identity, self.classes))}
        found = {label: of.get(identity(label), math.nan) for label in set(labels.tolist())}
        y = np.array([found[label] for label in labels.tolist()], np.float64)
        if (unknown := np.isnan(y)).any():
            raise DataError(what, f"must be {' or '.join(map(repr, self.classes))}", labels[unknown][0])
        return y

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON and msgpack, which `from_dict` reads."""
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
        """Read what `as_dict` returned, after any transport; nothing in it is trusted.

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
