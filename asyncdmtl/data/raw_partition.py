"""Rows of a task as read from a file, before all sites agree on an encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.data.columns import Column, as_column, is_missing, is_numeric, to_numbers, update_digest
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.surveys import Survey
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Declaration, Partition


@dataclass(frozen=True, eq=False)
class RawPartition:
    """A partition as read from a file, not yet encoded: some of the rows of one task.

    Parameters
    ----------
    id, task : str
    columns : mapping of name to (rows,) array-like
        The features, each of numbers, text, or true and false. Missing values are NaN or None. They are
        kept as `columns.as_column` returns them.
    target : (rows,) array-like
        The target, of the same kinds, with a value in every row.
    weights : (rows,) array-like, optional
        The weight of each row, see `Partition`.
    target_name : str

    Raises
    ------
    DataError
        There is no row or no column, lengths differ, a column is of another kind, or a target is missing or
        not finite.
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

    @property
    def targets(self) -> Column:
        """The targets, one for each row."""
        return self.target

    def take(self, rows: Indices) -> RawPartition:
        """Some of the rows, at least one, under the same name."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        weights = None if self.weights is None else self.weights[rows]
        return RawPartition(self.id, self.task, columns, self.target[rows], weights, self.target_name)

    def digest(self) -> bytes:
        """16 bytes of BLAKE2b over names and content; copies of a partition have equal digests."""
        h = hashlib.blake2b(digest_size=CONTENT_DIGEST_BYTES, usedforsecurity=False)
        # Sorted by name, since copies may have their columns in different orders.
        columns = sorted(self.columns.items())
        for name in (self.id, self.task, self.target_name, *(name for name, _ in columns)):
            raw = name.encode()
            h.update(len(raw).to_bytes(8, "little") + raw)
        for column in (*(column for _, column in columns), self.target):
            update_digest(h, column)
        if self.weights is not None:
            update_digest(h, self.weights)
        return h.digest()

    def survey(self) -> Survey:
        """The survey of this partition.

        Raises
        ------
        DataError
            Names a column with infinite or huge numbers, or with too many categories.
        """
        what = f"partition {self.id!r}"
        return Survey.of(self.columns, self.target_name, self.target, what, self.weights)

    def declaration(self) -> Declaration:
        """The declaration of a worker that stores this partition. DataError as `survey`."""
        return Declaration(self.id, self.task, self.digest(), self.rows, self.survey().as_dict())

    def encoded(self, encoding: Encoding) -> Partition:
        """The partition as numbers, ready to train on.

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
