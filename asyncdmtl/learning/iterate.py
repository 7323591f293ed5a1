"""The models of all tasks between steps: their values, their momentum, and the move to the next values.

Without acceleration, updates are computed at the models `W` themselves. With acceleration they are computed
at `Y = W + m·(W − W_before)`, ahead of the models by the momentum `m`. `Y` is not stored: any block of it is
computed from `W` and `W_before` on demand.

Acceleration: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging
Sciences 2(1), 2009; restart: O'Donoghue and Candès, "Adaptive Restart for Accelerated Gradient Schemes",
Foundations of Computational Mathematics 15, 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.problem import SCALAR_BYTES, Problem

# A step that changes the norm of the models by at most this many units in the last place is rounding: the
# models have converged as far as their dtype can show.
_ULPS = 4.0


class Iterate:
    """The models of a problem. They start at zero, except for fixed intercepts.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    W : (T, d) array of the run's dtype
        The models; the intercept, if there is one, is the last column.
    residual : float
        An estimate of the distance of the objective at `W` from its minimum, see `Trainer`.
    steps : int
        The number of steps taken.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.residual = math.inf
        self.steps = 0
        self.W: Vectors = np.zeros((len(problem.tasks), problem.d), problem.dtype)
        for t, intercept in problem.fixed.items():
            self.W[t, problem.features] = intercept
        self._before: Vectors | None = self.W.copy() if problem.accelerated else None
        # FISTA's t, which is 1 at a fresh start.
        self._t = 1.0
        # The distance of Y from W, in units of the last step.
        self._momentum = 0.0

    @property
    def accelerated(self) -> bool:
        """Whether updates are computed ahead of the models."""
        return self._before is not None

    @property
    def Y(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """The point at which updates are computed: (T, d), read-only by agreement."""
        return self.ahead(slice(0, self._problem.d))

    def ahead(self, cols: slice, out: Vectors | None = None) -> Vectors:
        """Some columns of `Y`, (T, columns): a view of `W`, or the result in `out` of an accelerated run."""
        return self._ahead((slice(None), cols), out)

    def ahead_of(self, t: int, cols: slice) -> Vectors:
        """Some columns of row `t` of `Y`."""
        return self._ahead((t, cols), None)

    def move(self, following: Vectors, sums: Floats) -> Vectors:
        """Replace the models by those of the next step.

        Parameters
        ----------
        following : (T, d) array of the run's dtype
            The next models. The iterate keeps this array.
        sums : (2, 3) float64 array
            For the columns that the coupling involves (row 0) and for free intercepts (row 1):
            `⟨Y − W⁺, W⁺ − W⟩`, `‖Y − W⁺‖²` and `‖W⁺‖²`.

        Returns
        -------
        (T, d) array that is no longer needed and may be overwritten.
        """
        lengths = np.array(self._problem.step_lengths)
        moved, size = np.sqrt(sums[:, 1]), np.sqrt(sums[:, 2])
        still = only_rounding(self._problem, moved, size, self.W.dtype)
        self.residual = 0.0 if still else float(total(moved * size / lengths))
        self.steps += 1
        free = self.W
        if self._before is not None:
            self._momentum = self._next_momentum(float(total(sums[:, 0] / lengths)))
            free, self._before = self._before, self.W
        self.W = following
        return free

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Replace the models of some tasks by models that another member of the run has computed."""
        for matrix in (self.W, self._before):
            if matrix is not None:
                matrix[list(rows)] = models

    def state_parts(self) -> list[NDArray[np.uint8]]:
        """The parts of all that another process needs to continue from here, `problem.iterate_bytes` bytes.

        The models are no copies.
        """
        matrices = [m.reshape(-1).view(np.uint8) for m in (self.W, self._before) if m is not None]
        scalars = np.array([self._t, self._momentum, self.residual, self.steps], np.float64)
        return [*matrices, scalars.view(np.uint8)]

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Continue from what `state` returned.

        Raises
        ------
        UsageError
            The state has another size, or contains numbers that are not finite or out of range.
        """
        if state.dtype != np.uint8 or state.shape != (self._problem.iterate_bytes,):
            rule = f"must be {self._problem.iterate_bytes} bytes"
            raise UsageError("state", rule, (state.dtype, state.shape))
        size = self.W.nbytes
        starts = range(0, len(state) - SCALAR_BYTES, size)
        models = [np.frombuffer(state[start : start + size].tobytes(), self.W.dtype) for start in starts]
        scalars = np.frombuffer(state[-SCALAR_BYTES:].tobytes(), np.float64)
        t, momentum, residual, steps = map(float, scalars)
        sound = 1.0 <= t < math.inf and 0.0 <= momentum <= 1.0 and residual >= 0.0 and 0.0 <= steps <= 2**53
        if not sound or not all(np.isfinite(m).all() for m in models):
            raise UsageError("state", "must be finite and in range", (t, momentum, residual, steps))
        for own, given in zip((self.W, self._before), models, strict=False):
            assert own is not None
            own[...] = given.reshape(own.shape)
        self._t, self._momentum, self.residual, self.steps = t, momentum, residual, int(steps)

    def _ahead(self, place: tuple[Any, slice], out: Vectors | None) -> Vectors:
        W = self.W[place]
        if self._before is None:
            return W
        Y: Vectors = np.subtract(W, self._before[place], out=out)
        Y *= self._momentum
        Y += W
        return Y

    def _next_momentum(self, uphill: float) -> float:
        """The momentum after a step; 0, a restart, if the step went uphill (`uphill` > 0)."""
        if uphill > 0.0:
            self._t = 1.0
            return 0.0
        before, self._t = self._t, 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * self._t * self._t))
        return (before - 1.0) / self._t


def only_rounding(problem: Problem, moved: Floats, size: Floats, dtype: Any) -> bool:
    """Whether a step moved models by no more than rounding in this dtype.

    Parameters
    ----------
    problem : Problem
    moved, size : (2,) float64 arrays
        Norms of the step, and of the models: of the columns that the coupling involves, and of free
        intercepts.
    dtype : dtype
    """
    lengths = problem.step_lengths
    # An intercept need not be better than scores are, which are rounded at the size of coefficients.
    scores = np.array([size[0], max(size[1], size[0] * math.sqrt(lengths[1] / lengths[0]))])
    return bool((moved <= _ULPS * float(np.finfo(dtype).eps) * scores).all())
