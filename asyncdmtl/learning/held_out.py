"""The held-out losses of candidates, and which of them may still be the best."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.candidates import Told

# Candidates whose held-out loss is more than this many times the least take no more steps, and need not be
# near their optima: after so many rounds if the last step did not lower it, after more in any case.
_HOPELESS, _RISING_ROUNDS, _ROUNDS = 1.1, 3, 6


class HeldOut:
    """The mean losses of the rows that each fold holds out, at the best models of each candidate.

    Attributes
    ----------
    losses : (paths, folds) float64 array
        NaN where nothing is known, or a fold holds out nothing.
    """

    def __init__(self, paths: int, folds: int) -> None:
        self.losses = np.full((paths, folds), np.nan)
        # Whether the last better models did not lower the losses: 1 or 0.
        self._rose = np.zeros(paths)

    def note(self, p: int, losses: Floats, better: NDArray[np.bool_]) -> None:
        """Take over the losses (folds,) of a candidate where its models are better."""
        counted = ~np.isnan(losses)
        before = total(self.losses[p, counted])
        self.losses[p] = np.where(better, losses, self.losses[p])
        if better.any():
            self._rose[p] = total(self.losses[p, counted]) >= before

    def follow(self, sources: Indices, first: int) -> None:
        """Let candidates from `first` on begin with the losses of others: of all, `sources` has the place."""
        self.losses[: len(sources)] = self.losses[sources]
        self._rose[first:] = 0.0

    def hopeful(self, candidates: int, rounds: int) -> NDArray[np.bool_]:
        """Which of the first candidates (candidates,) may still be the best after so many rounds."""
        losses = total(self.losses[:candidates, ~np.isnan(self.losses[0])], 1)
        far = losses > _HOPELESS * losses.min(initial=math.inf)
        if rounds < _ROUNDS:
            far &= (self._rose[:candidates] > 0.0) & (rounds >= _RISING_ROUNDS)
        hopeful: NDArray[np.bool_] = ~far
        return hopeful

    def state(self) -> Floats:
        """All that changes, as one vector of `paths * (folds + 1)` numbers."""
        return np.append(self.losses.reshape(-1), self._rose)

    def restore(self, state: Floats) -> None:
        """Continue from what `state` returned; UsageError if a number is out of range."""
        losses, rose = np.split(state, [self.losses.size])
        if not np.isin(rose, (0.0, 1.0)).all():
            raise UsageError("state", "must say of losses that they rose or not", rose.tolist())
        self.losses, self._rose = losses.reshape(self.losses.shape).copy(), rose.copy()


def held_out(told: Told) -> Floats:
    """The mean loss (P, folds) of the rows that each fold holds out, averaged over tasks; NaN without."""
    counted = holds_out(told)
    tasks = counted.sum(axis=1)
    added = total(np.where(counted, told.held[:, 1:], 0.0), 2)
    means: Floats = np.where(tasks > 0, added / np.maximum(tasks, 1), np.nan)
    return means


def holds_out(told: Told) -> NDArray[np.bool_]:
    """Whether (folds, T) a fold holds out rows of a task: it must have some, and leave some."""
    shares = told.shares[1:]
    some: NDArray[np.bool_] = (shares > 0.0) & (shares < 1.0)
    return some
