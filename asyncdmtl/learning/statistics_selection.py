"""The choice of λ, and of the coupling, by cross-validation on the statistics of folds, without rows.

Every worker has the statistics of all tasks, and makes the same choice, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arithmetic.sums import mean, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError
from asyncdmtl.learning.coupled import Solution, solve
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.settings import Choice
from asyncdmtl.learning.statistics import TaskStatistics

# The relative distance from the optimum at which a fit ends: small enough to rank neighbouring values of λ.
_TOLERANCE = 1e-4

# The fraction of a diagonal that is added to it, since statistics of folds have single precision.
_RIDGE = 1e-6

# The ratio of each λ of a path to the one before it: 10^(−1/3), so that three steps are a factor of ten.
_RATIO = 0.46415888336127786

# The number of strengths that are solved together. With more, many would lie beyond the end of the path.
_STRENGTHS_AT_A_TIME = 4

MAX_STRENGTHS = 20
"""The most strengths of a path: they cover a factor of about 10^6.5."""

# A path ends after this number of strengths in a row without improvement.
_STRENGTHS_WITHOUT_GAIN = 3

# The fraction by which a held-out loss must fall to count as an improvement, once λ has had an effect.
_GAIN = 1e-3

# λ has had an effect once the best loss is below the first loss of the path by this fraction. A path begins
# at a λ so large that the coupling alone determines the models.
_EFFECT = 1e-2


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of cross-validation for one coupling.

    Attributes
    ----------
    strength : float
        The λ with the smallest mean held-out loss.
    strengths : (count,) float64 array
        All strengths that were tried, descending.
    losses : (count, folds) float64 array
        The mean loss per held-out row, averaged over tasks, for each strength and fold; NaN for a fold
        without held-out rows.
    """

    strength: float
    strengths: Floats
    losses: Floats

    @property
    def means(self) -> Floats:
        """The mean loss over the folds, for each strength (count,)."""
        return mean(self._known, 1)

    @property
    def loss(self) -> float:
        """The mean held-out loss at `strength`, which is the smallest."""
        return float(self.means.min())

    @property
    def errors(self) -> Floats:
        """Standard errors (count,) of the means; 0 if there is a single fold."""
        known = self._known
        n = known.shape[1]
        if n < 2:
            return np.zeros(len(known))
        offsets = known - mean(known, 1)[:, None]
        errors: Floats = np.sqrt(total(offsets * offsets, 1) / (n * (n - 1)))
        return errors

    @property
    def parsimonious(self) -> float:
        """The largest λ whose mean loss is within one standard error of the smallest."""
        at = int(np.argmin(self.means))
        within = self.means <= self.means[at] + self.errors[at]
        return float(self.strengths[within].max())

    def gain_over(self, other: Selection) -> tuple[float, float]:
        """How much smaller the least loss is than that of `other`, and the standard error over the folds."""
        own, theirs = (each.losses[int(np.argmin(each.means))] for each in (self, other))
        pairs = ~(np.isnan(own) | np.isnan(theirs))
        gains = (theirs - own)[pairs][None]
        of_pairs = Selection(0.0, np.zeros(1), gains)
        return float(of_pairs.means[0]), float(of_pairs.errors[0])

    @property
    def _known(self) -> Floats:
        return self.losses[:, ~np.isnan(self.losses[0])]


def path_from(first: float) -> Sequence[float]:
    """Descending strengths that begin at `first`, three for each factor of ten; only `first` if it is 0."""
    strengths = [first]
    while len(strengths) < MAX_STRENGTHS and first > 0.0:
        strengths.append(strengths[-1] * _RATIO)
    return strengths


def is_over(means: Floats) -> bool:
    """Whether the path ends, given the mean losses of the strengths tried so far."""
    before, least = means[:-_STRENGTHS_WITHOUT_GAIN], float(means.min())
    if not len(before):
        return False
    limit = least * (1.0 + _GAIN) if means[0] > least * (1.0 + _EFFECT) else least
    return bool(before.min() <= limit)


def choose_strength(
    statistics: TaskStatistics,
    coupling: Coupling,
    intercept: str,
    smoothness: float,
    strengths: Sequence[float] | None = None,
) -> Selection:
    """Choose λ for one coupling by cross-validation, along a descending path of strengths.

    Parameters
    ----------
    statistics : TaskStatistics
        Statistics of all tasks, with folds.
    coupling : Coupling
        The coupling; its own strength is ignored.
    intercept : str
        A name in `settings.INTERCEPTS`.
    smoothness : float
        The argument of `Coupling.critical_strength`, where the path begins.
    strengths : sequence of float, optional
        The strengths to try, all of them. Default: `path_from` the critical strength until `is_over`.

    Raises
    ------
    DataError
        No fold holds out any row.
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
    choices: Sequence[tuple[Choice, Coupling]],
    smoothness: float,
) -> tuple[Choice, dict[Choice, Selection]]:
    """The coupling and intercept with the smallest held-out loss at the best λ, and the result for each.

    All couplings are tried with the first kind of intercept, and the best of them with the other kinds: which
    coupling suits the tasks depends little on the intercept, and each path takes seconds for 140 tasks.
    """
    first = choices[0][0].intercept
    found: dict[Choice, Selection] = {}
    for others in (False, True):
        best = min(found, key=lambda choice: found[choice].loss, default=None)
        for choice, coupling in choices:
            if (choice.intercept != first) == others and (best is None or choice.coupling == best.coupling):
                found[choice] = choose_strength(statistics, coupling, choice.intercept, smoothness)
    return min(found, key=lambda choice: found[choice].loss), found


def _solved(
    statistics: TaskStatistics, coupling: Coupling, intercept: str, path: Sequence[float]
) -> Iterator[tuple[list[float], Solution]]:
    """Solutions for a few strengths at a time, each started from the last solution before."""
    quadratics = statistics.without(intercept, _RIDGE)
    near = None
    for first in range(0, len(path), _STRENGTHS_AT_A_TIME):
        part = list(path[first : first + _STRENGTHS_AT_A_TIME])
        solution = solve(coupling, quadratics, part, tolerance=_TOLERANCE, near=near)
        near = solution.W[:, -1:]
        yield part, solution
