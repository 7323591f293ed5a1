"""Training by few and long steps: each solves the coupled problem of a quadratic model of every task's loss.

Newton's method is told the second derivatives, a quasi-Newton method (BFGS for each task) learns them from
the gradients that all see anyway. Either way all take the steps of `descent`, at no byte. Reference: Nocedal
and Wright, "Numerical Optimization", 2006, section 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

# Once the predicted decrease is below this share of the objective, exact second derivatives are used. Before
# that, those of outliers under Huber loss would be 0, and steps too long.
NEAR = 1e-3


class NewtonTrainer(Trainer):
    """A `Trainer` of second order."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        T, d = len(problem.tasks), problem.d
        fixed = np.array([[problem.fixed.get(t, math.nan) for t in range(T)]])
        self._descent = Descent(problem.coupling, (1, T, d), problem.coupled, fixed)
        self._B = self._first_metric() if problem.update == "quasi-newton" else np.zeros((0, d, d))

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Nothing: the step needs all of `Z`."""

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write what partitions tell, see `Trainer.packed_updates`."""
        self._local.sharp = bool(self._descent.near(NEAR)[0])
        return super().packed_updates(out)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step, given what all tasks told; or go back along the last one.

        Raises
        ------
        DataError
            The models outgrow the run's dtype.
        """
        wire = self.problem.wire
        assert isinstance(wire, SecondOrderWire)
        vectors = np.stack([np.asarray(z) for z in (Z(slice(None)) if callable(Z) else Z)])
        losses, gradients, H = wire.split(vectors)
        here = self.W.astype(np.float64)
        if not wire.curvature:
            self._learn(here, gradients)
            H = self._B
        following, better = self._descent.step(here[None], losses[None], gradients[None], H[None])
        if better[0]:
            self._iterate.residual = float(self._descent.promised[0] + self._descent.gap[0])
        self.move(following[0])

    def penalty(self) -> float:
        """`λ R(W)`."""
        return self.problem.coupling.penalty(self.W.astype(np.float64)[:, : self.problem.coupled])

    def told(self, *, last: bool) -> Bytes:
        """Models, and where second derivatives depend on it how far training has come; see `Trainer.told`."""
        models = super().told(last=last)
        if not self.problem.tells_progress:
            return models
        progress = np.array([[self._descent.objective[0], self._descent.promised[0]]]).view(np.uint8)
        return np.concatenate([models, np.tile(progress, (len(models), 1))], axis=1)

    def take_told(self, rows: Sequence[int], told: Bytes) -> None:
        """Continue from what a trainer `told` of some tasks, none or more."""
        super().take_told(rows, told)
        if self.problem.tells_progress and len(told):
            progress = np.ascontiguousarray(told[0, -16:]).view(np.float64)
            self._descent.objective[0], self._descent.promised[0] = map(float, progress)

    def state_parts(self) -> list[Bytes]:
        """The parts of what another process needs to continue from here, `problem.state_bytes` bytes."""
        flat = np.concatenate([self._descent.state(), np.ravel(self._B)])
        return [*super().state_parts(), flat.view(np.uint8)]

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        flat = self._numbers_of(state)
        descent, metric = np.split(flat, [flat.size - self._B.size])
        if not np.isfinite(metric).all():
            raise UsageError("state", "must be finite and in range", "not a number")
        self._descent.restore(descent)
        self._B = metric.reshape(self._B.shape).copy()
        super().restore(state[: self.problem.iterate_bytes])

    def _numbers_of(self, state: Bytes) -> Floats:
        """What a state holds beside the iterate's; UsageError if it has another size."""
        if state.dtype != np.uint8 or state.shape != (self.problem.state_bytes,):
            rule = f"must be {self.problem.state_bytes} bytes"
            raise UsageError("state", rule, (state.dtype, state.shape))
        return np.frombuffer(state[self.problem.iterate_bytes :].tobytes(), np.float64)

    def _first_metric(self) -> Floats:
        """Second derivatives that no task's loss exceeds, as declared: multiples of the identity."""
        problem = self.problem
        bounds = np.array(problem.task_means([info.smoothness for info in problem.infos]))
        B: Floats = np.maximum(bounds, 1e-12)[:, None, None] * np.eye(problem.d)
        if problem.d > problem.coupled:
            B[:, -1, -1] = problem.loss.curvature
        return B

    def _learn(self, here: Floats, gradients: Floats) -> None:
        """Update every task's metric by how its gradient changed: BFGS."""
        if not math.isfinite(self._descent.objective[0]):
            return
        s, y = here - self._descent.best[0], gradients - self._descent.gradients[0]
        sy, ss = total(s * y, 1), total(s * s, 1)
        Bs = matmul(self._B, s[:, :, None])[:, :, 0]
        sBs = total(s * Bs, 1)
        told = (sy > 1e-10 * np.sqrt(ss * total(y * y, 1))) & (sBs > 0.0)
        up = np.where(told, 1.0, 0.0) / np.where(told, sy, 1.0)
        down = np.where(told, 1.0, 0.0) / np.where(told, sBs, 1.0)
        self._B = (
            self._B
            + up[:, None, None] * y[:, :, None] * y[:, None, :]
            - down[:, None, None] * Bs[:, :, None] * Bs[:, None, :]
        )

    def move(self, following: Floats) -> None:
        """Go to these models (T, d); DataError if they outgrow the run's dtype."""
        with np.errstate(over="ignore"):
            models: Vectors = following.astype(self.problem.dtype)
        if not np.isfinite(models).all():
            rule = f"must stay finite in {self.problem.dtype}; scale the features"
            raise DataError("models", rule, float(np.abs(following).max()))
        still = bool((models == self.W).all())
        self.place(range(len(models)), models)
        self._iterate.steps += 1
        if still:
            self._iterate.residual = 0.0
