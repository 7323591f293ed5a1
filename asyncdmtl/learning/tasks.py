"""Tasks, their partitions, and the linear models that are trained: one per task."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncdmtl.arithmetic.elementary import expit
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES, check_targets, predictions_of
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.smoothness import largest_eigenvalue_bound

SEALED = "sealed"
"""The field of a survey whose content only workers can read, in a run whose server is blind."""

# The columns of a survey that are hashed at one time: less than a millisecond's work.
_CLAIM_COLUMNS = 1000


@dataclass(frozen=True)
class Declaration:
    """A worker's declaration of a partition that it stores, made before the encoding is known.

    `digest` is the 16-byte digest of the raw content. `survey` is `Survey.as_dict()`, empty if the rows are
    numbers already. `held` counts the test rows, which are not among `rows`. The rows
    themselves never leave the site.
    """

    id: str
    task: str
    digest: bytes
    rows: int
    survey: Mapping[str, Any]
    held: int = 0

    @cached_property
    def claim(self) -> bytes:
        """16 bytes that are equal for all copies of a partition, whatever the order of their columns.

        They are computed once, which takes a tenth of a second for a survey of 100,000 columns. If the survey
        is malformed, no other declaration has the same. A survey that is sealed for other workers comes with
        a MAC of the claim, which takes its place.
        """
        check = hashlib.blake2b(digest_size=16, usedforsecurity=False)
        try:
            for name, value in sorted(self.survey.items()):
                if name == SEALED:
                    continue
                rest, columns = value, []
                if name == "columns":
                    rest, columns = None, value
                elif name == "fingerprints":
                    rest, columns = {**value, "columns": len(value["columns"])}, value["columns"]
                check.update(msgpack.packb([name, rest, len(columns)]))
                columns = sorted(columns, key=_name_of)
                # In slices, between which other threads can go on.
                for start in range(0, len(columns), _CLAIM_COLUMNS):
                    check.update(msgpack.packb(columns[start : start + _CLAIM_COLUMNS]))
            check.update(msgpack.packb([self.id, self.task, self.digest, self.rows, self.held]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return secrets.token_bytes(16)
        return check.digest()


def _name_of(pair: Sequence[Any]) -> str:
    """The first item of a pair; TypeError if it is no name."""
    if not isinstance(pair[0], str):
        raise TypeError("a column must have a name")
    return pair[0]


@dataclass(frozen=True)
class PartitionInfo:
    """The facts about a partition of numbers that every worker knows; equal at all its holders.

    `weight` is the sum of the weights of its rows (the number of rows, if they have no weights).
    `smoothness` is `Partition.smoothness` for the columns that the coupling involves. `classes` names the
    labels of the partition under a loss for classification: "0", "1", or "01" for both; under Poisson loss it
    is "0" if all targets are 0; else it is empty.
    `held` counts the rows that its holders keep for tests, beside `rows`. In a run whose server is blind, it
    is told names, counts and features only, and `sealed` has the rest for the workers; once they have opened
    it, a mark that tells contents apart.
    """

    id: str
    task: str
    digest: bytes
    rows: int
    weight: float
    features: int
    smoothness: float
    classes: str = ""
    held: int = 0
    sealed: bytes = b""


class FeatureNames(Protocol):
    """The part of an encoding that a partition of numbers uses."""

    @property
    def is_empty(self) -> bool:
        """Whether the encoding is for rows that are numbers already."""

    @property
    def features(self) -> Sequence[str]:
        """Names of the encoded features."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Some of the rows of one task.

    Parameters
    ----------
    id, task : str
        Names of the partition and of the task that owns it.
    X : (rows, features) array-like
        Converted to a C-contiguous float64 array, so that a local update has the same bits at every holder.
    y : (rows,) array-like
        Converted to float64. Labels of a classification are 0 and 1.
    weights : (rows,) array-like, optional
        The weight of each row: at least 0, and not all 0. A weight of 2 equals a row that occurs twice.

    Raises
    ------
    DataError
        Shapes do not fit, there is no row or no feature, or a value is not finite.
    """

    id: str
    task: str
    X: Floats
    y: Floats
    weights: Floats | None = None

    def __post_init__(self) -> None:
        what = f"partition {self.id!r}"
        for name in ("X", "y") if self.weights is None else ("X", "y", "weights"):
            object.__setattr__(self, name, _as_floats(getattr(self, name), f"{name} of {what}"))
        if self.X.ndim != 2 or self.y.ndim != 1:
            raise DataError(what, "needs a 2-D X and a 1-D y, as shapes", (self.X.shape, self.y.shape))
        if len(self.X) != len(self.y):
            raise DataError(what, "needs as many targets as rows", (len(self.X), len(self.y)))
        if self.X.size == 0:
            raise DataError(what, "needs at least one row and one feature, as shape", self.X.shape)
        if self.weights is not None:
            if self.weights.shape != self.y.shape:
                raise DataError(f"weights of {what}", f"must have shape {self.y.shape}", self.weights.shape)
            if self.weights.min() < 0.0 or not 0.0 < self.weight < math.inf:
                raise DataError(f"weights of {what}", "must be at least 0, and not all 0", self.weights)

    @property
    def weight(self) -> float:
        """The sum of the weights, or the number of rows if there are no weights."""
        return float(self.rows if self.weights is None else total(self.weights))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.X.shape[1])

    @property
    def targets(self) -> Floats:
        """The targets `y`, as every kind of stored partition has them."""
        return self.y

    def take(self, rows: Indices) -> Partition:
        """Some of the rows, at least one, under the same name."""
        weights = None if self.weights is None else self.weights[rows]
        return Partition(self.id, self.task, self.X[rows], self.y[rows], weights)

    def digest(self) -> bytes:
        """16 bytes of BLAKE2b over the content, computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        h = hashlib.blake2b(digest_size=CONTENT_DIGEST_BYTES, usedforsecurity=False)
        for part in self.content():
            h.update(part)
        return h.digest()

    def content(self) -> Iterator[bytes | memoryview]:
        """Names, shapes and the little-endian float64 arrays, as they are hashed."""
        for name in (self.id, self.task):
            raw = name.encode()
            yield len(raw).to_bytes(8, "little") + raw
        for size in self.X.shape:
            yield size.to_bytes(8, "little")
        for array in (self.X, self.y) if self.weights is None else (self.X, self.y, self.weights):
            yield np.ascontiguousarray(array, dtype="<f8").reshape(-1).view(np.uint8).data

    def smoothness(self, loss: str, *, intercept: bool) -> float:
        """An upper bound on the Lipschitz constant of the gradient of the weighted mean loss over the rows.

        `λ_max(Xᵀ diag(weights) X) / weight · curvature`, with a column of ones in `X` if `intercept`. It is
        computed from the smaller Gram matrix and rounded up to 12 significant bits: see `smoothness`. It is
        computed once for each curvature.

        Raises
        ------
        DataError
            Numbers in `X` are so large that their squares overflow.
        """
        curvature = LOSSES[loss].curvature
        if (curvature, intercept) not in self._smoothness:
            self._smoothness[curvature, intercept] = self._computed_smoothness(curvature, intercept)
        return self._smoothness[curvature, intercept]

    @cached_property
    def _smoothness(self) -> dict[tuple[float, bool], float]:
        """What `smoothness` has computed, by curvature and whether there is an intercept."""
        return {}

    def _computed_smoothness(self, curvature: float, intercept: bool) -> float:
        roots = np.ones(self.rows) if self.weights is None else np.sqrt(self.weights)
        with np.errstate(over="ignore", invalid="ignore"):
            X = self.X if self.weights is None else self.X * roots[:, None]
            X = np.column_stack([X, roots]) if intercept else X
            squared = gram(X if self.rows < self.features else X.T)
        if not np.isfinite(squared).all():
            raise DataError(
                f"X of partition {self.id!r}", "is too large to be squared", float(np.abs(X).max())
            )
        return largest_eigenvalue_bound(squared, curvature / self.weight)

    def info(self, settings: Settings) -> PartitionInfo:
        """The facts about this partition that all workers know in a run with these settings.

        Raises
        ------
        DataError
            The targets do not suit the loss, or `X` is too large.
        """
        check_targets(settings.loss, self.y, f"partition {self.id!r}")
        loss = LOSSES[settings.loss]
        # A free intercept has a step length of its own.
        smoothness = self.smoothness(settings.loss, intercept=settings.intercept == "penalised")
        classes = "".join(f"{label:.0f}" for label in np.unique(self.y)) if loss.classification else ""
        if loss.counts and not self.y.any():
            classes = "0"
        return PartitionInfo(
            self.id, self.task, self.digest(), self.rows, self.weight, self.features, smoothness, classes
        )

    def declaration(self) -> Declaration:
        """The declaration of this partition. Its rows are numbers, so there is nothing to survey."""
        return Declaration(self.id, self.task, self.digest(), self.rows, {})

    def encoded(self, encoding: FeatureNames) -> Partition:
        """This partition itself, as it needs no encoding.

        Raises
        ------
        DataError
            The encoding is for columns of a file.
        """
        if not encoding.is_empty:
            raise DataError(
                f"partition {self.id!r}", "is of numbers, but the run is on columns", encoding.features
            )
        return self


@dataclass(frozen=True, eq=False)
class TaskModels:
    """One fitted linear model per task: the result of a run.

    Attributes
    ----------
    tasks : tuple of str
        `T` names; row `t` of the arrays belongs to `tasks[t]`.
    coef_ : (T, features) float32 or float64 array
    intercept_ : (T,) float32 or float64 array
        Zeros if the run had no intercept.
    loss : str
        A name in `LOSSES`. It determines whether `predict` returns values or labels.

    Raises
    ------
    DataError
        Shapes do not fit each other, or the loss is unknown.
    """

    tasks: tuple[str, ...]
    coef_: NDArray[np.floating[Any]]
    intercept_: NDArray[np.floating[Any]]
    loss: str

    def __post_init__(self) -> None:
        T = len(self.tasks)
        if self.coef_.ndim != 2 or len(self.coef_) != T or self.intercept_.shape != (T,):
            raise DataError(
                "models",
                f"need {T} rows of coef_ and of intercept_",
                (self.coef_.shape, self.intercept_.shape),
            )
        if self.loss not in LOSSES:
            raise DataError("loss of models", f"must be one of {', '.join(LOSSES)}", self.loss)

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.coef_.shape[1])

    def of(self, rows: Sequence[int]) -> TaskModels:
        """The models of some tasks, chosen by their rows."""
        chosen = list(rows)
        names = tuple(self.tasks[t] for t in chosen)
        return TaskModels(names, self.coef_[chosen], self.intercept_[chosen], self.loss)

    def decision_function(self, X: ArrayLike, task: str) -> Floats:
        """Scores `X·coef_ + intercept_` of the model of `task`: (rows, features) → (rows,) float64.

        Raises
        ------
        UsageError
            There is no such task. It is a DataError if `X` has another shape or values that are not finite.
        """
        if task not in self.tasks:
            raise UsageError("task", f"must be one of {', '.join(self.tasks)}", task)
        rows = _as_floats(X, "X")
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise DataError("X", f"must have {self.features} columns, as shape", rows.shape)
        t = self.tasks.index(task)
        scores: Floats = matmul(rows, self.coef_[t].astype(np.float64)) + float(self.intercept_[t])
        return scores

    def predict(self, X: ArrayLike, task: str) -> Floats:
        """Values for a regression, labels 0.0 and 1.0 for a classification: (rows,) float64.

        Under Poisson loss values are means, `exp` of the scores.

        Raises
        ------
        UsageError
            As `decision_function`.
        """
        scores = self.decision_function(X, task)
        if LOSSES[self.loss].classification:
            return (scores > 0.0).astype(np.float64)
        return predictions_of(self.loss, scores)

    def predict_proba(self, X: ArrayLike, task: str) -> Floats:
        """Probabilities of the labels 0 and 1 under logistic loss: (rows, 2) float64.

        Raises
        ------
        UsageError
            The loss has no probabilities; or as `decision_function`.
        """
        if self.loss != "logistic":
            raise UsageError("predict_proba", "needs models of logistic loss", self.loss)
        scores = self.decision_function(X, task)
        return expit(np.column_stack([-scores, scores]))


def whole_tasks(partitions: Sequence[Partition]) -> dict[str, Partition]:
    """All rows of each task as one partition, in the order of the partitions.

    If only some partitions of a task have weights, rows without weights get weight 1.
    """
    found: dict[str, list[Partition]] = {}
    for partition in partitions:
        found.setdefault(partition.task, []).append(partition)
    return {task: merged(task, own) for task, own in found.items()}


def merged(task: str, partitions: Sequence[Partition]) -> Partition:
    """The rows of some partitions, concatenated into one partition that has the name of the task."""
    weights = None
    if any(p.weights is not None for p in partitions):
        weights = np.concatenate([np.ones(p.rows) if p.weights is None else p.weights for p in partitions])
    X, y = np.concatenate([p.X for p in partitions]), np.concatenate([p.y for p in partitions])
    return Partition(task, task, X, y, weights)


def _as_floats(values: ArrayLike, what: str) -> Floats:
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(what, "must be numbers in rows of equal length", values) from error
    if not np.isfinite(array).all():
        raise DataError(what, "must be finite", float(array[~np.isfinite(array)][0]))
    return array


def check_infos(infos: Sequence[PartitionInfo]) -> None:
    """DataError unless partitions are declared once each, well-formed, and have the same features."""
    if not infos:
        raise DataError("partitions", "must be at least one", [])
    ids = [info.id for info in infos]
    if len(set(ids)) != len(ids):
        raise DataError(
            "partitions", "must be declared once each; twice", sorted({i for i in ids if ids.count(i) > 1})
        )
    for info in infos:
        what = f"partition {info.id!r}"
        if info.rows < 1 or info.features < 1:
            raise DataError(
                what, "needs at least one row and one feature, as shape", (info.rows, info.features)
            )
        if not 0.0 < info.weight < math.inf:
            raise DataError(f"weight of {what}", "must be a finite number, more than 0", info.weight)
        if not 0.0 <= info.smoothness < math.inf:
            raise DataError(f"smoothness of {what}", "must be a finite number, at least 0", info.smoothness)
        if info.features != infos[0].features:
            raise DataError(
                f"features of {what}",
                f"must be as many as in {ids[0]!r} ({infos[0].features})",
                info.features,
            )
