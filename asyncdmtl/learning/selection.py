"""The choice of λ by cross-validation over a path of strengths, in one process that has all rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.blas import by_blas
from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.statistics import Layout, TaskStatistics, deal, pool_all, statistics
from asyncdmtl.learning.statistics_selection import Selection, choose_strength, is_over, path_from
from asyncdmtl.learning.tasks import Partition, TaskModels, whole_tasks
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.learning.updates import chooses_across

# The relative distance from the optimum at which a fit ends: small enough to rank neighbouring values of λ.
_TOLERANCE = 1e-4

# Rounds of Newton's steps, at most; a dozen is usual.
_NEWTON_ROUNDS = 60


@by_blas()
def select_strength(
    partitions: Sequence[Partition],
    settings: Settings,
    *,
    strengths: Sequence[float] | None = None,
    folds: int = 5,
    on_strength: Callable[[float, float], None] | None = None,
) -> Selection:
    """Choose λ by cross-validation.

    Rows of a partition are assigned to folds at random (by the seed), with its two classes spread evenly. A
    fold never holds out all rows of a task. Where a run across sites could choose λ
    (`updates.chooses_across`), this is what it would choose, to rounding: from statistics, or by Newton's
    steps of all candidates, which have a path of `candidates.STRENGTHS`. Products are computed by BLAS here.
    For other losses than the squared one that is so only without `strengths`. Otherwise every fit ends within
    1e-4 of the minimum of the objective, or after `settings.rounds`.

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
    rows = min(partition.rows for partition in partitions)
    across = chooses_across(settings, partitions[0].features, rows, len(whole))
    if across and settings.loss == "squared":
        path = None if strengths is None else _path(whole, settings, strengths)
        return _by_statistics(partitions, settings, path, folds, on_strength)
    if max(task.rows for task in whole) < 2:
        raise DataError("partitions", "need a task of two rows to choose λ by cross-validation", len(whole))
    if across and strengths is None:
        return _by_newton(partitions, settings, folds, on_strength)
    splits = _splits(partitions, folds, settings)
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
        if strengths is None and is_over(means):
            break
    return Selection(tried[int(np.argmin(means))], np.array(tried), np.array(losses))


def _by_newton(
    partitions: Sequence[Partition],
    settings: Settings,
    folds: int,
    on_strength: Callable[[float, float], None] | None,
) -> Selection:
    """Choose by Newton's steps, as a run across sites would."""
    choosing = replace(
        settings, update="newton", strength=None, folds=folds, tolerance=_TOLERANCE, rounds=_NEWTON_ROUNDS,
        accelerated=True, dtype="float64", arithmetic="fast",
    )  # fmt: skip
    outcome = train(partitions, choosing).outcome
    assert outcome is not None
    found = outcome.selections[settings.coupling]
    for strength, loss in zip(found.strengths, found.means, strict=True):
        if on_strength is not None:
            on_strength(float(strength), float(loss))
    return found


def _by_statistics(
    partitions: Sequence[Partition],
    settings: Settings,
    strengths: Sequence[float] | None,
    folds: int,
    on_strength: Callable[[float, float], None] | None,
) -> Selection:
    """Choose from statistics, as a run across sites would."""
    settings = replace(settings, update="auto", strength=None, folds=folds, arithmetic="fast")
    with single_threaded():
        problem = Problem(settings, [partition.info(settings) for partition in partitions])
        layout = Layout(problem.features, folds)
        told = [statistics(partition, layout, settings.seed) for partition in partitions]
        pooled = [pool_all([told[n] for n in S], layout, "tasks") for S in problem.partitions_of]
        found = choose_strength(
            TaskStatistics.of(pooled, layout),
            problem.coupling,
            settings.intercept,
            1.0 / problem.step_lengths[0],
            strengths,
        )
    for strength, loss in zip(found.strengths, found.means, strict=True):
        if on_strength is not None:
            on_strength(float(strength), float(loss))
    return found


def _path(
    whole: Sequence[Partition], settings: Settings, strengths: Sequence[float] | None
) -> Sequence[float]:
    if strengths is None:
        first = critical_strength(whole, settings)
        return path_from(first)
    path = np.sort(np.asarray(strengths, dtype=np.float64))[::-1]
    if path.ndim != 1 or not len(path) or not np.isfinite(path).all() or path[-1] < 0.0:
        raise UsageError("strengths", "must be finite numbers, at least 0", strengths)
    return [float(strength) for strength in path]


def critical_strength(partitions: Sequence[Partition], settings: Settings) -> float:
    """`Coupling.critical_strength` for these rows: the first λ of a path."""
    settings = replace(settings, update=_steps_of(settings), learner="", epochs=1)
    infos = [partition.info(settings) for partition in partitions]
    problem = Problem(settings, infos)
    trainer = Trainer(problem, dict(enumerate(partitions)))
    if problem.coupled < problem.d:
        trainer.place(range(len(problem.tasks)), _intercepts(partitions, settings))
    if isinstance(problem.wire, SecondOrderWire):
        updates = np.empty((len(infos), problem.wire.length))
        trainer.packed_updates(updates)
    else:
        updates = np.empty((len(infos), problem.d), problem.dtype)
        trainer.local_updates(updates)
    Z = np.array([problem.aggregate(t, updates[list(S)]) for t, S in enumerate(problem.partitions_of)])
    Z = problem.wire.split(Z)[1] if isinstance(problem.wire, SecondOrderWire) else Z
    gradients = Z[:, : problem.coupled].astype(np.float64)
    return problem.coupling.critical_strength(gradients, 1.0 / float(problem.step_lengths[0]))


def _intercepts(partitions: Sequence[Partition], settings: Settings) -> NDArray[np.floating[Any]]:
    """Models (T, d) with fitted free intercepts and coefficients of 0."""
    blank = [replace(p, X=np.zeros((p.rows, 1))) for p in partitions]
    plain = replace(
        settings, coupling="none", edges=(), update=_steps_of(settings), learner="", epochs=1,
        accelerated=True, rounds=1000, tolerance=1e-10, dtype="float64",
    )  # fmt: skip
    fitted = train(blank, plain).models.intercept_
    models = np.zeros((len(fitted), partitions[0].features + 1))
    models[:, -1] = fitted
    return models


def _steps_of(settings: Settings) -> str:
    """The updates by which intercepts and the gradients there are found."""
    return "newton" if LOSSES[settings.loss].counts else "gradient"


def _splits(
    partitions: Sequence[Partition], folds: int, settings: Settings
) -> list[tuple[list[Partition], list[Partition]]]:
    """For each fold, the rows to train on and those to hold out, as `statistics.deal` deals them."""
    dealt = [deal(partition, folds, settings.seed) for partition in partitions]
    splits = []
    for fold in range(folds):
        left = {p.task for p, into in zip(partitions, dealt, strict=True) if (into != fold).any()}
        held = [
            into == fold if p.task in left else into < 0 for p, into in zip(partitions, dealt, strict=True)
        ]
        pairs = list(zip(partitions, held, strict=True))
        kept = [_rows(p, ~out) for p, out in pairs if not out.all()]
        splits.append((kept, [_rows(p, out) for p, out in pairs if out.any()]))
    return splits


def _rows(task: Partition, chosen: NDArray[np.bool_]) -> Partition:
    weights = None if task.weights is None else task.weights[chosen]
    return Partition(task.id, task.task, task.X[chosen], task.y[chosen], weights)


def _held_out_loss(models: TaskModels, held: Sequence[Partition], loss: str) -> float:
    means = []
    for task in whole_tasks(held).values():
        values, _ = LOSSES[loss].value_and_derivative(models.decision_function(task.X, task.task), task.y)
        means.append(float(np.average(values, weights=task.weights)))
    return float(np.mean(means)) if means else math.nan
