"""Choice of λ by cross-validation over a path of strengths, in one process that has all rows."""

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

# Relative distance from the optimum at which a fit ends. It is small enough to tell one λ from the next.
_TOLERANCE = 1e-4

# Ratio of each λ of a path to the one before it: three to a factor of ten.
_RATIO = 10 ** (-1 / 3)

# Strengths in a row without improvement after which the search ends.
_STRENGTHS_WITHOUT_GAIN = 3

# Strengths of a path, at most: six and a half factors of ten.
_MAX_STRENGTHS = 20

# Fraction by which a held-out loss must be lower to count as an improvement, once λ has had an effect.
_GAIN = 1e-3

# Fraction by which the best loss must be below the first one of the path for λ to have had an effect. A path
# begins where λ is so large that its size does not matter.
_EFFECT = 1e-2


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of cross-validation.

    Attributes
    ----------
    strength : float
        The λ with the smallest mean held-out loss.
    strengths : (count,) float64 array
        All strengths that were tried, descending.
    losses : (count, folds) float64 array
        The mean loss per held-out row, averaged over tasks, for each strength and fold; NaN for a fold
        without held-out rows.
    """

    strength: float
    strengths: Floats
    losses: Floats

    @property
    def loss(self) -> float:
        """The mean held-out loss at `strength`, which is the smallest."""
        return float(np.nanmean(self.losses, axis=1).min())


def select_strength(
    partitions: Sequence[Partition],
    settings: Settings,
    *,
    strengths: Sequence[float] | None = None,
    folds: int = 5,
    on_strength: Callable[[float, float], None] | None = None,
) -> Selection:
    """Choose λ by cross-validation.

    For each strength of the path, largest first, models are fitted to all rows but those of a fold, and
    their loss is measured on the rows of that fold. Each fit starts from the models of the strength before.
    The rows of a task are assigned to folds at random (by the seed), with its two classes spread evenly. A
    task with a single row is always trained on. Every fit ends within 1e-4 of the minimum of the objective,
    or after `settings.rounds`.

    Parameters
    ----------
    partitions : sequence of Partition
        All rows of all tasks.
    settings : Settings
        The settings of the run to come; their strength is ignored.
    strengths : sequence of float, optional
        The path. Default: from `Coupling.critical_strength` downwards, three to a factor of ten, until three
        in a row are not better (by 0.1 %) than an earlier one.
    folds : int
        At least 2.
    on_strength : callable, optional
        Called with each strength and its mean held-out loss as soon as they are known.

    Raises
    ------
    UsageError
        There are fewer than 2 folds or no strengths, or a strength is negative or not finite.
    DataError
        No task has two rows, so that no row can be held out.
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
        return [first * _RATIO**i for i in range(_MAX_STRENGTHS)] if first > 0.0 else [0.0]
    path = np.sort(np.asarray(strengths, dtype=np.float64))[::-1]
    if path.ndim != 1 or not len(path) or not np.isfinite(path).all() or path[-1] < 0.0:
        raise UsageError("strengths", "must be finite numbers, at least 0", strengths)
    return [float(strength) for strength in path]


def _is_over(means: Floats) -> bool:
    """Whether to stop, given the mean losses of the strengths tried so far."""
    before, least = means[:-_STRENGTHS_WITHOUT_GAIN], float(means.min())
    if not len(before):
        return False
    limit = least * (1.0 + _GAIN) if means[0] > least * (1.0 + _EFFECT) else least
    return bool(before.min() <= limit)


def critical_strength(partitions: Sequence[Partition], settings: Settings) -> float:
    """`Coupling.critical_strength` for these rows: the first λ of a path."""
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
    """Models (T, d) with fitted free intercepts and coefficients of 0."""
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
    """The fold that holds out each row of a task; −1 for a row that is never held out."""
    if task.rows < 2:
        return np.full(task.rows, -1)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(t,)))
    order = rng.permutation(task.rows)
    if LOSSES[settings.loss].classification:
        order = order[np.argsort(task.y[order], kind="stable")]
    into = np.empty(task.rows, dtype=np.int64)
    # Each task begins at a different fold, so that small tasks together fill all folds.
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
