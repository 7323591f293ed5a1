"""Steps of second order for several data sets of the same tasks, under one coupling and one λ.

Each step solves the coupled problem of a quadratic model of every task's loss; the penalty is not
approximated. A step is full. If the next round shows that it did not lower the objective, models go back
along it, to where losses and slopes at both ends say that the objective is least; no partition tells anything
twice. Reference: Lee, Sun, Saunders, "Proximal Newton-type Methods for Minimizing Composite Functions", SIAM
J. Optim. 24(3), 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.quadratic import column_shares, quadratic_terms
from asyncdmtl.learning.second_derivatives import SecondDerivatives

# The share of the largest second derivative that is added to the diagonal, so that models do not move in
# directions in which the data have no variance; less for far smaller columns (`column_shares`).
_RIDGE = 1e-9

# Losses count as flat if second derivatives are below this: separable classes have no minimum, and quotients
# of such numbers would overflow.
_FLAT = 1e-60

# The accuracy of the solution of a quadratic problem: as a share of the decrease that the last step
# predicted, and at least as a share of the objective.
_SHARE, _LEAST = 1e-2, 1e-13

# A gap of less than this share of the objective is rounding.
_EXACT = 1e-12

# Positions on a failed step at which the cubic is evaluated: the longest, the ratio of each to the one
# before, and the shortest, as shares of the step.
_LONGEST, _SHORTER, _SHORTEST = 0.9, 0.9, 1e-3

# An increase of the objective by less than this fraction is rounding, and counts as none.
_ROUNDING = 1e-13


class Place(NamedTuple):
    """What `K` data sets told at some models.

    Attributes
    ----------
    models : (K, T, d) float64 array
    losses, gradients : (K, T) and (K, T, d) float64 arrays
        Those of tasks.
    """

    models: Floats
    losses: Floats
    gradients: Floats


class Verdict(NamedTuple):
    """Which of `K` data sets have come to better models; (K,) bool arrays but for the last.

    Attributes
    ----------
    better, worse : (K,) bool arrays
        Whose models are the best so far, and whose are not; neither for those that rest.
    wanted : (K,) bool array
        Of which the second derivatives may be used.
    penalties : (K,) float64 array
        Those of the models, 0 for data sets that rest.
    """

    better: NDArray[np.bool_]
    worse: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    penalties: Floats


class Descent:
    """The descent of `K` data sets, each as if it were alone.

    Parameters
    ----------
    coupling : Coupling
        With its λ.
    shape : (int, int, int)
        `K`, tasks and numbers of a model.
    coupled : int
        Numbers of a model that the coupling sees; one more is a free intercept. An attribute, too.
    fixed : (K, T) float64 array
        Free intercepts that do not change; NaN where they do. An attribute, too.
    floor : float
        An objective that is low enough, whatever the least is.

    Attributes
    ----------
    best : (K, T, d) float64 array
        The models with the least objective so far.
    losses, gradients : (K, T) and (K, T, d) float64 arrays
        There.
    objective : (K,) float64 array
        There; infinite before the first step.
    promised : (K,) float64 array
        By how much the last step was to lower the objective, or might have if solved exactly.
    gap : (K,) float64 array
        How far the quadratic problem of that step was from its least.
    """

    def __init__(
        self, coupling: Coupling, shape: tuple[int, int, int], coupled: int, fixed: Floats, floor: float = 0.0
    ) -> None:
        K, T, d = shape
        self.coupling = coupling
        self.best, self.losses, self.gradients = np.zeros((K, T, d)), np.zeros((K, T)), np.zeros((K, T, d))
        self.objective, self.promised, self.gap = (np.full(K, np.inf) for _ in range(3))
        self.coupled, self.fixed, self._floor = coupled, fixed, floor

    def step(
        self,
        here: Floats,
        losses: Floats,
        gradients: Floats,
        H: SecondDerivatives,
        rest: Floats | None = None,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Take a step with every data set.

        Parameters
        ----------
        here : (K, T, d) float64 array
        losses, gradients : (K, T) and (K, T, d) float64 arrays
            Those of tasks at `here`.
        H : SecondDerivatives
            Of the losses there; anything for data sets that `wants` none.
        rest : (K,) float64 array, optional
            Data sets whose last step promised at most this share of the objective take no more.

        Returns
        -------
        following : (K, T, d) float64 array
            The models to go to.
        better : (K,) bool array
            Which of the models `here` are the best so far.
        """
        share = np.zeros(len(here)) if rest is None else rest
        place = Place(here, losses, gradients)
        verdict = self.judge(place, share)
        return self.go_on(place, verdict, H, share), verdict.better

    def judge(self, place: Place, rest: Floats) -> Verdict:
        """The first half of `step`: see whether models are better, and keep those that are."""
        here, losses, gradients = place
        wanted, worse = self.wants(rest), ~self.rests(here, rest)
        go, better = np.flatnonzero(worse), np.zeros(len(here), np.bool_)
        penalties, value = np.zeros(len(here)), np.full(len(here), np.inf)
        penalties[go] = self.coupling.penalties(here[go, :, : self.coupled])
        value[go] = total(losses[go], 1) + penalties[go]
        with np.errstate(invalid="ignore"):
            better[go] = value[go] <= self.objective[go] + _ROUNDING * np.abs(self.objective[go])
        worse &= ~better
        on = np.flatnonzero(better)
        self.best[on], self.objective[on] = here[on], value[on]
        self.losses[on], self.gradients[on] = losses[on], gradients[on]
        return Verdict(better, worse, wanted, penalties)

    def go_on(self, place: Place, verdict: Verdict, H: SecondDerivatives, rest: Floats) -> Floats:
        """The second half of `step`: the models to go to. `rest` is no less than that of the first half."""
        here, losses, gradients = place
        better, worse, wanted, penalties = verdict
        following = here.copy()
        for k in np.flatnonzero(worse):
            if math.isfinite(total(losses[k], 0) + penalties[k]):
                following[k] = self._between(int(k), here[k], losses[k], gradients[k])
            else:
                following[k] = self.best[k] + 0.1 * (here[k] - self.best[k])
        flat = np.abs(H.diagonals[:, :, : self.coupled]).max(axis=(1, 2), initial=0.0) < _FLAT
        flat &= better & wanted
        self.promised[flat] = self.gap[flat] = 0.0
        on = np.flatnonzero(better & wanted & ~(self.near(rest) | flat))
        if len(on):
            following[on] = self._solved(on, H.of(on), rest[on], penalties[on])
        return following

    def rests(self, here: Floats, rest: Floats) -> NDArray[np.bool_]:
        """Which data sets (K,) `step` leaves `here`, whatever is told of them."""
        rests: NDArray[np.bool_] = self.near(rest) & (here == self.best).all(axis=(1, 2))
        return rests

    def wants(self, rest: Floats) -> NDArray[np.bool_]:
        """Of which data sets (K,) `step` may use the second derivatives."""
        begun = np.isfinite(self.objective)
        wants: NDArray[np.bool_] = ~begun | (
            self.promised > rest * np.where(begun, np.abs(self.objective), 0.0)
        )
        return wants

    def near(self, share: float | Floats) -> NDArray[np.bool_]:
        """Whether (K,) the last step promised at most this share of the objective, or that is low enough."""
        begun = np.isfinite(self.objective)
        little = self.promised <= share * np.where(begun, np.abs(self.objective), 0.0)
        near: NDArray[np.bool_] = begun & (little | (self.objective <= self._floor))
        return near

    def state(self) -> Floats:
        """All that changes, as one vector of `candidates.descent_numbers` numbers."""
        return np.concatenate([np.ravel(part) for part in self._parts()])

    def restore(self, state: Floats) -> None:
        """Continue from what `state` returned; UsageError if a number is out of range."""
        models = self.best.size + self.losses.size + self.gradients.size
        if np.isnan(state).any() or not np.isfinite(state[:models]).all():
            raise UsageError("state", "must be finite and in range", "not a number")
        ends = np.cumsum([part.size for part in self._parts()])
        for part, numbers in zip(self._parts(), np.split(state, ends[:-1]), strict=True):
            part[...] = numbers.reshape(part.shape)

    def _parts(self) -> tuple[Floats, ...]:
        return self.best, self.losses, self.gradients, self.objective, self.promised, self.gap

    def _solved(self, on: Indices, H: SecondDerivatives, rest: Floats, penalties: Floats) -> Floats:
        """The models at which the quadratic models of all losses, with the penalty, are least.

        `penalties` are those of the models from which the step goes.
        """
        C, here, gradients = self.coupled, self.best[on], self.gradients[on]
        sizes = np.abs(H.diagonals)
        A, g = H, gradients
        share = slope = np.zeros(here.shape[:2])
        if free := here.shape[2] > C:
            # An intercept that no coupling touches is at its best, whatever the others are.
            (pull, row), slope = H.intercepts, gradients[:, :, C]
            firm = pull > 1e-12 * (1e-300 + sizes.max(axis=2))
            share = np.where(firm, 1.0, 0.0) / np.where(firm, pull, 1.0)
            A = H.eliminated(share)
            g = gradients[:, :, :C] - (share * slope)[..., None] * row
        # Not of `A`: if a single row has curvature, that is a rounding error about 0.
        sizes = sizes[:, :, :C].max(axis=1, initial=0.0)
        scale = np.maximum(sizes.max(axis=1, initial=0.0), _FLAT)
        ridge = _RIDGE * scale[:, None] * column_shares(sizes)
        A = A.plus(ridge[:, None])
        w = np.ascontiguousarray(here[:, :, :C])
        b = A.times(w[:, None])[:, 0] - g
        c = np.maximum(total(b * A.solved(b), 2), 0.0)
        quadratics = quadratic_terms(A, b, c)
        size = np.abs(self.objective[on])
        enough = np.maximum(
            np.maximum(_LEAST, _SHARE * rest) * size, _SHARE * np.minimum(self.promised[on], size)
        )
        solution = solve(
            self.coupling, quadratics, [self.coupling.strength],
            tolerance=0.0, enough=enough, near=w[:, None],
        )  # fmt: skip
        following = here.copy()
        following[:, :, :C] = solution.W[:, 0]
        if free:
            moved = following[:, :, :C] - w
            intercepts = here[:, :, C] - share * (slope + total(row * moved, 2))
            fixed = self.fixed[on]
            following[:, :, C] = np.where(np.isnan(fixed), intercepts, fixed)
        before = quadratics.value(w[:, None])[:, 0] + penalties
        gained = 0.5 * total(share * slope * slope, 1)
        gap = np.maximum(solution.gap[:, 0], 0.0)
        # A start that is nearly the solution may be taken for it. If so, a more exact one comes next.
        unknown = np.where(gap > _EXACT * size, gap, 0.0)
        self.promised[on] = np.maximum(before - solution.value[:, 0], unknown) + gained
        self.gap[on] = gap
        return following

    def _between(self, k: int, there: Floats, losses: Floats, gradients: Floats) -> Floats:
        """Models on the way from the best to those that turned out worse, where the objective is least.

        The losses between are those of cubics with the values and slopes of both ends.
        """
        way = there - self.best[k]
        slopes = [float(total((way * part).reshape(-1), 0)) for part in (self.gradients[k], gradients)]
        ends = [float(total(part, 0)) for part in (self.losses[k], losses)]
        best, least, s = _SHORTEST, math.inf, _LONGEST
        while s > _SHORTEST:
            models = self.best[k] + s * way
            value = _cubic(s, ends, slopes) + self.coupling.penalty(models[:, : self.coupled])
            if value < least:
                best, least = s, value
            s *= _SHORTER
        between: Floats = self.best[k] + best * way
        return between


def _cubic(s: float, ends: Sequence[float], slopes: Sequence[float]) -> float:
    """Hermite's cubic with values and slopes at 0 and 1."""
    t = 1.0 - s
    return (
        (1.0 + 2.0 * s) * t * t * ends[0]
        + s * t * t * slopes[0]
        + s * s * (3.0 - 2.0 * s) * ends[1]
        - s * s * t * slopes[1]
    )
