"""Centring and scaling: rows as given become partitions, and their models become models for rows as given."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from asyncdmtl.arithmetic.products import dot
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators.rows import task_names
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition, TaskModels


class Target(NamedTuple):
    """The target of one model: its name, the number `t` of its task, and `y` (n_t,) of the task's rows."""

    name: str
    t: int
    y: Floats


class TaskFrames:
    """The rows of every task, centred and scaled as they are trained on.

    With a free intercept, rows and real targets are centred within each task. Couplings do not involve free
    intercepts, so centring changes only intercepts, and training converges in far fewer rounds.

    Parameters
    ----------
    X : (n, features) float64 array
    weights : (n,) float64 array or None
        Each more than 0.
    labels : sequence of n labels
        The task of each row.
    loss : str
        A name in `LOSSES`.
    intercept : str
        As in `Settings`.
    standardise : bool
        Whether columns are divided by their (weighted) standard deviation over all rows.
    parts : int
        The most partitions of a task.
    site : str
        The first part of the partitions' names, where several sites take part in a run; "" for none.
    centred : bool
        Whether rows and targets are centred. They must not be if other sites may have rows of a task.

    Attributes
    ----------
    names : dict of label to text
        The tasks, in natural order of the texts.
    rows : tuple of int arrays
        The rows of each task, ascending.
    intercept : str
        The kind of intercept, a name in `settings.INTERCEPTS`.

    Raises
    ------
    UsageError
        `parts` is no whole number, or below 1. It is a DataError if a label breaks a rule of `task_names`.
    """

    def __init__(
        self,
        X: Floats,
        weights: Floats | None,
        labels: Sequence[Hashable],
        *,
        loss: str,
        intercept: str,
        standardise: bool,
        parts: int,
        site: str = "",
        centred: bool = True,
    ) -> None:
        if not isinstance(parts, int) or isinstance(parts, bool) or parts < 1:
            raise UsageError("parts", "must be a whole number, at least 1", parts)
        self.names = task_names(labels)
        T = len(self.names)
        position = {label: t for t, label in enumerate(self.names)}
        codes = np.array([position[label] for label in labels])
        order = np.argsort(codes, kind="stable")
        self.rows = tuple(np.split(order, np.searchsorted(codes[order], np.arange(1, T))))
        self.intercept = intercept
        self._free = intercept == "free" and centred
        self._site = f"{site}/" if site else ""
        self._loss = loss
        self._parts = parts
        self._scale = _scale(X, weights) if standardise else np.ones(X.shape[1])
        self._X, self._weights = X, weights
        self._means = np.zeros((T, X.shape[1]))
        if self._free:
            for t in range(T):
                self._means[t] = np.average(X[self.rows[t]], axis=0, weights=self._weights_of(t))
        # The shift of each model's intercept by centring, by the target's name.
        self._shifts: dict[str, float] = {}

    def with_intercept(self, intercept: str) -> TaskFrames:
        """The same rows for another kind of intercept: without centring, unless it is free."""
        made = copy(self)
        made.intercept, made._shifts = intercept, {}
        if intercept != "free":
            made._free, made._means = False, np.zeros_like(self._means)
        return made

    @property
    def weights(self) -> Floats | None:
        """The weight (n,) of each row, or None."""
        return self._weights

    def reweight(self, factors: Floats) -> None:
        """Multiply the weights of rows by factors (n,), after columns were scaled by the former weights."""
        self._weights = factors if self._weights is None else self._weights * factors

    def partitions(self, targets: Sequence[Target]) -> list[Partition]:
        """The partitions of all targets. Rows are dealt to the parts of a task in turn."""
        made = []
        for target in targets:
            if target.name in self._shifts:
                raise DataError("tasks and classes", "must differ in their text; twice", target.name)
            self._shifts[target.name] = 0.0
            made += self._cut(target)
        return made

    def models_as_given(self, models: TaskModels, targets: Sequence[Target]) -> tuple[Floats, Floats]:
        """Coefficients (targets, features) and intercepts (targets,), float64, for rows as given."""
        position = {name: i for i, name in enumerate(models.tasks)}
        chosen = [position[target.name] for target in targets]
        coef = models.coef_[chosen].astype(np.float64) / self._scale
        intercept = models.intercept_[chosen].astype(np.float64)
        for i, target in enumerate(targets):
            intercept[i] += self._shifts.get(target.name, 0.0) - dot(coef[i], self._means[target.t])
        return coef, intercept

    def _cut(self, target: Target) -> list[Partition]:
        rows, y, weights = self.rows[target.t], target.y, self._weights_of(target.t)
        if self._free and not (LOSSES[self._loss].classification or LOSSES[self._loss].counts):
            # Without features, the best intercept is the mean under squared loss, and close to the median
            # under Huber's.
            mean = float(np.average(y, weights=weights) if self._loss == "squared" else np.median(y))
            self._shifts[target.name] = mean
            y = y - mean
        P = min(self._parts, len(rows))
        return [
            Partition(
                f"{self._site}{target.name}/{p}",
                target.name,
                (self._X[rows[p::P]] - self._means[target.t]) / self._scale,
                y[p::P],
                None if weights is None else weights[p::P],
            )
            for p in range(P)
        ]

    def _weights_of(self, t: int) -> Floats | None:
        return None if self._weights is None else self._weights[self.rows[t]]


def _scale(X: Floats, weights: Floats | None) -> Floats:
    """Standard deviation of each column; 1 for a column that is constant up to rounding."""
    mean = np.average(X, axis=0, weights=weights)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    constant = deviation <= 10.0 * np.finfo(np.float64).eps * np.abs(mean)
    scale: Floats = np.where(constant, 1.0, deviation)
    return scale
