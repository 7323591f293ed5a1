"""A step of all models, computed in blocks of columns that stay in the cache.

A step is `W⁺ = prox(Y − step·Z)` for gradients `Z` at `Y`. If the coupling permits it, each block of a step
is computed as soon as its columns of `Z` have been received; the models change only when the step is taken.

Operations on single numbers and on single columns are done in the run's dtype without fused operations, so
every CPU gets the same bits. Singular values and iterative proximal operators are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from asyncdmtl.arithmetic.products import dot, matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import DataError
from asyncdmtl.learning.couplings.low_rank import SpectralCoupling
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.singular_values import blocked_singular_values, spectral_factor

Columns = Callable[[slice], Sequence[Vectors]]
"""The aggregated updates `Z` in some columns: `T` vectors of that length."""

# Numbers in a block of columns, over all tasks: half a megabyte in float32, which fits in a core's cache.
BLOCK_NUMBERS = 1 << 17

# Columns per task from which on a spectral coupling works from the (T, T) Gram matrix, block by block. Below
# that, one QR of the whole matrix is as fast.
_LONG = 64


class ProximalStep:
    """Computes the steps of an iterate.

    Parameters
    ----------
    problem : Problem
    iterate : Iterate
        The models that `take` moves.
    """

    def __init__(self, problem: Problem, iterate: Iterate) -> None:
        self._problem = problem
        self._iterate = iterate
        T, C = len(problem.tasks), problem.coupled
        self._next = np.empty_like(iterate.W)
        width = max(1, C if T * C <= BLOCK_NUMBERS else BLOCK_NUMBERS // T)
        self._blocks = [slice(start, min(start + width, C)) for start in range(0, C, width)]
        # The three sums of `Iterate.move` for each block, and for free intercepts in the last row.
        self._sums = np.zeros((len(self._blocks) + 1, 3))
        self._made = [False] * len(self._blocks)
        long = len(self._blocks) > 1 and C >= _LONG * T
        self._spectral = problem.coupling if isinstance(problem.coupling, SpectralCoupling) and long else None
        self._grams = np.empty((len(self._blocks), T, T)) if self._spectral else None
        names = ("ahead", "moved", "target")
        self._scratch = {name: np.empty(T * max(1, width), problem.dtype) for name in names}
        # The columns of `Y` that the scratch array "ahead" holds at present.
        self._known: slice | None = None

    def warm_up(self) -> None:
        """Touch all memory that steps need, so that no step waits for it."""
        self._iterate.W += 0
        self._next[:] = 0

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Compute the blocks of the next step whose columns of `Z` are `ready` and not computed yet."""
        if not (self._problem.coupling.columnwise or self._spectral):
            return
        # Overflow is detected later, in the sums.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for index, cols in enumerate(self._blocks):
                if not self._made[index] and ready(cols):
                    self._made[index] = True
                    self._begin(index, cols, Z)

    def forget(self) -> None:
        """Discard the results of `advance` for a step that was not taken."""
        self._made = [False] * len(self._made)
        self._known = None

    def take(self, Z: Columns) -> None:
        """Take a step.

        Raises
        ------
        DataError
            The models outgrow the run's dtype. They are left as they were.
        """
        problem, C = self._problem, self._problem.coupled
        try:
            self.advance(Z, lambda cols: True)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                if self._grams is not None:
                    self._rotate(Z)
                elif not problem.coupling.columnwise:
                    self._settle_whole(problem.coupling.prox(self._whole(Z), problem.step_lengths[0]))
                if problem.d > C:
                    rest = slice(C, problem.d)
                    self._settle(len(self._blocks), rest, self._target(Z, rest))
                self._check_size(Z)
        finally:
            self.forget()
        sums = np.stack([total(self._sums[:-1]), self._sums[-1]])
        self._next = self._iterate.move(self._next, sums)

    def penalty(self) -> float:
        """`λ R(Y)`."""
        coupling = self._problem.coupling
        if self._spectral is not None:
            # For float32 models, further digits would be those of rounding.
            once = self._problem.dtype == np.float32
            sigma = blocked_singular_values(self._wide_blocks, once=once, arithmetic=coupling.arithmetic)
            if sigma is not None:
                return float(self._spectral.penalty_of(sigma))
        if coupling.columnwise:
            blocks: Iterator[Any] = map(self._iterate.ahead, self._blocks)
            return math.fsum(map(coupling.penalty, blocks))
        return coupling.penalty(self._iterate.ahead(slice(0, self._problem.coupled)).astype(np.float64))

    def _scratched(self, name: str, columns: int) -> Vectors:
        """Contiguous work space of (T, columns)."""
        T = len(self._next)
        return self._scratch[name][: T * columns].reshape(T, columns)

    def _wide_blocks(self) -> Iterator[Floats]:
        """`Y` in float64, block by block."""
        return (self._iterate.ahead(cols).astype(np.float64) for cols in self._blocks)

    def _target(self, Z: Columns, cols: slice, out: Vectors | None = None) -> Vectors:
        """The argument of the prox in some columns; without `out`, valid until the next call."""
        V = self._scratched("target", cols.stop - cols.start) if out is None else out
        length = -self._problem.step_lengths[int(cols.start >= self._problem.coupled)]
        for v, z, damping in zip(V, Z(cols), self._problem.damping, strict=True):
            np.multiply(z, length * damping, out=v, casting="same_kind")
        V += self._ahead_here(cols)
        return V

    def _ahead_here(self, cols: slice) -> Vectors:
        """`Y` in the current columns, computed once."""
        out = self._scratched("ahead", cols.stop - cols.start)
        if self._iterate.accelerated and self._known == cols:
            return out
        self._known = cols
        return self._iterate.ahead(cols, out)

    def _begin(self, index: int, cols: slice, Z: Columns) -> None:
        """Compute the part of a block that does not depend on other blocks."""
        if self._grams is None:
            V, length = self._target(Z, cols), self._problem.step_lengths[0]
            prox = self._problem.coupling.prox(V, length, out=V)  # type: ignore[arg-type] # columnwise
            self._settle(index, cols, prox)
        else:
            wide = self._target(Z, cols, self._next[:, cols]).astype(np.float64)
            self._grams[index] = self._problem.coupling.arithmetic.gram(wide)

    def _settle(self, index: int, cols: slice, prox: Vectors) -> None:
        """Keep a block of the next models, and measure how far they are from `Y` and `W`.

        The measurements are estimates, so they are made in the run's dtype; in float32 a square may
        overflow or vanish.
        """
        columns = cols.stop - cols.start
        here = np.ascontiguousarray(prox, dtype=self._next.dtype)
        self._next[:, cols] = here
        # The same few buffers are used for each block, so that they stay in the cache.
        back, moved = self._scratched("ahead", columns), self._scratched("moved", columns)
        np.subtract(self._ahead_here(cols), here, out=back)
        self._known = None
        np.subtract(here, self._iterate.W[:, cols], out=moved)
        here, back, moved = (array.reshape(-1) for array in (here, back, moved))
        self._sums[index] = dot(back, moved), dot(back, back), dot(here, here)

    def _settle_whole(self, prox: Floats) -> None:
        for index, cols in enumerate(self._blocks):
            self._settle(index, cols, prox[:, cols])

    def _whole(self, Z: Columns) -> Floats:
        """The argument of the prox in all columns that the coupling involves."""
        V = np.empty((len(self._next), self._problem.coupled))
        for cols in self._blocks:
            V[:, cols] = self._target(Z, cols)
        if not np.isfinite(V).all():
            raise self._too_large(Z)
        return V

    def _rotate(self, Z: Columns) -> None:
        """Prepare a step of a spectral coupling: its (T, T) factor from the Gram matrix of all blocks."""
        assert self._spectral is not None
        assert self._grams is not None
        coupling, length, squared = self._spectral, self._problem.step_lengths[0], total(self._grams)
        factor = None
        if np.isfinite(squared).all():
            factor = spectral_factor(
                squared, lambda sigma: coupling.shrunk(sigma, length), coupling.arithmetic
            )
        if factor is None:
            self._settle_whole(coupling.prox(self._whole(Z), length))
            return
        turn: Vectors = factor.astype(self._next.dtype)
        for index, cols in enumerate(self._blocks):
            self._settle(index, cols, matmul(turn, self._next[:, cols]))

    def _check_size(self, Z: Columns) -> None:
        """Raise DataError unless the next models are finite; in float32, their squares need not be."""
        if not np.isfinite(self._sums[:, 2]).all() and not np.isfinite(self._next).all():
            raise self._too_large(Z)

    def _too_large(self, Z: Columns) -> DataError:
        blocks = [*self._blocks, slice(self._problem.coupled, self._problem.d)]
        largest = max(float(np.abs(self._target(Z, cols)).max(initial=0.0)) for cols in blocks)
        return DataError("models", f"must stay finite in {self._next.dtype}; scale the features", largest)
