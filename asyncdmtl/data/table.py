"""Tables: rows of many tasks, and the meaning of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.data.class_weights import BALANCED
from asyncdmtl.data.columns import Column, Texts
from asyncdmtl.data.reading import Reading, normalised
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.validation import whole_number

TASK = "tasks"
"""The array of an `.npz` that names the task of each row."""

WEIGHT = "sample_weight"
"""The column, or array of an `.npz`, that is taken for weights of rows unless another is named."""


@dataclass(frozen=True)
class TableSpec:
    """The files to read, and the meaning of their columns.

    Parameters
    ----------
    files : tuple of str
        Paths, URLs, patterns (see `files.find_files`).
    task, target : str
        The column that names the task of each row, and the column to predict. The defaults are those of
        `.npz` files.
    features : tuple of str, optional
        The columns to predict from, in this order; default all others.
    omit : tuple of str
        Columns that are not read, if `features` is not given.
    weight : str, optional
        A column of weights of at least 0. Rows of weight 0 are left out. Default: `sample_weight`, if there
        is such a column.
    class_weight : str, optional
        "balanced" gives both classes of a task the same weight in training (see `class_weights`).
    test_fraction : float
        The share of each task's rows to test on, from 0 to below 1.
    parts : int
        The number of partitions of each task, at most.
    reading : Reading
        The options by which cells are read.
    site : str, optional
        A prefix for the names of a worker's partitions, for sites whose files have equal names.

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
    class_weight: str | None = None
    test_fraction: float = 0.0
    parts: int = 1
    reading: Reading = field(default_factory=Reading)
    site: str | None = None

    def __post_init__(self) -> None:
        for name in ("task", "target", "weight"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, normalised(given))
        if self.features is not None:
            object.__setattr__(self, "features", tuple(map(normalised, self.features)))
        object.__setattr__(self, "omit", tuple(map(normalised, self.omit)))
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
        if self.class_weight not in (None, BALANCED):
            raise UsageError("class_weight", f"must be {BALANCED!r} or None", self.class_weight)
        if not isinstance(self.test_fraction, int | float) or not 0.0 <= self.test_fraction < 1.0:
            raise UsageError("test fraction", "must be at least 0 and below 1", self.test_fraction)
        whole_number("parts", self.parts, 1)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with the meaning of their columns.

    Attributes
    ----------
    tasks : (rows,) array of str
        The task of each row; None where it is missing.
    target : (rows,) array or None
    columns : mapping of name to (rows,) array
        The features.
    weights : (rows,) float64 array or None
    """

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
        """Task → ascending indices of its rows, tasks in natural order; "" for rows without a task."""
        if not self.rows:
            return {}
        codes: dict[str, int] = {}
        names = ["" if task is None else task for task in self.tasks.tolist()]
        of = np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
        cuts = np.cumsum(np.bincount(of, minlength=len(codes)))[:-1]
        rows = dict(zip(codes, np.split(np.argsort(of, kind="stable"), cuts), strict=True))
        return {task: rows[task] for task in sorted(rows, key=natural_key)}
