"""The training of a holder of some partitions: the part of a round that workers and server share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.local_updates import LocalUpdates
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.step import Columns, ProximalStep
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.zero_models import ZeroModels


def models_of_kinds(problem: Problem, models: Floats) -> dict[str, TaskModels]:
    """Baseline models by kind, from models (T + 1, features + 1): of each task, and last one for all."""
    alone, one = models[:-1], models[-1]
    kinds = {"single_task": alone, "pooled": np.tile(one, (len(alone), 1))}
    loss = problem.settings.loss
    return {kind: TaskModels(problem.tasks, W[:, :-1], W[:, -1], loss) for kind, W in kinds.items()}


class Trainer:
    """The models of all tasks, the updates of the partitions stored here, and the steps.

    Parameters
    ----------
    problem : Problem
    partitions : mapping of index `n` to Partition
        The partitions that are stored here. The mapping may be empty.

    Attributes
    ----------
    own : tuple of int
        Indices of the stored partitions, ascending.
    outcome : Outcome or None
        The outcome of the training, once a step has solved it; None before, and for gradients.
    zeros : ZeroModels
        Notes the last step, if it left all coefficients at 0.
    alone : bool
        Whether no other trainer on this machine takes the same steps, so that none need be shared.

    Raises
    ------
    DataError
        A partition is not the one that was declared under its index, or its targets do not suit the loss.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        self.problem = problem
        self._iterate = Iterate(problem)
        self._step = ProximalStep(problem, self._iterate)
        self._local = LocalUpdates(problem, partitions, self._iterate)
        self.own = self._local.own
        self.outcome: Outcome | None = None
        self.zeros = ZeroModels(problem)
        self.alone = False

    @property
    def W(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """The models (T, d) in the run's dtype; the intercept, if there is one, is the last column."""
        return self._iterate.W

    @property
    def Y(self) -> Vectors:  # noqa: N802
        """The point (T, d) at which updates are computed: ahead of `W` in an accelerated run, else `W`."""
        return self._iterate.Y

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return self._iterate.steps

    @property
    def residual(self) -> float:
        """An estimate of the distance of the objective at `W` from its minimum, made in the last step.

        It is `‖G‖·‖W‖` for the columns that the coupling involves, plus the same for free intercepts, with
        the proximal gradient `G = (Y − W⁺) / step`. It bounds the distance if `W` is no farther from the
        optimum than from 0. It is infinite before the first step, and 0 if the step changed nothing that the
        dtype can represent.
        """
        return self._iterate.residual

    @property
    def critical_strength(self) -> float | None:
        """The λ from which on all coefficients are 0 (`Coupling.critical_strength`).

        It is None unless all coefficients are 0, and where another trainer took the last step.
        """
        return self.zeros.critical_strength

    def local_updates(self, out: Vectors) -> Floats:
        """Write `v_n`, computed at `Y`, for the stored partitions.

        The update of a partition is the gradient of the weighted mean loss over its rows.

        Parameters
        ----------
        out : (len(own), d) array of the run's dtype
            Row `i` becomes the update of partition `own[i]`. An update does not depend on the other
            partitions that are stored here.

        Returns
        -------
        (len(own),) float64 array
            Weighted mean loss of each partition at `Y`.

        Raises
        ------
        UsageError
            `out` has another shape or dtype.
        """
        self._step.forget()
        return self._local.compute(out)

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Updates as they travel: `out` is (len(own), problem.wire.length) of problem.wire.dtype.

        Raises
        ------
        DataError
            A learner cannot train on a partition.
        """
        self._step.forget()
        return self._local.pack(out)

    def unpacked(self, n: int, packed: NDArray[Any]) -> NDArray[Any]:
        """The update of partition `n` that travelled as `packed`; called once in a round, before `step`.

        Returns
        -------
        array
            (d,) of the run's dtype, or `packed` itself if it is not compressed. It is valid until the next
            round.
        """
        differences = self._local.differences
        return packed if differences is None else differences.add(n, packed)

    def losses(self) -> Floats:
        """The losses that `local_updates` returns, without the updates."""
        return self._local.losses()

    def warm_up(self) -> None:
        """Touch all memory that steps need, so that no round waits for it."""
        self._step.warm_up()

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Compute the part of the next step whose columns of `Z` are `ready`, so that `step` is quick.

        The models change only in `step`, which must be given the same `Z`. `local_updates` discards the
        results of `advance`.
        """
        self._step.advance(Z, ready)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step with the aggregated updates of all tasks, `Z`: T vectors (d,).

        `W ← prox(Y − step·Z)`.

        Raises
        ------
        DataError
            The models outgrow the run's dtype. They are left as they were.
        """
        columns: Columns = Z if callable(Z) else lambda cols: [z[cols] for z in Z]
        self._step.take(columns)
        coupled = slice(0, self.problem.coupled)
        self.zeros.note(self.W, lambda: np.array(columns(coupled), np.float64))

    def penalty(self) -> float:
        """`λ R(Y)`."""
        return self._step.penalty()

    def objective(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t(y_t) + λ R(Y)`, given the mean losses of all `N` partitions at `Y`."""
        return self.problem.objective(losses, self.penalty())

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Replace the models of some tasks by models that another member of the run has computed."""
        self._step.forget()
        self.zeros.forget()
        self._iterate.place(rows, models)

    def told(self, *, last: bool) -> Bytes:
        """The models that a server that trains sends to workers, as bytes (T, …) in the format
        `problem.told`.

        These are the points at which updates are computed next, or after the `last` step the final models.
        """
        # Adding 0 turns −0 into 0, as a worker does that computes the points from models without momentum.
        models: Bytes = np.ascontiguousarray(self.W if last else self.Y + 0.0).view(np.uint8)
        return models

    def take_told(self, rows: Sequence[int], told: Bytes) -> None:
        """Take over the models of some tasks from the result of another trainer's `told`."""
        size = self.problem.d * self.problem.dtype.itemsize
        models: Vectors = np.ascontiguousarray(told[:, :size]).view(self.problem.dtype)
        self.place(rows, models)

    def models(self) -> TaskModels:
        """The current models, as a copy."""
        F = self.problem.features
        intercept = (
            self.W[:, F] if self.problem.settings.has_intercept else np.zeros(len(self.W), self.W.dtype)
        )
        return TaskModels(
            self.problem.tasks, self.W[:, :F].copy(), intercept.copy(), self.problem.settings.loss
        )

    def baselines(self) -> dict[str, TaskModels]:
        """The baseline models: of each task alone, and one for all tasks; empty if there are none."""
        return {}

    def state(self) -> NDArray[np.uint8]:
        """All that another process needs to continue from here, as `problem.state_bytes` bytes."""
        return np.concatenate(self.state_parts())

    def state_parts(self) -> list[NDArray[np.uint8]]:
        """The parts of `state`, one after the other; large ones are no copies."""
        return self._iterate.state_parts()

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Continue from what `state` returned.

        Raises
        ------
        UsageError
            The state has another size, or numbers that are not finite or out of range.
        """
        self._step.forget()
        self.zeros.forget()
        self._iterate.restore(state)
