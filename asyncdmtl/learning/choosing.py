"""Choosing λ, and perhaps the coupling, from statistics of folds: no row is needed, and nothing travels.

All who have the statistics of all tasks choose alike, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError
from asyncdmtl.learning.coupled import Solution, solve
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.statistics import TaskStatistics

# How near to the optimum a fit has to be to tell one λ from the next, relative to the objective.
_TOLERANCE = 1e-4

# Added to the diagonals of folds, by their mean: statistics of folds have single precision.
_RIDGE = 1e-6

# From one λ to the next (10^(−1/3)), how many are solved at a time, and how many there are at the most.
RATIO, _CHUNK, MOST = 0.46415888336127786, 4, 20

# After how many that are no better than the best a path ends.
_PATIENCE = 3

# A loss that is lower by less than this fraction is hardly better: where λ does too little to matter, once it
# has mattered (a path may begin where λ does too much to).
_HARDLY, _MATTERED = 1e-3, 1e-2


@dataclass(frozen=True, eq=False)
class Selection:
    """What cross-validation found for one coupling.

    Attributes
    ----------
    strength : float
        The λ of the least mean held-out loss.
    strengths : (count,) float64 array
        All that were tried, descending.
    losses : (count, folds) float64 array
        Mean loss per held-out row, averaged over tasks, for each strength and fold; NaN for a fold that
        holds out nothing.
    """

    strength: float
    strengths: Floats
    losses: Floats

    @property
    def means(self) -> Floats:
        """The mean (count,) over the folds."""
        return mean(self._known, 1)

    @property
    def loss(self) -> float:
        """The mean held-out loss at `strength`: the least."""
        return float(self.means.min())

    @property
    def errors(self) -> Floats:
        """Standard errors (count,) of the means; 0 of a single fold."""
        known = self._known
        n = known.shape[1]
        if n < 2:
            return np.zeros(len(known))
        offsets = known - mean(known, 1)[:, None]
        errors: Floats = np.sqrt(total(offsets * offsets, 1) / (n * (n - 1)))
        return errors

    @property
    def parsimonious(self) -> float:
        """The largest λ whose mean loss is within a standard error of the least."""
        at = int(np.argmin(self.means))
        within = self.means <= self.means[at] + self.errors[at]
        return float(self.strengths[within].max())

    @property
    def _known(self) -> Floats:
        return self.losses[:, ~np.isnan(self.losses[0])]


def path_from(first: float) -> Sequence[float]:
    """Strengths from `first` down, three to a factor of ten; one of 0 where λ has no effect."""
    strengths = [first]
    while len(strengths) < MOST and first > 0.0:
        strengths.append(strengths[-1] * RATIO)
    return strengths


def is_over(means: Floats) -> bool:
    """Whether smaller strengths are not worth trying, from the mean losses of those tried."""
    before, least = means[:-_PATIENCE], float(means.min())
    if not len(before):
        return False
    limit = least * (1.0 + _HARDLY) if means[0] > least * (1.0 + _MATTERED) else least
    return bool(before.min() <= limit)


def choose_strength(
    statistics: TaskStatistics,
    coupling: Coupling,
    intercept: str,
    smoothness: float,
    strengths: Sequence[float] | None = None,
) -> Selection:
    """Cross-validate λ for one coupling: fits to all rows but those of a fold, from coupled to free.

    Parameters
    ----------
    statistics : TaskStatistics
        With folds.
    coupling : Coupling
        Its own strength does not matter.
    intercept : str
    smoothness : float
        As `Coupling.critical_strength` takes it, from which the path begins.
    strengths : sequence of float, optional
        Those to try, all of them; default: `path_from` there until `is_over`.

    Raises
    ------
    DataError
        No fold holds out anything.
    """
    if not statistics.held().any():
        raise DataError("partitions", "need a task of two rows to choose λ by cross-validation", 1)
    if strengths is None:
        path = path_from(coupling.critical_strength(statistics.whole(intercept).b[0], smoothness))
    else:
        path = sorted(strengths, reverse=True)
    tried: list[float] = []
    losses: list[Floats] = []
    for part, solution in _solved(statistics, coupling, intercept, path):
        b = statistics.intercepts(solution.W, intercept, folds=True)
        features = statistics.means.shape[-1] - 1
        tried += part
        losses += list(statistics.held_out_loss(solution.W[..., :features], b).T)
        found = Selection(0.0, np.array(tried), np.array(losses))
        if strengths is None and is_over(found.means):
            break
    return Selection(tried[int(np.argmin(found.means))], found.strengths, found.losses)


def choose(
    statistics: TaskStatistics,
    couplings: Sequence[tuple[str, Coupling]],
    intercept: str,
    smoothness: float,
    on_coupling: Callable[[str, Selection], None] | None = None,
) -> tuple[str, dict[str, Selection]]:
    """The coupling of the least held-out loss, of several, each at its best λ; and what was found of each."""
    found = {}
    for name, coupling in couplings:
        found[name] = choose_strength(statistics, coupling, intercept, smoothness)
        if on_coupling is not None:
            on_coupling(name, found[name])
    return min(found, key=lambda name: found[name].loss), found


def _solved(
    statistics: TaskStatistics, coupling: Coupling, intercept: str, path: Sequence[float]
) -> Iterator[tuple[list[float], Solution]]:
    """Solutions for some strengths at a time, each time from the last one before."""
    quadratics = statistics.without(intercept, _RIDGE)
    near = None
    for first in range(0, len(path), _CHUNK):
        part = list(path[first : first + _CHUNK])
        solution = solve(coupling, quadratics, part, tolerance=_TOLERANCE, near=near)
        near = solution.W[:, -1:]
        yield part, solution
