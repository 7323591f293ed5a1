"""The mathematics of a round without a wire: shared by workers, the server and the one-process twin.

A round of proximal gradient descent on `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)` has three parts: the local updates
`v_n` of the partitions (`LocalUpdates`), their aggregates `z_t = ψ(v_n : n ∈ S_t)` (`Problem.aggregate`),
and a step of all models (`ProximalStep`). Vectors are kept and exchanged in the run's dtype. Everything in
between is computed in float64 and rounded once, so that every worker that takes the step gets the same
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
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.local_updates import LocalUpdates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.step import Columns, ProximalStep
from asyncdmtl.learning.tasks import Partition, TaskModels


class Trainer:
    """The models of all tasks, and what a holder of some partitions does with them in a round.

    Parameters
    ----------
    problem : Problem
    partitions : mapping of index `n` to Partition
        The partitions that are stored here. The mapping may be empty.

    Attributes
    ----------
    own : tuple of int
        Indices of the stored partitions, ascending.

    Raises
    ------
    DataError
        A partition is not the one declared under its index, or its targets do not suit the loss.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        self.problem = problem
        self._iterate = Iterate(problem)
        self._step = ProximalStep(problem, self._iterate)
        self._local = LocalUpdates(problem, partitions, self._iterate)
        self.own = self._local.own

    @property
    def W(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """The models (T, d) in the run's dtype; the intercept, if there is one, is the last column."""
        return self._iterate.W

    @property
    def Y(self) -> Vectors:  # noqa: N802
        """The point (T, d) at which updates are computed: ahead of `W` in an accelerated run, else `W`."""
        return self._iterate.Y

    @property
    def residual(self) -> float:
        """An estimate of how far the objective at `W` is above its minimum, made in the last step.

        It is `‖G‖·‖W‖` for the columns that the coupling sees, plus the same for free intercepts, with the
        proximal gradient `G = (Y − W⁺) / step`. It bounds the distance if `W` is no farther from the optimum
        than from 0. It is infinite before the first step, and 0 if the step changed nothing that the dtype
        can represent.
        """
        return self._iterate.residual

    def local_updates(self, out: Vectors) -> Floats:
        """Write `v_n`, computed at `Y`, for the stored partitions.

        Where updates are gradients, that of a partition is the gradient of the weighted mean loss over its
        rows. Where updates are models, it is what `epochs` local epochs make of the task's model.

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
        self._step.forget()
        return self._local.compute(out)

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """`local_updates` as they travel: `out` is (len(own), problem.wire.length) of problem.wire.dtype."""
        self._step.forget()
        return self._local.pack(out)

    def losses(self) -> Floats:
        """The losses that `local_updates` returns, without the updates."""
        return self._local.losses()

    def warm_up(self) -> None:
        """Touch all memory that steps need, so that no round waits for it."""
        self._step.warm_up()

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Compute the part of the next step whose columns of `Z` are `ready`, so that `step` is quick.

        The models change only in `step`, which must be given the same `Z`. `local_updates` discards what
        was computed in advance.
        """
        self._step.advance(Z, ready)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step with the aggregated updates of all tasks, `Z`: T vectors (d,).

        `W ← prox(Y − step·Z)` for gradients. For models `W ← prox(Z)`, as strong as after `epochs` steps.

        Raises
        ------
        DataError
            The models outgrow the run's dtype. They are left as they were.
        """
        self._step.take(Z if callable(Z) else lambda cols: [z[cols] for z in Z])

    def penalty(self) -> float:
        """`λ R(Y)`."""
        return self._step.penalty()

    def objective(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t(y_t) + λ R(Y)`, given the mean losses of all `N` partitions at `Y`."""
        return self.problem.data_loss(losses) + self.penalty()

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Continue from these models of some tasks, which another member of the run has computed."""
        self._step.forget()
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
        """All that another process needs to continue from here, as `problem.state_bytes` bytes."""
        return self._iterate.state()

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Continue from what `state` returned.

        Raises
        ------
        UsageError
            The state has another size, or numbers that are not finite or out of range.
        """
        self._step.forget()
        self._iterate.restore(state)


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
                Z[t] = problem.aggregate(t, updates[list(S)])
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
