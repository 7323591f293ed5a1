"""Rows and the task of each row, as users give them to an estimator: arrays, DataFrames, or lists of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse, vstack

from asyncdmtl.data.reading import normalised
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.plan.placement import natural_key

# The most characters of a task's text. A partition's name may have 200 characters, and holds a class and the
# number of a part besides.
_LONGEST_NAME = 120

# The texts of missing values in NumPy and pandas.
_MISSING = ("nan", "NaT", "<NA>")


@dataclass(frozen=True, eq=False)
class TaskRows:
    """The rows of all tasks, one after the other as given.

    Attributes
    ----------
    X : array-like or DataFrame
        `n` rows, without the column of tasks.
    labels : list or None
        The task of each row; None if no tasks were given.
    lengths : tuple of int or None
        If a list of arrays was given, the number of rows of each.
    column : str, int or None
        The column that has the labels.
    """

    X: Any
    labels: list[Hashable] | None
    lengths: tuple[int, ...] | None
    column: str | int | None

    @classmethod
    def gather(cls, X: Any, tasks: Any, column: str | int | None = None) -> TaskRows:
        """Bring rows and tasks into one form.

        Parameters
        ----------
        X : (n, features) array-like or DataFrame, or list of one of them per task
        tasks : array-like of n labels, or one per item of a list; or the name of a column; or None
            By default, items of a list are the tasks 0, 1, ….
        column : str, int or None
            The column with the tasks if `tasks` is None. It is no feature.

        Raises
        ------
        UsageError
            The column does not exist, the number of labels is wrong, or a label is missing.
        """
        lengths = None
        if is_by_task(X):
            lengths = tuple(part.shape[0] for part in X)
            X = _stacked(X)
        names = list(X.columns) if hasattr(X, "columns") else []
        is_name = isinstance(tasks, str | int | np.integer)
        if is_name:
            if tasks not in names:
                raise UsageError("tasks", "must be labels, or the name of a column of X", tasks)
            column = tasks if isinstance(tasks, str) else int(tasks)
        present = column in names
        labels = None
        if is_name or (tasks is None and present):
            labels = _labels(X[column])
        elif lengths is not None:
            labels = _per_item(_labels(tasks) if tasks is not None else list(range(len(lengths))), lengths)
        elif tasks is not None:
            labels = _labels(tasks)
        if present:
            X = X[[name for name in names if name != column]]
        return cls(X, labels, lengths, column)

    def flat(self, values: Any, name: str) -> Any:
        """`values` as a single array, one per row; errors call them `name`."""
        if self.lengths is None or values is None:
            return values
        arrays = [np.asarray(part) for part in values]
        if tuple(map(len, arrays)) != self.lengths:
            raise DataError(name, f"must be a list of arrays of {self.lengths}", [len(a) for a in arrays])
        return np.concatenate(arrays)

    def like_given(self, values: NDArray[Any]) -> Any:
        """`values` (n, …) as one array, or one per item if `X` was a list."""
        if self.lengths is None:
            return values
        return np.split(values, np.cumsum(self.lengths)[:-1])

    def of_each(self, n: int) -> list[Hashable]:
        """The label of each of `n` rows; 0 for all if no tasks were given."""
        if self.labels is None:
            return [0] * n
        if len(self.labels) != n:
            raise DataError("tasks", f"must be one label for each of {n} rows", len(self.labels))
        return self.labels


def is_by_task(X: Any) -> bool:
    """Whether `X` is a list of arrays, one per task."""
    return isinstance(X, list | tuple) and bool(X) and all(getattr(part, "ndim", 0) == 2 for part in X)


def task_names(labels: Sequence[Hashable]) -> dict[Hashable, str]:
    """A mapping of each label to its text, in natural order of the texts (`w2` before `w10`).

    Raises
    ------
    DataError
        A label is missing, has no printable text, or has the same text as another.
    """
    names: dict[Hashable, str] = {}
    for label in dict.fromkeys(labels):
        if label is None or (not isinstance(label, str) and str(label) in _MISSING):
            raise DataError("tasks", "must be given for every row", label)
        name = str(label)
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise DataError("tasks", f"must have a text of 1 to {_LONGEST_NAME} printable characters", label)
        names[label] = name
    if len(set(names.values())) < len(names):
        twice = [label for label, name in names.items() if list(names.values()).count(name) > 1]
        raise DataError("tasks", "must differ in their text", twice)
    return dict(sorted(names.items(), key=lambda item: natural_key(item[1])))


def _labels(tasks: Any) -> list[Hashable]:
    """Labels as plain Python values, so that a 3 is the same label in arrays of every dtype.

    Text is normalised as in tables: Unicode normal form C, without spaces around it.
    """
    labels = [label.item() if isinstance(label, np.generic) else label for label in tasks]
    labels = [normalised(label) if isinstance(label, str) else label for label in labels]
    for label in labels:
        if not isinstance(label, Hashable):
            raise DataError("tasks", "must be labels: numbers, text, or other hashable values", label)
    return labels


def _per_item(labels: list[Hashable], lengths: tuple[int, ...]) -> list[Hashable]:
    if len(labels) != len(lengths):
        raise DataError("tasks", f"must be one label for each of {len(lengths)} arrays", labels)
    return [label for label, rows in zip(labels, lengths, strict=True) for _ in range(rows)]


def _stacked(parts: Sequence[Any]) -> Any:
    """The rows of all parts as one array, or as one DataFrame if all parts are DataFrames."""
    if all(hasattr(part, "iloc") for part in parts):
        import pandas as pd

        if any(list(part.columns) != list(parts[0].columns) for part in parts):
            raise DataError("X", "must have the same columns for all tasks", list(parts[0].columns))
        return pd.concat(parts)
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise DataError("X", "must have as many features for all tasks", widths)
    if any(map(issparse, parts)):
        return vstack(parts, format="csr")
    return np.concatenate([np.asarray(part) for part in parts])
