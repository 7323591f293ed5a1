"""The mathematics of a round, without a wire: what workers, the server and the one-process twin share.

A round of proximal gradient descent on `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)`: local updates `v_n` →
`z_t = ψ(v_n : n ∈ S_t)` → a step of all models (`Iterate`). Vectors are kept and exchanged in the run's
dtype; everything in between is computed in float64 and rounded once, so that all who take a step get the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.batches import Batch, make_batches
from asyncdmtl.learning.compression import Feedback
from asyncdmtl.learning.iterate import Columns, Iterate
from asyncdmtl.learning.learners import make_learner
from asyncdmtl.learning.losses import check_targets
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels

# Columns of a partition that are worked on at a time.
_COLUMNS = 1 << 15


class Trainer:
    """The models of all tasks, and what one who holds some partitions does with them in a round.

    Parameters
    ----------
    problem : Problem
    partitions : mapping of index `n` to Partition
        Those that are stored here; may be none.

    Attributes
    ----------
    own : tuple of int
        Indices of the stored partitions, ascending.
    W : (T, d) array of the run's dtype
        The models, zero at first; the intercept, if any, is the last column.
    Y : (T, d) array of the run's dtype
        Where updates are computed: ahead of `W` in an accelerated run, else `W` itself.
    residual : float
        An estimate of how far the objective at `W` is above the least, made in the last step:
        `‖G‖·‖W‖` for what the coupling sees plus the same for free intercepts, with the proximal gradient
        `G = (Y − W⁺) / step`; it bounds that distance as long as `W` is no farther from the optimum than
        from 0. Infinite before the first step, 0 if the step moved nothing that the dtype can tell.

    Raises
    ------
    DataError
        A partition is not the one declared under its index, or its targets do not suit the loss.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        for n, partition in partitions.items():
            if not 0 <= n < len(problem.infos) or problem.infos[n].id != partition.id:
                raise DataError("partition", f"must be the one declared as number {n}", partition.id)
            info = problem.infos[n]
            declared = (info.task, info.rows, info.weight, info.features)
            here = (partition.task, partition.rows, partition.weight, partition.features)
            if declared != here:
                raise DataError(
                    f"partition {partition.id!r}",
                    f"must have task, rows, weight and features as declared {declared}",
                    here,
                )
            check_targets(problem.settings.loss, partition.y, f"partition {partition.id!r}")
        self.problem = problem
        self.own = tuple(sorted(partitions))
        self._stored = tuple(partitions[n] for n in self.own)
        self._batches = make_batches(self._stored, [problem.task_of[n] for n in self.own])
        self._iterate = Iterate(problem)
        self._feedback = Feedback(problem.wire, self.own, problem.settings.seed)
        if problem.settings.update == "model":
            self._learner = make_learner(
                problem.settings.learner, problem.settings.loss, intercept=problem.settings.has_intercept
            )

    @property
    def W(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """The models."""
        return self._iterate.W

    @property
    def Y(self) -> Vectors:  # noqa: N802
        """Where updates are computed."""
        return self._iterate.Y

    @property
    def residual(self) -> float:
        """How far the objective is above the least, as estimated."""
        return self._iterate.residual

    def local_updates(self, out: Vectors) -> Floats:
        """Write `v_n`, computed from `Y`, for the stored partitions.

        Under updates "gradient" it is that of the weighted mean loss over the rows; under "model" the model
        that `epochs` local epochs make of the task's.

        Parameters
        ----------
        out : (len(own), d) array of the run's dtype
            Row `i` becomes the update of partition `own[i]`. No update depends on what else is stored here.

        Returns
        -------
        (len(own),) float64 array
            Weighted mean loss of each partition at `Y`.

        Raises
        ------
        UsageError
            `out` has another shape or dtype.
        DataError
            The learner cannot train on a partition.
        """
        expected = ((len(self.own), self.problem.d), self.problem.dtype)
        if (out.shape, out.dtype) != expected:
            raise UsageError("out", f"must have shape and dtype {expected}", (out.shape, out.dtype))
        self._iterate.forget()
        losses, gradients = np.empty(len(self.own)), self.problem.settings.update == "gradient"
        # What overflows here is caught in `step`, where it is everybody's error and not one worker's.
        with np.errstate(over="ignore", invalid="ignore"):
            for batch in self._batches:
                values, derivatives = self._losses(batch)
                losses[batch.places] = batch.means(values)
                if gradients:
                    self._gradients(batch, derivatives, out)
            for i, n in enumerate(self.own):
                if self.problem.task_of[n] in self.problem.fixed:
                    losses[i] = 0.0
                    out[i] = 0.0 if gradients else self._ahead_of(n)
                elif not gradients:
                    self._learn(n, self._stored[i], out[i])
        return losses

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """`local_updates` as they travel: `out` is (len(own), problem.wire.length) of problem.wire.dtype."""
        if self.problem.wire.compression is None:
            return self.local_updates(out)
        updates = np.empty((len(self.own), self.problem.d), self.problem.dtype)
        losses = self.local_updates(updates)
        self._feedback.pack(updates, self._iterate.steps, out)
        return losses

    def losses(self) -> Floats:
        """What `local_updates` returns, without the updates."""
        losses = np.zeros(len(self.own))
        for batch in self._batches:
            losses[batch.places] = batch.means(self._losses(batch)[0])
        losses[[self.problem.task_of[n] in self.problem.fixed for n in self.own]] = 0.0
        return losses

    def aggregate(self, t: int, updates: Vectors) -> Vectors:
        """`Problem.aggregate`."""
        return self.problem.aggregate(t, updates)

    def warm_up(self) -> None:
        """Take all memory that steps need, so that no round waits for it."""
        self._iterate.warm_up()

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Compute what can be of the next step where columns of `Z` are `ready`, so that `step` is quick.

        Nothing changes until `step`, which must be given the same `Z`, or `local_updates`, which forgets it.
        """
        self._iterate.advance(Z, ready)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take the models one step on, with the aggregated updates of all tasks, `Z`: T vectors (d,).

        `W ← prox(Y − step·Z)` for gradients; for models `W ← prox(Z)`, as strong as after `epochs` steps.

        Raises
        ------
        DataError
            The models outgrow the run's dtype; they are left as they were.
        """
        self._iterate.step(Z if callable(Z) else lambda cols: [z[cols] for z in Z])

    def penalty(self) -> float:
        """`λ R(Y)`."""
        return self._iterate.penalty()

    def objective(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t(y_t) + λ R(Y)`, given the mean losses of all `N` partitions at `Y`."""
        return self.problem.data_loss(losses) + self.penalty()

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Go on from these models of some tasks, which another has computed."""
        self._iterate.place(rows, models)

    def models(self) -> TaskModels:
        """The current models, as a copy."""
        F = self.problem.features
        intercept = (
            self.W[:, F] if self.problem.settings.has_intercept else np.zeros(len(self.W), self.W.dtype)
        )
        return TaskModels(
            self.problem.tasks, self.W[:, :F].copy(), intercept.copy(), self.problem.settings.loss
        )

    def state(self) -> NDArray[np.uint8]:
        """All that another must know to go on from here, as `problem.state_bytes` bytes."""
        return self._iterate.state()

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Go on from what `state` gave.

        Raises
        ------
        UsageError
            It is of another size, or not finite.
        """
        self._iterate.restore(state)

    def _losses(self, batch: Batch) -> tuple[Floats, Floats]:
        """Loss and its derivative by the score at `Y`, row by row of a batch: (P, r) each."""
        scores = np.zeros(batch.y.shape)
        for cols in self._columns:
            w = np.stack([self._iterate.ahead_of(t, cols) for t in batch.tasks]).astype(np.float64)
            scores += np.matmul(batch.X[:, :, cols], w[:, :, None])[:, :, 0]
        if self.problem.settings.has_intercept:
            last = slice(self.problem.features, self.problem.d)
            scores += np.stack([self._iterate.ahead_of(t, last) for t in batch.tasks]).astype(np.float64)
        return self.problem.loss.value_and_derivative(scores, batch.y)

    def _gradients(self, batch: Batch, derivatives: Floats, out: Vectors) -> None:
        shares = batch.shares(derivatives)
        for cols in self._columns:
            out[batch.places, cols] = np.matmul(shares[:, None, :], batch.X[:, :, cols])[:, 0, :]
        out[batch.places, self.problem.features :] = shares.sum(axis=1)[:, None]

    def _ahead_of(self, n: int) -> Vectors:
        """Where the update of partition `n` is computed, (d,)."""
        return self._iterate.ahead_of(self.problem.task_of[n], slice(0, self.problem.d))

    @property
    def _columns(self) -> list[slice]:
        """The features, in blocks that stay in the cache."""
        F = self.problem.features
        return [slice(start, min(start + _COLUMNS, F)) for start in range(0, F, _COLUMNS)]

    def _learn(self, n: int, partition: Partition, out: Vectors) -> None:
        settings, F = self.problem.settings, self.problem.features
        seed = np.random.SeedSequence(settings.seed, spawn_key=(n, self._iterate.steps)).generate_state(1)[0]
        y = self._ahead_of(n).astype(np.float64)
        w, b = y[:F], float(y[F]) if settings.has_intercept else 0.0
        try:
            out[:F], out[F:] = self._learner.fit(
                partition.X, partition.y, partition.weights, w, b,
                smoothness=self.problem.infos[n].smoothness, epochs=settings.epochs, seed=int(seed),
            )  # fmt: skip
        except DataError as error:
            what = f"partition {partition.id!r}: {error.argument}"
            raise DataError(what, error.rule, error.value) from error


class Trained(NamedTuple):
    """What `train` returns: models, the objective (rounds,) where each round's updates were computed, and
    whether the rounds ended because of `tolerance`."""

    models: TaskModels
    objectives: Floats
    converged: bool


def train(
    partitions: Sequence[Partition],
    settings: Settings,
    *,
    start: TaskModels | None = None,
    on_round: Callable[[int, Trainer], None] | None = None,
) -> Trained:
    """The one-process twin: bit for bit what a distributed run gives on this machine.

    Parameters
    ----------
    partitions : sequence of Partition
        All of them, in the order of their index `n`.
    settings : Settings
    start : TaskModels, optional
        Models of all tasks to start from, where a run would start from 0.
    on_round : callable, optional
        Called with the round and the trainer after each step.

    Raises
    ------
    DataError
        The partitions do not fit each other or the loss, or the models outgrow the dtype.
    """
    with single_threaded():
        problem = Problem(settings, [p.info(settings) for p in partitions])
        trainer = Trainer(problem, dict(enumerate(partitions)))
        if start is not None:
            trainer.place(range(len(problem.tasks)), _matrix(start, problem))
        updates = np.empty((len(partitions), problem.d), problem.dtype)
        packed = np.empty((len(partitions), problem.wire.length), problem.wire.dtype)
        Z = np.empty((len(problem.tasks), problem.d), problem.dtype)
        objectives: list[float] = []
        converged = False
        while len(objectives) < settings.rounds and not converged:
            objectives.append(trainer.objective(trainer.packed_updates(packed)))
            for update, travelled in zip(updates, packed, strict=True):
                update[:] = problem.wire.unpack(travelled)
            converged = problem.converged(objectives[-1], trainer.residual)
            for t, S in enumerate(problem.partitions_of):
                Z[t] = trainer.aggregate(t, updates[list(S)])
            trainer.step(Z)
            if on_round is not None:
                on_round(len(objectives) - 1, trainer)
    return Trained(trainer.models(), np.array(objectives), converged)


def _matrix(models: TaskModels, problem: Problem) -> Vectors:
    """Models as the rows (T, d) of a trainer."""
    rows = [models.tasks.index(task) for task in problem.tasks]
    matrix = np.column_stack([models.coef_, models.intercept_])[rows]
    return matrix[:, : problem.d]


@contextmanager
def single_threaded() -> Iterator[None]:
    """One BLAS thread while in force: how a sum is split over threads shows in its last bits."""
    with threadpool_limits(limits=1):
        yield
