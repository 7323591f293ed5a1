"""The mathematics of a round, without a wire: what workers, the server and the one-process twin share.

A round of proximal gradient descent on `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)`: local updates `v_n` →
`z_t = ψ(v_n : n ∈ S_t)` → `W ← prox(Y − step·Z)`, where updates are gradients at `Y`; or, where they are
models trained on each partition from `Y`, `W ← prox(Z)`. `Y` is `W` itself, or accelerated: ahead of it.
Vectors are kept and exchanged in the run's dtype; everything in between is computed in float64 and rounded
once, so that all who take a step get the same bits.

Acceleration: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging
Sciences 2(1), 2009; restart: O'Donoghue and Candès, "Adaptive Restart for Accelerated Gradient Schemes",
Foundations of Computational Mathematics 15, 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.compression import Feedback
from asyncdmtl.learning.learners import make_learner
from asyncdmtl.learning.losses import check_targets
from asyncdmtl.learning.problem import SCALAR_BYTES, Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels

Floats = NDArray[np.float64]
Vectors = NDArray[np.floating[Any]]

# Numbers of all models, whole columns of them, that are worked on at a time: they stay in the cache.
_BLOCK = 1 << 15

# Models that change by no more than so many units in the last place have arrived as far as their dtype goes.
_ULPS = 4.0


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
        self.residual = math.inf
        self._stored = tuple(partitions[n] for n in self.own)
        self.W: Vectors = np.zeros((len(problem.tasks), problem.d), problem.dtype)
        for t, intercept in problem.fixed.items():
            self.W[t, problem.features] = intercept
        self.Y: Vectors = self.W.copy() if problem.settings.accelerated else self.W
        self._next = np.empty_like(self.W)
        width = max(1, _BLOCK // len(self.W))
        starts = range(0, problem.coupled, width)
        self._blocks = [slice(start, min(start + width, problem.coupled)) for start in starts]
        # FISTA's t: how much momentum there is; 1 is none.
        self._t = 1.0
        self._steps = 0
        self._feedback = Feedback(problem.wire, self.own, problem.settings.seed)
        if problem.settings.update == "model":
            self._learner = make_learner(
                problem.settings.learner, problem.settings.loss, intercept=problem.settings.has_intercept
            )

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
        losses = np.empty(len(self.own))
        # What overflows here is caught in `step`, where it is everybody's error and not one worker's.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (n, partition) in enumerate(zip(self.own, self._stored, strict=True)):
                if (t := self.problem.task_of[n]) in self.problem.fixed:
                    losses[i] = 0.0
                    out[i] = 0.0 if self.problem.settings.update == "gradient" else self.Y[t]
                    continue
                values, derivatives = self._losses(n, partition)
                losses[i] = _mean(values, partition)
                if self.problem.settings.update == "gradient":
                    self._gradient(partition, derivatives, out[i])
                else:
                    self._learn(n, partition, out[i])
        return losses

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """`local_updates` as they travel: `out` is (len(own), problem.wire.length) of problem.wire.dtype."""
        if self.problem.wire.compression is None:
            return self.local_updates(out)
        updates = np.empty((len(self.own), self.problem.d), self.problem.dtype)
        losses = self.local_updates(updates)
        self._feedback.pack(updates, self._steps, out)
        return losses

    def losses(self) -> Floats:
        """What `local_updates` returns, without the updates."""
        fixed, task_of = self.problem.fixed, self.problem.task_of
        pairs = zip(self.own, self._stored, strict=True)
        return np.array(
            [0.0 if task_of[n] in fixed else _mean(self._losses(n, part)[0], part) for n, part in pairs]
        )

    def aggregate(self, t: int, updates: Vectors) -> Vectors:
        """`Problem.aggregate`."""
        return self.problem.aggregate(t, updates)

    def step(self, Z: Vectors | Sequence[Vectors]) -> None:
        """Take the models one step on, with the aggregated updates of all tasks, `Z`: T vectors (d,).

        `W ← prox(Y − step·Z)` for gradients; for models `W ← prox(Z)`, as strong as after `epochs` steps.

        Raises
        ------
        DataError
            The models outgrow the run's dtype; they are left as they were.
        """
        problem, C, new = self.problem, self.problem.coupled, self._next
        steps = problem.steps
        if problem.settings.update == "model":
            steps = steps * problem.settings.epochs
        for cols in self._blocks if problem.coupling.columnwise else [slice(0, C)]:
            new[:, cols] = problem.coupling.prox(self._target(Z, cols, float(steps[0])), float(steps[0]))
        new[:, C:] = self._target(Z, slice(C, problem.d), float(steps[1]))
        self._steps += 1
        self._move(new, steps)

    def penalty(self) -> float:
        """`λ R(Y)`."""
        coupling = self.problem.coupling
        blocks = self._blocks if coupling.columnwise else [slice(0, self.problem.coupled)]
        return sum(coupling.penalty(self.Y[:, cols].astype(np.float64)) for cols in blocks)

    def objective(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t(y_t) + λ R(Y)`, given the mean losses of all `N` partitions at `Y`."""
        return self.problem.data_loss(losses) + self.penalty()

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Go on from these models of some tasks, which another has computed."""
        self.W[list(rows)] = models
        self.Y[list(rows)] = models

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
        matrices = (self.W, self.Y) if self.problem.settings.accelerated else (self.W,)
        parts = [*(m.reshape(-1).view(np.uint8) for m in matrices), self._scalars().view(np.uint8)]
        return np.concatenate(parts)

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Go on from what `state` gave.

        Raises
        ------
        UsageError
            It is of another size, or not finite.
        """
        if state.dtype != np.uint8 or state.shape != (self.problem.state_bytes,):
            raise UsageError("state", f"must be {self.problem.state_bytes} bytes", (state.dtype, state.shape))
        size = self.W.nbytes
        starts = range(0, len(state) - SCALAR_BYTES, size)
        models = [np.frombuffer(state[start : start + size].tobytes(), self.W.dtype) for start in starts]
        t, residual, steps = map(float, np.frombuffer(state[-SCALAR_BYTES:].tobytes(), np.float64))
        sound = 1.0 <= t < math.inf and residual >= 0.0 and 0.0 <= steps <= 2**53
        if not sound or not all(np.isfinite(m).all() for m in models):
            raise UsageError("state", "must be finite and in range", (t, residual, steps))
        for own, given in zip((self.W, self.Y), models, strict=False):
            own[...] = given.reshape(own.shape)
        self._t, self.residual, self._steps = t, residual, int(steps)

    def _scalars(self) -> Floats:
        return np.array([self._t, self.residual, self._steps])

    def _losses(self, n: int, partition: Partition) -> tuple[Floats, Floats]:
        """Loss and its derivative by the score at `Y`, row by row of partition `n`."""
        w, b = self._split(n)
        scores = partition.X @ w
        if self.problem.settings.has_intercept:
            scores += b
        return self.problem.loss.value_and_derivative(scores, partition.y)

    def _split(self, n: int) -> tuple[Floats, float]:
        """Coefficients and intercept where updates of partition `n` are computed."""
        y = self.Y[self.problem.task_of[n]].astype(np.float64)
        F = self.problem.features
        return y[:F], float(y[F]) if self.problem.settings.has_intercept else 0.0

    def _gradient(self, partition: Partition, derivatives: Floats, out: Vectors) -> None:
        if partition.weights is not None:
            derivatives *= partition.weights
        derivatives /= partition.weight
        F = self.problem.features
        out[:F] = derivatives @ partition.X
        out[F:] = derivatives.sum()

    def _learn(self, n: int, partition: Partition, out: Vectors) -> None:
        settings, F = self.problem.settings, self.problem.features
        seed = np.random.SeedSequence(settings.seed, spawn_key=(n, self._steps)).generate_state(1)[0]
        w, b = self._split(n)
        try:
            out[:F], out[F:] = self._learner.fit(
                partition.X, partition.y, partition.weights, w, b,
                smoothness=self.problem.infos[n].smoothness, epochs=settings.epochs, seed=int(seed),
            )  # fmt: skip
        except DataError as error:
            what = f"partition {partition.id!r}: {error.argument}"
            raise DataError(what, error.rule, error.value) from error

    def _target(self, Z: Vectors | Sequence[Vectors], cols: slice, step: float) -> Floats:
        """What the prox is taken of, in some columns."""
        V = np.empty((len(self.W), cols.stop - cols.start))
        with np.errstate(over="ignore", invalid="ignore"):
            for v, z in zip(V, Z, strict=True):
                v[:] = z[cols]
            if self.problem.settings.update == "gradient":
                V *= -step
                V += self.Y[:, cols]
        largest = max(float(V.max(initial=0.0)), -float(V.min(initial=0.0)))
        if not largest <= float(np.finfo(self.W.dtype).max):
            raise DataError("models", f"must stay finite in {self.W.dtype}; scale the features", largest)
        return V

    def _move(self, new: Vectors, steps: Floats) -> None:
        """Go on to the models `new`, see how far they are from `Y`, and take `Y` ahead of them."""
        W, Y = self.W, self.Y
        moved, size, uphill = np.zeros(2), np.zeros(2), 0.0
        blocks = [*self._blocks, slice(self.problem.coupled, self.problem.d)]
        # Estimates, for which the run's dtype will do; in float32 squares may be too large or too small.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for cols in blocks:
                part = int(cols.start >= self.problem.coupled)
                here = new[:, cols].ravel()
                back = Y[:, cols].ravel() - here
                uphill += float(np.dot(back, here - W[:, cols].ravel())) / float(steps[part])
                moved[part] += float(np.dot(back, back))
                size[part] += float(np.dot(here, here))
        moved, size = np.sqrt(moved), np.sqrt(size)
        still = bool((moved <= _ULPS * float(np.finfo(W.dtype).eps) * size).all())
        self.residual = 0.0 if still else float((moved * size / steps).sum())
        momentum = self._momentum(uphill)
        if Y is not W:
            for cols in blocks:
                ahead = new[:, cols] - W[:, cols]
                ahead *= momentum
                np.add(new[:, cols], ahead, out=Y[:, cols])
        self.W, self._next = new, W
        self.Y = Y if Y is not W else new

    def _momentum(self, uphill: float) -> float:
        """How far ahead to go, in steps of the last size; none after a step that momentum took uphill."""
        if uphill > 0.0:
            self._t = 1.0
            return 0.0
        before, self._t = self._t, 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * self._t * self._t))
        return (before - 1.0) / self._t


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


def _mean(values: Floats, partition: Partition) -> float:
    """The mean over the rows of a partition, by their weights if they have any."""
    if partition.weights is None:
        return float(values.mean())
    return float(values @ partition.weights) / partition.weight
