"""Anderson's acceleration of several independent fixed-point iterations at a time.

Reference: Walker and Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer. Anal. 49(4),
2011.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.solving import solve
from asyncdmtl.arithmetic.sums import norm
from asyncdmtl.arrays import Floats

# The Gram matrix of the last changes gets this share of its largest diagonal entry added to its diagonal, so
# that changes of nearly the same direction get small weights.
_RIDGE = 1e-13

# A step that is longer than the one before it by more than this factor is taken back.
_LONGER = 2.0


class Anderson:
    """Finds the fixed points `x = move(x)` of `B` non-expansive maps, from combinations of the last steps.

    Parameters
    ----------
    problems : int
        `B`.
    size : int
        Numbers of one `x`.
    memory : int
        The most steps that are combined.
    """

    def __init__(self, problems: int, size: int, memory: int) -> None:
        self._memory = memory
        self._at = 0
        self._steps = np.zeros((problems, memory, size))
        self._results = np.zeros((problems, memory, size))
        self._gram = np.zeros((problems, memory, memory))
        self._last: tuple[Floats, Floats] | None = None
        self._length = np.full(problems, np.inf)

    def next(self, x: Floats, result: Floats) -> Floats:
        """The next `x`, given `result = move(x)`; all are (B, size)."""
        step = result - x
        length = norm(step, axis=1)
        if self._last is None:
            self._last, self._length = (step, result), length
            return result
        before, last = self._last
        self._remember(step - before, result - last)
        back = length > _LONGER * self._length
        following: Floats = result - self._correction(step)
        if back.any():
            following[back] = last[back]
            self._steps[back] = self._results[back] = self._gram[back] = 0.0
            # A step that follows one that was taken back is not compared with it.
            length = np.where(back, np.inf, length)
            step, result = step.copy(), result.copy()
            step[back], result[back] = before[back], last[back]
        self._last, self._length = (step, result), length
        return following

    def keep(self, problems: NDArray[np.bool_]) -> None:
        """Go on with these problems only."""
        self._steps, self._results = self._steps[problems], self._results[problems]
        self._gram, self._length = self._gram[problems], self._length[problems]
        if self._last is not None:
            self._last = self._last[0][problems], self._last[1][problems]

    def _remember(self, step: Floats, result: Floats) -> None:
        at = self._at
        self._at = (at + 1) % self._memory
        self._steps[:, at], self._results[:, at] = step, result
        row = matmul(self._steps, step[:, :, None])[:, :, 0]
        self._gram[:, at, :] = self._gram[:, :, at] = row

    def _correction(self, step: Floats) -> Floats:
        squares = np.einsum("bii->bi", self._gram)
        ridge = _RIDGE * squares.max(axis=1)
        gram = self._gram + np.where(ridge > 0.0, ridge, 1.0)[:, None, None] * np.eye(self._memory)
        weights = solve(gram, matmul(self._steps, step[:, :, None])[:, :, 0])
        correction: Floats = matmul(weights[:, None, :], self._results)[:, 0, :]
        return correction
