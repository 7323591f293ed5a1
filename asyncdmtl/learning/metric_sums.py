"""Sums over test rows, which a site sends instead of the rows, and from which metrics follow.

Sums of several partitions can be added, so that metrics of a task, and of all tasks, need no rows. For a
regression they are the number of rows, mean and scatter of the targets, and the squared errors of each kind
of models; under Poisson loss, half the deviances in place of scatter and squared errors. For a classification
they are histograms of the scores of either class: accuracy and F1 follow exactly, and the area under the ROC
curve and average precision but for rows of both classes whose scores share a bin, which count as equal. Under
logistic loss there are sums of log-losses and of squared errors of probabilities, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncdmtl.arithmetic.elementary import expit, log
from asyncdmtl.arithmetic.sums import mean, sum_of_squares, total
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition, TaskModels

KINDS = ("coupled", "single_task", "pooled")
"""Kinds of models that are compared: those of the run, of every task alone, and one for all tasks."""

BINS = 1024
"""Bins of a histogram: equal parts of (−1, 1), where a score `s` lies at `s / (1 + |s|)`. They are 1/512 wide
near 0; the lower half is of scores that say class 0."""


LARGEST = 1e280
"""The largest sum of squares that a worker may tell: of many such partitions the sums are still finite."""


@dataclass(frozen=True, eq=False)
class SquaredErrors:
    """Sums of a regression.

    Attributes
    ----------
    rows : int
    mean, scatter : float
        Mean and scatter of the targets; the scatter is the sum of squares about the mean.
    errors : mapping of kind to float
        The sum of squared errors.
    """

    rows: int
    mean: float
    scatter: float
    errors: Mapping[str, float]

    @classmethod
    def of(cls, y: Floats, scores: Mapping[str, Floats]) -> SquaredErrors:
        """The sums of some rows: targets (rows,), and scores (rows,) of each kind."""
        centre = float(mean(y, 0))
        errors = {kind: float(sum_of_squares(y - s, 0)) for kind, s in scores.items()}
        return cls(len(y), centre, float(sum_of_squares(y - centre, 0)), errors)

    @classmethod
    def merged(cls, parts: Sequence[SquaredErrors]) -> SquaredErrors:
        """The sums of all rows together, of the kinds that all parts have."""
        rows = sum(part.rows for part in parts)
        centre = math.fsum(part.rows * part.mean for part in parts) / rows
        scatter = math.fsum(part.scatter + part.rows * (part.mean - centre) ** 2 for part in parts)
        kinds = _shared([part.errors for part in parts])
        return cls(rows, centre, scatter, {k: math.fsum(part.errors[k] for part in parts) for k in kinds})

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of models that were tested."""
        return tuple(self.errors)

    def metric(self, name: str, kind: str) -> float:
        """The RMSE or R² of a kind of models; NaN if it is undefined."""
        if name == "RMSE":
            return math.sqrt(self.errors[kind] / self.rows)
        return 1.0 - self.errors[kind] / self.scatter if self.scatter > 0.0 else math.nan

    def as_list(self) -> list[Any]:
        """Plain types, which `sums_from` reads."""
        return [self.rows, self.mean, self.scatter, dict(self.errors)]

    @classmethod
    def from_list(cls, content: Sequence[Any]) -> SquaredErrors:
        """Read the result of `as_list`; ValueError, TypeError or AttributeError if it is malformed."""
        rows, centre, scatter, errors = content
        found = {_kind(kind): _sum(value) for kind, value in errors.items()}
        if not isinstance(centre, float) or not abs(centre) <= math.sqrt(LARGEST):
            raise ValueError("a mean that is none, or too large")
        return cls(_count(rows), centre, _sum(scatter), found)


@dataclass(frozen=True, eq=False)
class Deviances(SquaredErrors):
    """Sums of a regression under Poisson loss: `scatter` and `errors` are half the Poisson deviances."""

    @classmethod
    def of(cls, y: Floats, scores: Mapping[str, Floats]) -> Deviances:
        """The sums of some rows: targets (rows,), and scores (rows,) of each kind."""
        centre = float(mean(y, 0))
        errors = {kind: _half_deviance(y, s) for kind, s in scores.items()}
        return cls(len(y), centre, _about(y, centre), errors)

    @classmethod
    def merged(cls, parts: Sequence[SquaredErrors]) -> Deviances:
        """The sums of all rows together, of the kinds that all parts have."""
        rows = sum(part.rows for part in parts)
        centre = math.fsum(part.rows * part.mean for part in parts) / rows
        means = np.array([part.mean for part in parts])
        counts = np.array([float(part.rows) for part in parts])
        # A part's deviance about the common mean is that about its own mean, plus that of as many targets
        # that all equal its own mean.
        between = _about(means, centre, counts)
        kinds = _shared([part.errors for part in parts])
        errors = {kind: math.fsum(part.errors[kind] for part in parts) for kind in kinds}
        return cls(rows, centre, math.fsum([*(part.scatter for part in parts), between]), errors)

    def metric(self, name: str, kind: str) -> float:
        """The mean Poisson deviance or D² of a kind of models; NaN if it is undefined."""
        if name == "Poisson deviance":
            return 2.0 * self.errors[kind] / self.rows
        return 1.0 - self.errors[kind] / self.scatter if self.scatter > 0.0 else math.nan


@dataclass(frozen=True, eq=False)
class Histograms:
    """Sums of a classification.

    Attributes
    ----------
    rows : int
    counts : mapping of kind to (2, BINS) int64 array
        The numbers of rows of class 0 and of class 1 in each bin of the score.
    """

    rows: int
    counts: Mapping[str, Indices]

    @classmethod
    def of(cls, y: Floats, scores: Mapping[str, Floats]) -> Histograms:
        """The sums of some rows: labels (rows,), and scores (rows,) of each kind."""
        counts = {}
        for kind, s in scores.items():
            places = ((s / (1.0 + np.abs(s)) + 1.0) * (BINS / 2)).astype(np.int64)
            bins = np.where(s > 0.0, np.clip(places, BINS // 2, BINS - 1), np.clip(places, 0, BINS // 2 - 1))
            counts[kind] = np.stack([np.bincount(bins[y == c], minlength=BINS) for c in (0.0, 1.0)])
        return cls(len(y), counts)

    @classmethod
    def merged(cls, parts: Sequence[Histograms]) -> Histograms:
        """The sums of all rows together, of the kinds that all parts have."""
        kinds = _shared([part.counts for part in parts])
        counts = {kind: np.sum([part.counts[kind] for part in parts], axis=0) for kind in kinds}
        return cls(sum(part.rows for part in parts), counts)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of models that were tested."""
        return tuple(self.counts)

    def metric(self, name: str, kind: str) -> float:
        """Accuracy, F1, average precision or ROC AUC of a kind of models; NaN if it is undefined."""
        negative, positive = self.counts[kind]
        said = int(negative[BINS // 2 :].sum()), int(positive[BINS // 2 :].sum())
        if name == "accuracy":
            return float(negative[: BINS // 2].sum() + said[1]) / self.rows
        if name == "F1":
            count = sum(said) + int(positive.sum())
            return 2.0 * said[1] / count if count else math.nan
        if name == "average precision":
            # The precision of the rows from each bin upwards, weighted by the bin's share of the positives.
            above = np.cumsum(positive[::-1])[::-1]
            rows = np.maximum(above + np.cumsum(negative[::-1])[::-1], 1)
            return math.fsum(positive * (above / rows)) / int(above[0]) if above[0] else math.nan
        pairs = float(negative.sum()) * float(positive.sum())
        below = np.cumsum(negative) - negative
        return float((positive * (below + 0.5 * negative)).sum()) / pairs if pairs else math.nan

    def as_list(self) -> list[Any]:
        """Plain types, which `sums_from` reads: for each kind, the bins with rows and their counts."""
        packed = {}
        for kind, counts in self.counts.items():
            bins = np.flatnonzero(counts.any(axis=0))
            packed[kind] = [bins.tolist(), *counts[:, bins].tolist()]
        return [self.rows, packed]

    @classmethod
    def from_list(cls, content: Sequence[Any]) -> Histograms:
        """Read the result of `as_list`; ValueError, TypeError or AttributeError if it is malformed."""
        rows, packed = content
        counts = {}
        for kind, (bins, *both) in packed.items():
            negative, positive = both
            # Python's whole numbers are added here, whose sum does not wrap around.
            if (
                len(negative) != len(bins)
                or len(positive) != len(bins)
                or sum(negative) + sum(positive) != rows
            ):
                raise ValueError("counts that do not add up")
            if not all(type(count) is int and 0 <= count <= rows for count in (*negative, *positive)):
                raise ValueError("counts that are none")
            if not all(type(place) is int and 0 <= place < BINS for place in bins) or len(set(bins)) != len(
                bins
            ):
                raise ValueError("bins that are none")
            counts[_kind(kind)] = np.zeros((2, BINS), np.int64)
            counts[kind][:, bins] = negative, positive
        return cls(_count(rows), counts)


@dataclass(frozen=True, eq=False)
class Probabilities(Histograms):
    """Sums of a classification under logistic loss, whose scores are probabilities.

    Attributes
    ----------
    errors : mapping of kind to (float, float)
        The sum of log-losses, and that of squared differences of labels and probabilities.
    """

    errors: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, y: Floats, scores: Mapping[str, Floats]) -> Probabilities:
        """The sums of some rows: labels (rows,), and scores (rows,) of each kind."""
        errors = {}
        for kind, s in scores.items():
            values, _ = LOSSES["logistic"].value_and_derivative(s, y)
            errors[kind] = float(total(values)), float(sum_of_squares(expit(s) - y, 0))
        return cls(len(y), Histograms.of(y, scores).counts, errors)

    @classmethod
    def merged(cls, parts: Sequence[Histograms]) -> Probabilities:
        """The sums of all rows together, of the kinds that all parts have."""
        together = Histograms.merged(parts)
        told = [part.errors for part in parts if isinstance(part, Probabilities)]
        errors = {
            kind: (math.fsum(each[kind][0] for each in told), math.fsum(each[kind][1] for each in told))
            for kind in together.kinds
        }
        return cls(together.rows, together.counts, errors)

    def metric(self, name: str, kind: str) -> float:
        """As `Histograms.metric`, and log-loss and Brier score."""
        if name in ("log-loss", "Brier score"):
            return self.errors[kind][int(name == "Brier score")] / self.rows
        return super().metric(name, kind)

    def as_list(self) -> list[Any]:
        """Plain types, which `sums_from` reads."""
        return [*super().as_list(), {kind: list(both) for kind, both in self.errors.items()}]

    @classmethod
    def from_list(cls, content: Sequence[Any]) -> Probabilities:
        """Read the result of `as_list`; ValueError, TypeError or AttributeError if it is malformed."""
        *counted, told = content
        found = Histograms.from_list(counted)
        errors = {}
        for kind, (losses, squares) in told.items():
            errors[_kind(kind)] = _sum(losses), _sum(squares)
        if errors.keys() != found.counts.keys():
            raise ValueError("errors of other kinds of models")
        return cls(found.rows, found.counts, errors)


MetricSums = SquaredErrors | Histograms


def sums_of(loss: str, rows: Partition, models: Mapping[str, TaskModels]) -> MetricSums:
    """The sums of the rows of a partition under models of each kind."""
    scores = {kind: each.decision_function(rows.X, rows.task) for kind, each in models.items()}
    return _kind_of(loss).of(rows.y, scores)


def sums_from(loss: str, content: object) -> MetricSums:
    """Read the result of `as_list`, after any transport; nothing in it is trusted.

    Raises
    ------
    UsageError
        The content is malformed, or lacks the models of the run.
    """
    try:
        found = _kind_of(loss).from_list(content)  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError("sums of test rows", f"must be what a worker tells ({error})", content) from error
    if "coupled" not in found.kinds:
        raise UsageError("sums of test rows", "must be of the models of the run", found.kinds)
    return found


def merged(parts: Sequence[MetricSums]) -> MetricSums:
    """The sums of the rows of several partitions, at least one, of one run."""
    return type(parts[0]).merged(parts)  # type: ignore[arg-type]


def _half_deviance(y: Floats, scores: Floats, weights: Floats | None = None) -> float:
    values, _ = LOSSES["poisson"].value_and_derivative(scores, y)
    return max(float(total(values if weights is None else weights * values)), 0.0)


def _about(y: Floats, centre: float, weights: Floats | None = None) -> float:
    """Half the deviance about a mean."""
    return _half_deviance(y, log(np.full(len(y), centre)), weights) if centre > 0.0 else 0.0


def _kind_of(loss: str) -> type[SquaredErrors] | type[Histograms]:
    if LOSSES[loss].counts:
        return Deviances
    if loss == "logistic":
        return Probabilities
    return Histograms if LOSSES[loss].classification else SquaredErrors


def _shared(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [kind for kind in KINDS if all(kind in part for part in parts)]


def _kind(kind: object) -> str:
    if kind not in KINDS:
        raise ValueError(f"models of the kind {kind!r}")
    return str(kind)


def _count(value: object) -> int:
    if type(value) is not int or not 1 <= value < 2**48:
        raise ValueError("a number of rows that is none")
    return value


def _sum(value: object) -> float:
    if not isinstance(value, float) or not 0.0 <= value <= LARGEST:
        raise ValueError("a sum of squares that is none, or too large")
    return value
