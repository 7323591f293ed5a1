"""Training by second-order steps: each minimises quadratic models of all losses, with the penalty.

In Newton's method, workers send second derivatives. In the quasi-Newton method (BFGS for each task), they
follow from the gradients of all rounds. In either case the penalty is not approximated, and every worker
solves the coupled quadratic problem itself (`coupled`), without traffic.

First the full step is taken. If the next round shows that it did not lower the objective, the models move
back along the step, to the minimum of a cubic with the losses and slopes of both ends. References: Lee, Sun,
Saunders, "Proximal Newton-type Methods for Minimizing Composite Functions", SIAM J. Optim. 24(3), 2014;
Nocedal and Wright, "Numerical Optimization", 2006, section 6.1.
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
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.quadratic import Quadratics, apply, inverse
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

# The share of the mean second derivative that is added to the diagonal, so that models do not move in
# directions in which the data have no variance.
_RIDGE = 1e-9

# Losses count as flat if second derivatives are below this: separable classes have no minimum, and quotients
# of such numbers would overflow.
_FLAT = 1e-60

# The accuracy of the solution of a quadratic problem: as a share of the decrease that the last step
# predicted, and at least as a share of the objective.
_SHARE, _LEAST = 1e-2, 1e-13

# Positions on a failed step at which the cubic is evaluated: the longest, the ratio of each to the one
# before, and the shortest, as shares of the step.
_LONGEST, _SHORTER, _SHORTEST = 0.9, 0.9, 1e-3

# Once the predicted decrease is below this share of the objective, exact second derivatives are used. Before
# that, those of outliers under Huber loss would be 0, and steps too long.
_NEAR = 1e-3

# An increase of the objective by less than this fraction is rounding, and counts as none.
_ROUNDING = 1e-13


class NewtonTrainer(Trainer):
    """A `Trainer` of second order."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        T, d = len(problem.tasks), problem.d
        self._best = np.zeros((T, d))
        # At the best models so far: the objective, and the loss and gradient of each task.
        self._objective = math.inf
        self._losses, self._gradients = np.zeros(T), np.zeros((T, d))
        self._promised = math.inf
        self._B = self._first_metric() if problem.update == "quasi-newton" else np.zeros((0, d, d))

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Do nothing: the step needs all of `Z`."""

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write the vectors of losses, gradients and curvatures, see `Trainer.packed_updates`."""
        near = self._promised <= _NEAR * abs(self._objective)
        self._local.sharp = near and math.isfinite(self._objective)
        return super().packed_updates(out)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step with the vectors of all tasks, or move back along the last step if that failed.

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
        value = float(total(losses, 0)) + self._penalty_of(here)
        if not wire.curvature:
            self._learn(here, gradients)
            H = self._B
        if value <= self._objective + _ROUNDING * abs(self._objective):
            self._best, self._objective = here, value
            self._losses, self._gradients = losses, gradients
            following = self._solved(here, gradients, H)
        elif not math.isfinite(value):
            following = self._best + 0.1 * (here - self._best)
        else:
            following = self._between(here, losses, gradients)
        self._move(following)

    def penalty(self) -> float:
        """`λ R(W)`."""
        return self._penalty_of(self.W.astype(np.float64))

    def told(self, *, last: bool) -> Bytes:
        """Models, and where second derivatives depend on it how far training has come; see `Trainer.told`."""
        models = super().told(last=last)
        if not self.problem.tells_progress:
            return models
        progress = np.array([[self._objective, self._promised]]).view(np.uint8)
        return np.concatenate([models, np.tile(progress, (len(models), 1))], axis=1)

    def take_told(self, rows: Sequence[int], told: Bytes) -> None:
        """Continue from what a trainer `told` of some tasks, none or more."""
        super().take_told(rows, told)
        if self.problem.tells_progress and len(told):
            progress = np.ascontiguousarray(told[0, -16:]).view(np.float64)
            self._objective, self._promised = map(float, progress)

    def state(self) -> Bytes:
        """All that another process needs to continue from here, as `problem.state_bytes` bytes."""
        numbers = [self._best, self._losses, self._gradients, self._B, self._objective, self._promised]
        flat = np.concatenate([np.ravel(np.asarray(part, dtype=np.float64)) for part in numbers])
        return np.concatenate([super().state(), flat.view(np.uint8)])

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        if state.dtype != np.uint8 or state.shape != (self.problem.state_bytes,):
            rule = f"must be {self.problem.state_bytes} bytes"
            raise UsageError("state", rule, (state.dtype, state.shape))
        flat = np.frombuffer(state[self.problem.iterate_bytes :].tobytes(), np.float64)
        if np.isnan(flat).any() or not np.isfinite(flat[:-2]).all():
            raise UsageError("state", "must be finite and in range", "not a number")
        super().restore(state[: self.problem.iterate_bytes])
        shapes = (self._best.shape, self._losses.shape, self._gradients.shape, self._B.shape)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = np.split(flat[:-2], ends[:-1])
        self._best, self._losses, self._gradients, self._B = (
            part.reshape(shape).copy() for part, shape in zip(parts, shapes, strict=True)
        )
        self._objective, self._promised = float(flat[-2]), float(flat[-1])

    def _penalty_of(self, W: Floats) -> float:
        return self.problem.coupling.penalty(W[:, : self.problem.coupled])

    def _solved(self, here: Floats, gradients: Floats, H: Floats) -> Floats:
        """The models that minimise the sum of the quadratic models of all losses and of the penalty."""
        problem, C = self.problem, self.problem.coupled
        A, g = H, gradients
        if free := problem.d > C:
            # An intercept that the coupling does not involve can be eliminated: its best value follows from
            # the rest.
            pull, row, slope = H[:, C, C], H[:, C, :C], gradients[:, C]
            firm = pull > 1e-12 * (1e-300 + np.abs(H).max(axis=(1, 2)))
            share = np.where(firm, 1.0, 0.0) / np.where(firm, pull, 1.0)
            A = H[:, :C, :C] - share[:, None, None] * row[:, :, None] * row[:, None, :]
            g = gradients[:, :C] - (share * slope)[:, None] * row
        scale = float(np.abs(np.einsum("tii->ti", A)).max(initial=0.0))
        if scale < _FLAT:
            self._promised = self._iterate.residual = 0.0
            return here.copy()
        A = 0.5 * (A + np.swapaxes(A, 1, 2)) + _RIDGE * scale * np.eye(C)
        w = here[:, :C]
        b = apply(A[None], w[None, None])[0, 0] - g
        c = np.maximum(total(b * apply(inverse(A, 0.0)[None], b[None, None])[0, 0], 1), 0.0)
        quadratics = Quadratics(A[None], b[None], c[None])
        enough = max(_LEAST * abs(self._objective), _SHARE * min(self._promised, abs(self._objective)))
        strength = problem.settings.strength or 0.0
        near = w[None, None]
        solution = solve(problem.coupling, quadratics, [strength], tolerance=0.0, enough=enough, near=near)
        following = here.copy()
        following[:, :C] = solution.W[0, 0]
        if free:
            moved = following[:, :C] - w
            following[:, C] = here[:, C] - share * (slope + total(row * moved, 1))
            for t, intercept in problem.fixed.items():
                following[t, C] = intercept
        before = float(quadratics.value(w[None, None])[0, 0]) + self._penalty_of(here)
        after = float(solution.value[0, 0])
        gained = 0.5 * float(total(share * slope * slope, 0)) if free else 0.0
        self._promised = max(before - after, 0.0) + gained
        self._iterate.residual = self._promised + float(max(solution.gap[0, 0], 0.0))
        return following

    def _between(self, there: Floats, losses: Floats, gradients: Floats) -> Floats:
        """The models of least estimated objective between the best ones and those of the failed step.

        Losses in between are estimated by cubics with the values and slopes of both ends.
        """
        way = there - self._best
        slopes = [float(total((way * part).reshape(-1), 0)) for part in (self._gradients, gradients)]
        ends = [float(total(part, 0)) for part in (self._losses, losses)]
        best, least, s = _SHORTEST, math.inf, _LONGEST
        while s > _SHORTEST:
            value = _cubic(s, ends, slopes) + self._penalty_of(self._best + s * way)
            if value < least:
                best, least = s, value
            s *= _SHORTER
        between: Floats = self._best + best * way
        return between

    def _first_metric(self) -> Floats:
        """Multiples of the identity that bound each task's second derivatives, as declared."""
        problem = self.problem
        bounds = np.array(problem.task_means([info.smoothness for info in problem.infos]))
        B: Floats = np.maximum(bounds, 1e-12)[:, None, None] * np.eye(problem.d)
        if problem.d > problem.coupled:
            B[:, -1, -1] = problem.loss.curvature
        return B

    def _learn(self, here: Floats, gradients: Floats) -> None:
        """Update each task's matrix of second derivatives by BFGS, from the change of its gradient."""
        if not math.isfinite(self._objective):
            return
        s, y = here - self._best, gradients - self._gradients
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

    def _move(self, following: Floats) -> None:
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


def _cubic(s: float, ends: Sequence[float], slopes: Sequence[float]) -> float:
    """Hermite's cubic with values and slopes at 0 and 1."""
    t = 1.0 - s
    return (
        (1.0 + 2.0 * s) * t * t * ends[0]
        + s * t * t * slopes[0]
        + s * s * (3.0 - 2.0 * s) * ends[1]
        - s * s * t * slopes[1]
    )
