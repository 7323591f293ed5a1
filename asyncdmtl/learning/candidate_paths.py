"""The candidates of a run that chooses by Newton's steps: their couplings, intercepts and values of λ.

There is a path of λ for each coupling, with the first kind of intercept. If the run chooses the intercept
too, the coupling that is best so far has one more path, with a penalised intercept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.candidates import strengths_of
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Choice
from asyncdmtl.learning.statistics_selection import Selection, path_from

# The mean loss of a task, under squared hinge loss, that counts as 0.
_NOTHING = 1e-9


class Path(NamedTuple):
    """A coupling and a kind of intercept, with descending values of λ and their places among candidates."""

    choice: Choice
    strengths: Floats
    places: slice


class CandidatePaths:
    """The paths of a problem, as far as they are known.

    Attributes
    ----------
    first : (kinds, couplings) float64 array
        The first λ of each coupling, for each kind of intercept; NaN as long as there is none.
    second : int
        The position of the coupling that has a path with a penalised intercept too; −1 before there is one.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.first = np.full((len(problem.candidate_intercepts), len(problem.couplings)), np.nan)
        self.second = -1

    @property
    def tries_second(self) -> bool:
        """Whether a penalised intercept is tried too."""
        return len(self.first) > 1

    def begin(self, kind: int, gradients: Floats) -> None:
        """Find the first λ of a kind of intercept, by the gradients (T, coupled) without coefficients."""
        smoothness = 1.0 / self._problem.step_lengths[0]
        couplings = self._problem.couplings
        self.first[kind] = [coupling.critical_strength(gradients, smoothness) for _, coupling in couplings]

    def known(self) -> list[Path]:
        """All paths, in the order of the candidates."""
        if np.isnan(self.first[0]).any():
            return []
        names, kinds = [name for name, _ in self._problem.couplings], self._problem.candidate_intercepts
        made, end = [], 0
        wanted = [(0, at) for at in range(len(names))]
        # An intercept that no penalty touches is the same as a free one.
        if self.second >= 0 and names[self.second] != "none":
            wanted.append((1, self.second))
        for kind, at in wanted:
            count = strengths_of(names[at])
            strengths = (list(path_from(float(self.first[kind, at]))) * count)[:count]
            choice = Choice(names[at], kinds[kind])
            made.append(Path(choice, np.array(strengths), slice(end, end := end + count)))
        return made

    def follow(self, held: Floats) -> Indices | None:
        """Try the coupling that is best by these held-out losses with a penalised intercept.

        Returns
        -------
        For each candidate, the place of the one whose models it goes on from; None if nothing changes.
        """
        paths = self.known()[: self.first.shape[1]]
        leading = int(np.argmin([_selected(path, held).loss for path in paths]))
        if leading == self.second:
            return None
        self.second = leading
        own, end = paths[leading], paths[-1].places.stop
        sources = list(range(end))
        for path in self.known()[len(paths) :]:
            # The nearest λ, by their ratio.
            ratios = np.maximum(path.strengths[:, None], 1e-300) / np.maximum(own.strengths, 1e-300)
            sources += (own.places.start + np.argmin(np.maximum(ratios, 1.0 / ratios), axis=1)).tolist()
        return np.array(sources)

    def descents(self, shape: tuple[int, int, int], fixed: Floats) -> list[Descent]:
        """A descent for each candidate; `fixed` are the free intercepts that do not change."""
        problem, made = self._problem, []
        for (name, intercept), strengths, _ in self.known():
            free = intercept == "free"
            for strength in strengths.tolist():
                coupling = problem.make_coupling(name, strength)
                held = fixed if free else np.full_like(fixed, np.nan)
                coupled = problem.features if free else problem.d
                made.append(Descent(coupling, shape, coupled, held, self.floor(coupling)))
        return made

    def floor(self, coupling: Coupling) -> float:
        """The objective that is low enough, whatever the least is: it may be 0 for separated rows."""
        hinge = self._problem.settings.loss == "squared_hinge"
        return _NOTHING * len(self._problem.tasks) if hinge else self._problem.separation(coupling)

    def selected(self, held: Floats) -> tuple[int, Choice, Mapping[str, Selection]]:
        """The place of the best candidate, its coupling and intercept, and the results by `name_of`."""
        paths = self.known()
        found = [_selected(path, held) for path in paths]
        at = int(np.argmin([each.loss for each in found]))
        place = paths[at].places.start + int(np.argmin(found[at].means))
        name_of = self._problem.settings.name_of
        return place, paths[at].choice, {name_of(p.choice): s for p, s in zip(paths, found, strict=True)}

    def state(self) -> Floats:
        """All that changes, as one vector."""
        return np.append(self.first.reshape(-1), float(self.second))

    def restore(self, state: Floats) -> None:
        """Continue from what `state` returned; UsageError if a number is out of range."""
        first, second = state[:-1].reshape(self.first.shape).copy(), state[-1]
        known = ~np.isnan(first)
        if (known != known[:, :1]).any() or not (np.isfinite(first) & (first >= 0.0))[known].all():
            raise UsageError("state", "must have strengths that are at least 0", first.tolist())
        if second not in range(-1, first.shape[1] if self.tries_second and known.all() else 0):
            raise UsageError(
                "state", "must have a coupling that is tried with both intercepts", float(second)
            )
        self.first, self.second = first, int(second)


def _selected(path: Path, held: Floats) -> Selection:
    """The result of a path, by the losses (candidates, folds) of held-out rows."""
    losses = held[path.places]
    if np.isnan(losses).all():
        losses = np.zeros_like(losses)
    found = Selection(0.0, path.strengths, losses)
    return Selection(float(path.strengths[int(np.argmin(found.means))]), path.strengths, losses)
