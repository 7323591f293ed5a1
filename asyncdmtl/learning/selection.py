"""Choosing λ: cross-validation over a path of strengths, in one process, on rows that are all here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels, whole_tasks
from asyncdmtl.learning.training import Trainer, train

# How near to the optimum a fit has to be to tell one λ from the next.
_TOLERANCE = 1e-4

# From one λ to the next, and after how many that are no better than the best the search ends.
_RATIO, _PATIENCE, _MOST = 10 ** (-1 / 3), 3, 20

# A loss that is lower by less than this fraction is hardly better: where λ does too little to matter, once it
# has mattered (a path may begin where λ does too much to).
_HARDLY, _MATTERED = 1e-3, 1e-2


@dataclass(frozen=True, eq=False)
class Selection:
    """What cross-validation found.

    Attributes
    ----------
    strength : float
        The λ of the least mean held-out loss.
    strengths : (count,) float64 array
        All that were tried, descending.
    losses : (count, folds) float64 array
        Mean loss per held-out row, averaged over tasks, for each strength and fold; NaN for a fold that
        holds out nothing.
    """

    strength: float
    strengths: Floats
    losses: Floats

    @property
    def loss(self) -> float:
        """The mean held-out loss at `strength`: the least."""
        return float(np.nanmean(self.losses, axis=1).min())


def select_strength(
    partitions: Sequence[Partition],
    settings: Settings,
    *,
    strengths: Sequence[float] | None = None,
    folds: int = 5,
    on_strength: Callable[[float, float], None] | None = None,
) -> Selection:
    """Cross-validate λ: fits on all but a fold of every task's rows, from coupled to free with warm starts.

    Rows of a task are dealt to the folds at random (by the seed), its two classes evenly; a task of one row
    is always trained on. Every fit goes on until it is within 1e-4 of the least objective, or for
    `settings.rounds`.

    Parameters
    ----------
    partitions : sequence of Partition
        All rows of all tasks.
    settings : Settings
        Of the run to come; its strength does not matter.
    strengths : sequence of float, optional
        Default: from `Coupling.critical_strength` down, three to a factor of ten, until three in a row are
        no better (by 0.1 %) than one before them.
    folds : int
        At least 2.
    on_strength : callable, optional
        Called with each strength that has been tried and its mean held-out loss.

    Raises
    ------
    UsageError
        Fewer than 2 folds, no strength, or one that is negative or not finite.
    DataError
        No task has two rows, so that nothing could be held out.
    """
    if folds < 2:
        raise UsageError("folds", "must be at least 2", folds)
    whole = list(whole_tasks(partitions).values())
    if max(task.rows for task in whole) < 2:
        raise DataError("partitions", "need a task of two rows to choose λ by cross-validation", len(whole))
    splits = _splits(whole, folds, settings)
    starts: list[TaskModels | None] = [None] * folds
    tried: list[float] = []
    losses: list[list[float]] = []
    for strength in _path(whole, settings, strengths):
        own = replace(settings, strength=strength, tolerance=_TOLERANCE)
        row = []
        for fold, (kept, held) in enumerate(splits):
            starts[fold] = models = train(kept, own, start=starts[fold]).models
            row.append(_held_out_loss(models, held, settings.loss))
        tried.append(strength)
        losses.append(row)
        means = np.nanmean(np.array(losses), axis=1)
        if on_strength is not None:
            on_strength(strength, float(means[-1]))
        if strengths is None and _is_over(means):
            break
    return Selection(tried[int(np.argmin(means))], np.array(tried), np.array(losses))


def _path(
    whole: Sequence[Partition], settings: Settings, strengths: Sequence[float] | None
) -> Sequence[float]:
    if strengths is None:
        first = critical_strength(whole, settings)
        return [first * _RATIO**i for i in range(_MOST)] if first > 0.0 else [0.0]
    path = np.sort(np.asarray(strengths, dtype=np.float64))[::-1]
    if path.ndim != 1 or not len(path) or not np.isfinite(path).all() or path[-1] < 0.0:
        raise UsageError("strengths", "must be finite numbers, at least 0", strengths)
    return [float(strength) for strength in path]


def _is_over(means: Floats) -> bool:
    """Whether smaller strengths are not worth trying, from the mean losses of those tried."""
    before, least = means[:-_PATIENCE], float(means.min())
    if not len(before):
        return False
    limit = least * (1.0 + _HARDLY) if means[0] > least * (1.0 + _MATTERED) else least
    return bool(before.min() <= limit)


def critical_strength(partitions: Sequence[Partition], settings: Settings) -> float:
    """`Coupling.critical_strength` for these rows: where a path over λ starts."""
    settings = replace(settings, update="gradient", learner="", epochs=1)
    infos = [partition.info(settings) for partition in partitions]
    problem = Problem(settings, infos)
    trainer = Trainer(problem, dict(enumerate(partitions)))
    if problem.coupled < problem.d:
        trainer.place(range(len(problem.tasks)), _intercepts(partitions, settings))
    updates = np.empty((len(infos), problem.d), problem.dtype)
    trainer.local_updates(updates)
    Z = np.array([problem.aggregate(t, updates[list(S)]) for t, S in enumerate(problem.partitions_of)])
    gradients = Z[:, : problem.coupled].astype(np.float64)
    return problem.coupling.critical_strength(gradients, 1.0 / float(problem.step_lengths[0]))


def _intercepts(partitions: Sequence[Partition], settings: Settings) -> NDArray[np.floating[Any]]:
    """Models (T, d) of nothing but a free intercept."""
    blank = [replace(p, X=np.zeros((p.rows, 1))) for p in partitions]
    plain = replace(
        settings, coupling="none", edges=(), update="gradient", learner="", epochs=1, accelerated=True,
        rounds=1000, tolerance=1e-10, dtype="float64",
    )  # fmt: skip
    fitted = train(blank, plain).models.intercept_
    models = np.zeros((len(fitted), partitions[0].features + 1))
    models[:, -1] = fitted
    return models


def _deal(task: Partition, t: int, folds: int, settings: Settings) -> NDArray[np.int64]:
    """The fold that holds out each row of a task; −1 if none does."""
    if task.rows < 2:
        return np.full(task.rows, -1)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(t,)))
    order = rng.permutation(task.rows)
    if LOSSES[settings.loss].classification:
        order = order[np.argsort(task.y[order], kind="stable")]
    into = np.empty(task.rows, dtype=np.int64)
    # Each task begins at another fold, so that small tasks fill all of them.
    into[order] = (np.arange(task.rows) + t) % folds
    return into


def _splits(
    whole: Sequence[Partition], folds: int, settings: Settings
) -> list[tuple[list[Partition], list[Partition]]]:
    """For each fold, the rows to train on and those to hold out."""
    dealt = [_deal(task, t, folds, settings) for t, task in enumerate(whole)]
    return [
        (
            [_rows(task, into != fold) for task, into in zip(whole, dealt, strict=True)],
            [_rows(task, into == fold) for task, into in zip(whole, dealt, strict=True) if fold in into],
        )
        for fold in range(folds)
    ]


def _rows(task: Partition, chosen: NDArray[np.bool_]) -> Partition:
    weights = None if task.weights is None else task.weights[chosen]
    return Partition(task.id, task.task, task.X[chosen], task.y[chosen], weights)


def _held_out_loss(models: TaskModels, held: Sequence[Partition], loss: str) -> float:
    means = []
    for task in held:
        values, _ = LOSSES[loss].value_and_derivative(models.decision_function(task.X, task.task), task.y)
        means.append(float(np.average(values, weights=task.weights)))
    return float(np.mean(means)) if means else math.nan
