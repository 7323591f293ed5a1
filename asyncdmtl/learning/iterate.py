"""The models of all tasks as they move, step by step, in blocks of columns that stay in the cache.

A step is `W ← prox(Y − step·Z)` for gradients `Z` at `Y`, or `W ← prox(Z)` for models, where `Y` is `W`
itself or, accelerated, ahead of it by the momentum `m`: `Y = W + m·(W − W_before)`. `Y` is never kept: it is
made block by block where it is asked for. Where the coupling permits, blocks of a step are computed as soon
as their columns of `Z` are there; nothing has changed until the step is taken.

What is done to each number by itself, and to each column, is done in the run's dtype, without fused
operations, and so has the same bits on every CPU; singular values and iterations are computed in float64.

Acceleration: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging
Sciences 2(1), 2009; restart: O'Donoghue and Candès, "Adaptive Restart for Accelerated Gradient Schemes",
Foundations of Computational Mathematics 15, 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.coupling import SpectralCoupling
from asyncdmtl.learning.problem import SCALAR_BYTES, Problem
from asyncdmtl.learning.proximal import blocked_singular_values, spectral_factor

Columns = Callable[[slice], Sequence[Vectors]]
"""The aggregated updates `Z` in some columns: `T` vectors of that length."""

# Numbers of all models, whole columns of them, that are worked on at a time, if there are more.
_BLOCK = 1 << 17

# Models that change by no more than so many units in the last place have arrived as far as their dtype goes.
_ULPS = 4.0

# So many columns for each task make it worth while to see the long side of the models only block by block.
_LONG = 64


class Iterate:
    """The models of a problem, zero at first but for fixed intercepts.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    W : (T, d) array of the run's dtype
        The models; the intercept, if any, is the last column.
    residual : float
        See `Trainer`.
    steps : int
        Steps taken.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        T, C = len(problem.tasks), problem.coupled
        self.residual = math.inf
        self.steps = 0
        self.W: Vectors = np.zeros((T, problem.d), problem.dtype)
        for t, intercept in problem.fixed.items():
            self.W[t, problem.features] = intercept
        self._before: Vectors | None = self.W.copy() if problem.settings.accelerated else None
        self._next = np.empty_like(self.W)
        # FISTA's t, 1 at a fresh start, and how far Y is ahead, in steps of the last size.
        self._t, self._momentum = 1.0, 0.0
        width = max(1, C if T * C <= _BLOCK else _BLOCK // T)
        self._blocks = [slice(start, min(start + width, C)) for start in range(0, C, width)]
        # Of each block, and of free intercepts: how far uphill, how far at all, and the size of the models.
        self._sums = np.zeros((len(self._blocks) + 1, 3))
        self._made = [False] * len(self._blocks)
        long = len(self._blocks) > 1 and C >= _LONG * T
        self._spectral = problem.coupling if isinstance(problem.coupling, SpectralCoupling) and long else None
        self._grams = np.empty((len(self._blocks), T, T)) if self._spectral else None
        names = ("ahead", "moved", "target")
        self._scratch = {name: np.empty(T * max(1, width), problem.dtype) for name in names}
        # Of which columns "ahead" is there.
        self._known: slice | None = None

    def warm_up(self) -> None:
        """Take all memory that steps need, so that no step waits for it."""
        self.W += 0
        self._next[:] = 0

    @property
    def Y(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """Where updates are computed: (T, d), to be read only."""
        return self.ahead(slice(0, self._problem.d)) if self._before is not None else self.W

    def ahead(self, cols: slice, out: Vectors | None = None) -> Vectors:
        """`Y` in some columns, (T, columns)."""
        return self._ahead((slice(None), cols), out)

    def ahead_of(self, t: int, cols: slice) -> Vectors:
        """Row `t` of `Y` in some columns."""
        return self._ahead((t, cols), None)

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Compute what can be of the next step where columns of `Z` are `ready`; what was is not again."""
        if not (self._problem.coupling.columnwise or self._spectral):
            return
        # What overflows is found in the sums.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for index, cols in enumerate(self._blocks):
                if not self._made[index] and ready(cols):
                    self._made[index] = True
                    self._begin(index, cols, Z)

    def forget(self) -> None:
        """Forget what was computed of a step that was not taken."""
        self._made = [False] * len(self._made)

    def step(self, Z: Columns) -> None:
        """Take a step.

        Raises
        ------
        DataError
            The models outgrow the run's dtype; they are left as they were.
        """
        problem, C = self._problem, self._problem.coupled
        try:
            self.advance(Z, lambda cols: True)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                if self._grams is not None:
                    self._rotate(Z)
                elif not problem.coupling.columnwise:
                    self._settle_whole(problem.coupling.prox(self._whole(Z), self._step))
                if problem.d > C:
                    rest = slice(C, problem.d)
                    self._settle(len(self._blocks), rest, self._target(Z, rest))
                self._check_size(Z)
        finally:
            self.forget()
        self._move()

    def penalty(self) -> float:
        """`λ R(Y)`."""
        coupling = self._problem.coupling
        if self._spectral is not None:
            # Of float32, more digits would be those of its rounding.
            once = self.W.dtype == np.float32
            sigma = blocked_singular_values(self._wide_blocks, once=once)
            if sigma is not None:
                return self._spectral.penalty_of(sigma)
        if coupling.columnwise:
            blocks: Iterator[Any] = map(self.ahead, self._blocks)
            return math.fsum(map(coupling.penalty, blocks))
        return coupling.penalty(self.ahead(slice(0, self._problem.coupled)).astype(np.float64))

    def place(self, rows: Sequence[int], models: Vectors) -> None:
        """Go on from these models of some tasks, which another has computed."""
        for matrix in (self.W, self._before):
            if matrix is not None:
                matrix[list(rows)] = models
        self._known = None

    def state(self) -> NDArray[np.uint8]:
        """All that another must know to go on from here, as `problem.state_bytes` bytes."""
        matrices = [m.reshape(-1).view(np.uint8) for m in (self.W, self._before) if m is not None]
        scalars = np.array([self._t, self._momentum, self.residual, self.steps], np.float64)
        return np.concatenate([*matrices, scalars.view(np.uint8)])

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Go on from what `state` gave.

        Raises
        ------
        UsageError
            It is of another size, or not finite.
        """
        if state.dtype != np.uint8 or state.shape != (self._problem.state_bytes,):
            rule = f"must be {self._problem.state_bytes} bytes"
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
        self._known = None

    @property
    def _step(self) -> float:
        return self._lengths[0]

    @cached_property
    def _lengths(self) -> tuple[float, float]:
        """Of a step, for what the coupling sees and for free intercepts."""
        settings = self._problem.settings
        times = settings.epochs if settings.update == "model" else 1
        coupled, free = (times * float(length) for length in self._problem.steps)
        return coupled, free

    def _scratched(self, name: str, columns: int) -> Vectors:
        """Work space of so many columns, contiguous."""
        T = len(self.W)
        return self._scratch[name][: T * columns].reshape(T, columns)

    def _ahead(self, place: tuple[Any, slice], out: Vectors | None) -> Vectors:
        W = self.W[place]
        if self._before is None:
            return W
        Y: Vectors = np.subtract(W, self._before[place], out=out)
        Y *= self._momentum
        Y += W
        return Y

    def _wide_blocks(self) -> Iterator[Floats]:
        """`Y` in float64, block by block."""
        return (self.ahead(cols).astype(np.float64) for cols in self._blocks)

    def _target(self, Z: Columns, cols: slice, out: Vectors | None = None) -> Vectors:
        """What the prox is taken of, in some columns; without `out`, valid until the next are asked for."""
        V = self._scratched("target", cols.stop - cols.start) if out is None else out
        gradients = self._problem.settings.update == "gradient"
        length = -self._lengths[int(cols.start >= self._problem.coupled)]
        for v, z in zip(V, Z(cols), strict=True):
            if gradients:
                np.multiply(z, length, out=v, casting="same_kind")
            else:
                v[:] = z
        if gradients:
            V += self._ahead_here(cols)
        return V

    def _ahead_here(self, cols: slice) -> Vectors:
        """`Y` in the columns that are worked on, made once."""
        out = self._scratched("ahead", cols.stop - cols.start)
        if self._before is not None and self._known == cols:
            return out
        self._known = cols
        return self.ahead(cols, out)

    def _begin(self, index: int, cols: slice, Z: Columns) -> None:
        """All that can be done with a block by itself."""
        if self._grams is None:
            V = self._target(Z, cols)
            prox = self._problem.coupling.prox(V, self._step, out=V)  # type: ignore[arg-type] # columnwise
            self._settle(index, cols, prox)
        else:
            wide = self._target(Z, cols, self._next[:, cols]).astype(np.float64)
            np.matmul(wide, wide.T, out=self._grams[index])

    def _settle(self, index: int, cols: slice, prox: Vectors) -> None:
        """Keep a block of the next models, and see how far they are from `Y` and `W`.

        These are estimates, for which the run's dtype will do; in float32 squares may be too large or too
        small.
        """
        columns = cols.stop - cols.start
        here = np.ascontiguousarray(prox, dtype=self.W.dtype)
        self._next[:, cols] = here
        # Few buffers are used again and again, so that they stay in the cache.
        back, moved = self._scratched("ahead", columns), self._scratched("moved", columns)
        np.subtract(self._ahead_here(cols), here, out=back)
        self._known = None
        np.subtract(here, self.W[:, cols], out=moved)
        here, back, moved = (array.reshape(-1) for array in (here, back, moved))
        self._sums[index] = np.dot(back, moved), np.dot(back, back), np.dot(here, here)

    def _settle_whole(self, prox: Floats) -> None:
        for index, cols in enumerate(self._blocks):
            self._settle(index, cols, prox[:, cols])

    def _whole(self, Z: Columns) -> Floats:
        """What the prox is taken of, altogether."""
        V = np.empty((len(self.W), self._problem.coupled))
        for cols in self._blocks:
            V[:, cols] = self._target(Z, cols)
        if not np.isfinite(V).all():
            raise self._too_large(Z)
        return V

    def _rotate(self, Z: Columns) -> None:
        """A step of a spectral coupling: singular values from the Gram matrix, then block by block again."""
        assert self._spectral is not None
        assert self._grams is not None
        coupling, gram = self._spectral, self._grams.sum(axis=0)
        factor = None
        if np.isfinite(gram).all():
            factor = spectral_factor(gram, lambda sigma: coupling.shrunk(sigma, self._step))
        if factor is None:
            self._settle_whole(coupling.prox(self._whole(Z), self._step))
            return
        factor = factor.astype(self.W.dtype)
        for index, cols in enumerate(self._blocks):
            out = self._scratched("target", cols.stop - cols.start)
            self._settle(index, cols, np.matmul(factor, self._next[:, cols], out=out))

    def _check_size(self, Z: Columns) -> None:
        """DataError unless the next models are finite; in float32, their squares need not be."""
        if not np.isfinite(self._sums[:, 2]).all() and not np.isfinite(self._next).all():
            raise self._too_large(Z)

    def _too_large(self, Z: Columns) -> DataError:
        blocks = [*self._blocks, slice(self._problem.coupled, self._problem.d)]
        largest = max(float(np.abs(self._target(Z, cols)).max(initial=0.0)) for cols in blocks)
        return DataError("models", f"must stay finite in {self.W.dtype}; scale the features", largest)

    def _move(self) -> None:
        """Go on to the next models."""
        lengths = np.array(self._lengths)
        sums = np.stack([self._sums[:-1].sum(axis=0), self._sums[-1]])
        moved, size = np.sqrt(sums[:, 1]), np.sqrt(sums[:, 2])
        still = bool((moved <= _ULPS * float(np.finfo(self.W.dtype).eps) * size).all())
        self.residual = 0.0 if still else float((moved * size / lengths).sum())
        if self._before is None:
            self.W, self._next = self._next, self.W
        else:
            self._momentum = self._next_momentum(float((sums[:, 0] / lengths).sum()))
            self.W, self._before, self._next = self._next, self.W, self._before
        self.steps += 1
        self._known = None

    def _next_momentum(self, uphill: float) -> float:
        """How far ahead to go, in steps of the last size; none after a step that momentum took uphill."""
        if uphill > 0.0:
            self._t = 1.0
            return 0.0
        before, self._t = self._t, 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * self._t * self._t))
        return (before - 1.0) / self._t
