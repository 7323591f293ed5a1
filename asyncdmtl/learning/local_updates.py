"""The local updates `v_n` of the partitions that one worker stores, computed from the current models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.batches import Batch, make_batches
from asyncdmtl.learning.candidates import CandidatesWire, describe_candidates
from asyncdmtl.learning.comparison import Comparison
from asyncdmtl.learning.compression import Differences, Wire
from asyncdmtl.learning.curvature import SecondOrderWire, describe
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.learners import make_learner
from asyncdmtl.learning.local_learner import LocalStart
from asyncdmtl.learning.losses import check_targets
from asyncdmtl.learning.parallel import in_parallel
from asyncdmtl.learning.problem import SIZES, Problem
from asyncdmtl.learning.statistics import StatisticsWire, deal, statistics
from asyncdmtl.learning.tasks import Partition

# Columns of a partition that are multiplied at a time: 256 KB of float64 for each row.
_BLOCK_COLUMNS = 1 << 15


class LocalUpdates:
    """Computes the updates of some partitions at the `Y` of an iterate.

    Parameters
    ----------
    problem : Problem
    partitions : mapping of index `n` to Partition
        The partitions that are stored here. The mapping may be empty.
    iterate : Iterate
        The models.

    Attributes
    ----------
    own : tuple of int
        Indices of the stored partitions, ascending.
    differences : Differences or None
        None if updates are not compressed.
    candidates : float64 array, three bool arrays
        Models of all candidates where the run chooses, see `candidates.describe_candidates`.
    comparison : Comparison or None
        Models to compare with, if there are any.
    fixes : bool
        Whether the tasks of `Problem.fixed` count as having no loss: if intercepts are free.
    sharp : bool
        Whether exact second derivatives are sent, see `Loss.second_derivative`.

    Raises
    ------
    DataError
        A partition is not the one that was declared under its index, or its targets do not suit the loss.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition], iterate: Iterate) -> None:
        for n, partition in partitions.items():
            _check_declared(problem, n, partition)
        self.own = tuple(sorted(partitions))
        self.sharp, self.fixes = False, True
        none = np.zeros((0, 0), np.bool_)
        self.candidates = np.zeros((0, 0, 0, 0)), none, none, none
        self.comparison: Comparison | None = None
        self._dealt: dict[int, Indices] = {}
        self._problem = problem
        self._iterate = iterate
        wire = problem.wire
        self.differences = None
        if isinstance(wire, Wire) and wire.compression is not None:
            self.differences = Differences(wire, len(problem.infos), problem.settings.seed)
        self._stored = tuple(partitions[n] for n in self.own)
        self._batches = make_batches(self._stored, [problem.task_of[n] for n in self.own])
        if problem.update == "model":
            self._learner = make_learner(
                problem.settings.learner, problem.settings.loss, intercept=problem.settings.has_intercept
            )

    def compute(self, out: Vectors) -> Floats:
        """Write the update of every stored partition, see `Trainer.local_updates`."""
        expected = ((len(self.own), self._problem.d), self._problem.dtype)
        if (out.shape, out.dtype) != expected:
            raise UsageError("out", f"must have shape and dtype {expected}", (out.shape, out.dtype))
        losses = np.empty(len(self.own))
        # Overflow is detected later, in the step, where every worker raises the same error.
        with np.errstate(over="ignore", invalid="ignore"):
            for batch in self._batches:
                values, derivatives = self._loss_and_derivative(batch)
                losses[batch.places] = batch.means(values)
                self._gradients(batch, derivatives, out)
        losses[self._fixed] = 0.0
        out[self._fixed] = 0.0
        return losses

    def pack(self, out: NDArray[Any]) -> Floats:
        """`compute` and compress, into `out`: (len(own), problem.wire.length) of problem.wire.dtype."""
        wire = self._problem.wire
        if isinstance(wire, StatisticsWire):
            for i, partition in enumerate(self._stored):
                out[i] = statistics(partition, wire.layout, self._problem.settings.seed)
            return self.losses()
        if isinstance(wire, CandidatesWire):
            return self._describe_candidates(wire, out)
        if isinstance(wire, SecondOrderWire):
            return self._describe(wire, out)
        if self.differences is None:
            return self.compute(out)
        updates = np.empty((len(self.own), self._problem.d), self._problem.dtype)
        losses = self.compute(updates)
        # Overflow is detected later, in the step.
        with np.errstate(over="ignore", invalid="ignore"):
            for n, update, packed in zip(self.own, updates, out, strict=True):
                self.differences.pack(n, update, self._iterate.steps, packed)
        return losses

    def _describe(self, wire: SecondOrderWire, out: Floats) -> Floats:
        """Write vectors of losses, gradients and, for Newton's method, curvatures.

        In the first rounds, the openings of the problem take the place of gradients.
        """
        losses, settings = np.zeros(len(self.own)), self._problem.settings
        out[:] = 0.0
        for batch in self._batches:
            scores, loss = self._scores(batch), self._problem.loss
            values, derivatives = loss.value_and_derivative(scores, batch.y)
            losses[batch.places] = batch.means(values)
            curvatures = None
            if wire.curvature:
                curvatures = loss.second_derivative(scores, batch.y, derivatives, sharp=self.sharp)
            describe(batch, values, derivatives, curvatures, settings.has_intercept, wire.own(out))
        losses[self._fixed] = 0.0
        wire.own(out)[self._fixed] = 0.0
        if self.comparison is not None:
            inverses = self.comparison.inverses()
            for batch in self._batches:
                self.comparison.describe(batch, inverses, wire.comparison(out))
        openings = self._problem.openings[self._iterate.steps :]
        if openings:
            tell = self._sizes if openings[0] == SIZES else self._learned
            for n, partition, vector in zip(self.own, self._stored, out, strict=True):
                wire.place_of_gradient(vector)[:] = tell(n, partition)
        return losses

    def _describe_candidates(self, wire: CandidatesWire, out: Floats) -> Floats:
        """The vectors of all candidates, and the losses at the models of the iterate."""
        settings, comparison = self._problem.settings, self.comparison
        inverses = None if comparison is None else comparison.inverses()

        def describe_batch(batch: Batch) -> None:
            if comparison is not None:
                comparison.describe(batch, inverses, wire.comparison(out))
            folds = np.full(batch.y.shape, -2)
            for row, place in zip(folds, batch.places, strict=True):
                partition = self._stored[place]
                if place not in self._dealt:
                    self._dealt[place] = deal(partition, wire.folds, settings.seed)
                row[: partition.rows] = self._dealt[place]
            describe_candidates(batch, folds, wire, settings.loss, self.candidates, out)

        numbers = max((batch.X.size for batch in self._batches), default=0) * self._problem.d
        in_parallel(describe_batch, self._batches, numbers)
        return self.losses()

    def losses(self) -> Floats:
        """The losses that `compute` returns, without the updates."""
        losses = np.zeros(len(self.own))
        for batch in self._batches:
            losses[batch.places] = batch.means(self._loss_and_derivative(batch)[0])
        losses[self._fixed] = 0.0
        return losses

    @property
    def _fixed(self) -> list[bool]:
        """Which of the stored partitions belong to tasks whose intercepts do not change."""
        return [self.fixes and self._problem.task_of[n] in self._problem.fixed for n in self.own]

    def _loss_and_derivative(self, batch: Batch) -> tuple[Floats, Floats]:
        """Loss and its derivative by the score at `Y`, for the rows of a batch: (P, r) each."""
        return self._problem.loss.value_and_derivative(self._scores(batch), batch.y)

    def _scores(self, batch: Batch) -> Floats:
        """Scores at `Y` of the rows of a batch: (P, r)."""
        scores = np.zeros(batch.y.shape)
        for cols in self._column_blocks:
            w = np.stack([self._iterate.ahead_of(t, cols) for t in batch.tasks]).astype(np.float64)
            scores += matmul(batch.X_by_column[:, :, cols], w[:, :, None])[:, :, 0]
        if self._problem.settings.has_intercept:
            last = slice(self._problem.features, self._problem.d)
            scores += np.stack([self._iterate.ahead_of(t, last) for t in batch.tasks]).astype(np.float64)
        return scores

    def _gradients(self, batch: Batch, derivatives: Floats, out: Vectors) -> None:
        shares = batch.shares(derivatives)
        for cols in self._column_blocks:
            out[batch.places, cols] = matmul(shares[:, None, :], batch.X[:, :, cols])[:, 0, :]
        out[batch.places, self._problem.features :] = total(shares, 1)[:, None]

    @property
    def _column_blocks(self) -> list[slice]:
        """The features, in blocks that stay in the cache."""
        F = self._problem.features
        return [slice(start, min(start + _BLOCK_COLUMNS, F)) for start in range(0, F, _BLOCK_COLUMNS)]

    def _sizes(self, n: int, partition: Partition) -> Floats:
        """The weighted means (d,) of the squares of the columns of partition `n`; 1 for an intercept."""
        squares = partition.X * partition.X
        if partition.weights is not None:
            squares = squares * partition.weights[:, None]
        means = total(squares) / partition.weight
        return np.append(means, np.ones(self._problem.d - self._problem.features))

    def _learned(self, n: int, partition: Partition) -> Floats:
        """The model (d,) that the learner trains on partition `n` from the task's model."""
        settings, F, t = self._problem.settings, self._problem.features, self._problem.task_of[n]
        model = self._iterate.ahead_of(t, slice(0, self._problem.d)).astype(np.float64)
        if t in self._problem.fixed:
            return model
        seed = np.random.SeedSequence(settings.seed, spawn_key=(n, 0)).generate_state(1)[0]
        w, b = model[:F], float(model[F]) if settings.has_intercept else 0.0
        try:
            start = LocalStart(w, b, self._problem.infos[n].smoothness, settings.epochs, int(seed))
            # Overflow is detected later, in the step.
            with np.errstate(over="ignore", invalid="ignore"):
                coef, intercept = self._learner.fit(partition, start)
        except DataError as error:
            what = f"partition {partition.id!r}: {error.argument}"
            raise DataError(what, error.rule, error.value) from error
        return np.append(coef, intercept)[: self._problem.d]


def _check_declared(problem: Problem, n: int, partition: Partition) -> None:
    """Raise DataError unless a partition is the one that was declared under index `n`."""
    if not 0 <= n < len(problem.infos) or problem.infos[n].id != partition.id:
        raise DataError("partition", f"must be the one declared as number {n}", partition.id)
    info = problem.infos[n]
    declared = (info.task, info.rows, info.weight, info.features)
    here = (partition.task, partition.rows, partition.weight, partition.features)
    if declared != here:
        rule = f"must have task, rows, weight and features as declared {declared}"
        raise DataError(f"partition {partition.id!r}", rule, here)
    check_targets(problem.settings.loss, partition.y, f"partition {partition.id!r}")
