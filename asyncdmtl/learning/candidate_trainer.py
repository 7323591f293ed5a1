"""Cross-validation and training in one: Newton's steps of all candidates, side by side.

At first all models are 0. Where intercepts are free, the first round finds the intercepts of models without
coefficients. The gradients there give the first λ of each path; under logistic loss they follow from the
first round (`curvature.at_intercepts`), and the next round tells them under other losses. From there on every
candidate descends by itself (`descent`), and each round tells its loss on the rows that its fold holds out.
The run ends when the candidates of all folds are near their optima, and the candidate of all rows under the
best coupling and λ is as near as the run's tolerance asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.elementary import log, log1p, softplus
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.candidates import CandidatesWire, Told, descent_numbers, strengths_of
from asyncdmtl.learning.comparison import Comparison
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.curvature import at_intercepts, log_means
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.newton_trainer import NEAR, NewtonTrainer
from asyncdmtl.learning.outcome import Outcome, outcome_numbers, packed, unpacked
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.statistics_selection import Selection, path_from
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer, models_of_kinds

# What the last step of a fold's candidate may have promised, as a share of its objective, at the end.
_ENOUGH = 1e-4

# And from which share on it takes no more steps.
_REST = 1e-5

# Candidates whose held-out loss is more than this many times the least after so many rounds take no more
# steps, and need not be near their optima.
_HOPELESS, _ROUNDS = 1.1, 6

# The mean loss of a task, under squared hinge loss, that counts as 0.
_NOTHING = 1e-9

# A gradient of a free intercept at 0 that is as large as this share of the largest there can be: one class.
_ONE_CLASS = 1.0 - 1e-9


class CandidateTrainer(NewtonTrainer):
    """A `Trainer` that chooses λ, and perhaps the coupling, on the way.

    Its models are those of all rows under the coupling and λ that are best so far.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        wire = self._wire
        T, d = len(problem.tasks), problem.d
        shape = wire.paths, wire.folds + 1, T, d
        self._models = np.zeros(shape)
        # The first λ of each coupling's path; NaN as long as there is none.
        self._first = np.full(len(problem.couplings), np.nan)
        # Free intercepts that do not change, see `Problem.fixed`; NaN where they do.
        self._fixed = np.full(shape[1:3], np.nan)
        # Mean losses of the rows that each fold holds out, at the best models.
        self._held = np.full((wire.paths, wire.folds), np.nan)
        self._descents: list[Descent] = []
        self._best = 0
        self._comparison = Comparison(problem) if problem.compares else None
        self._local.comparison = self._comparison

    @property
    def _wire(self) -> CandidatesWire:
        wire = self.problem.wire
        assert isinstance(wire, CandidatesWire)
        return wire

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write what partitions tell, see `Trainer.packed_updates`."""
        near = [descent.near(NEAR) for descent in self._descents]
        sharp = np.array(near) if near else np.zeros(self._models.shape[:2], np.bool_)
        self._local.candidates = self._models, sharp
        return Trainer.packed_updates(self, out)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step with each candidate, and see which is the best now.

        Of the workers on one machine, one computes the step, and the others take over its state.

        Raises
        ------
        DataError
            The models outgrow the run's dtype.
        """
        vectors = np.stack([np.asarray(z) for z in (Z(slice(None)) if callable(Z) else Z)])
        self._share(vectors, lambda: self._take(vectors))

    def baselines(self) -> dict[str, TaskModels]:
        """The models to compare with, see `Trainer.baselines`."""
        if self._comparison is None:
            return {}
        return models_of_kinds(self.problem, self._comparison.coefficients())

    def _take(self, vectors: Floats) -> None:
        told = self._wire.told(vectors)
        if self._comparison is not None:
            self._comparison.take(self._wire.comparison(vectors))
        if self._iterate.steps == 0 and self.problem.d > self.problem.coupled:
            self._place_intercepts(told)
            if self.problem.settings.loss != "logistic":
                self.move(self._models[0, 0])
                self._iterate.residual = math.inf
                return
            told = _at_intercepts(told, self._fixed)
        if not self._descents:
            self._set_out(told)
        free = np.isnan(self._fixed)
        losses, gradients = told.losses * free, told.gradients * free[..., None]
        held, hopeful = _held_out(told), self._hopeful()
        for p, descent in enumerate(self._descents):
            rest = np.full(len(free), _REST if hopeful[p] else 1.0)
            if p == self._best:
                rest[0] = self.problem.settings.tolerance
            H = told.H[p] * free[..., None, None]
            self._models[p], better = descent.step(self._models[p], losses[p], gradients[p], H, rest)
            self._held[p] = np.where(better[1:], held[p], self._held[p])
        self._choose()
        self.zeros.note(
            self.W,
            lambda: gradients[self._best, 0, :, : self.problem.coupled],
            self._descents[self._best].coupling,
        )

    def penalty(self) -> float:
        """`λ R(W)`."""
        coupling = self._descents[self._best].coupling if self._descents else self.problem.coupling
        return coupling.penalty(self.W.astype(np.float64)[:, : self.problem.coupled])

    def state_parts(self) -> list[Bytes]:
        """The parts of what another process needs to continue from here, `problem.state_bytes` bytes."""
        told = packed(self.outcome, self.problem.settings)
        own = [told, self._first, np.array([float(self._best)]), self._models, self._held, self._fixed]
        descents = [descent.state() for descent in self._descents] or [self._nothing()]
        compared = [] if self._comparison is None else [self._comparison.state()]
        flat = np.concatenate([np.ravel(part) for part in (*own, *descents, *compared)])
        return [*Trainer.state_parts(self), flat.view(np.uint8)]

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        told, flat = np.split(self._numbers_of(state), [outcome_numbers(self.problem.settings)])
        outcome = unpacked(told, self.problem.settings)
        sizes = [len(self._first), 1, self._models.size, self._held.size, self._fixed.size]
        first, best, models, held, fixed, rest = np.split(flat, np.cumsum(sizes))
        rest, compared = np.split(rest, [len(self._nothing())])
        if not (np.isfinite(models).all() and best[0] in range(self._wire.paths)):
            raise UsageError("state", "must be finite and in range", "not a number")
        if not (np.isnan(first).all() or (np.isfinite(first) & (first >= 0.0)).all()):
            raise UsageError("state", "must have strengths that are at least 0", first.tolist())
        self.outcome = outcome
        self._first, self._best = first.copy(), int(best[0])
        self._models, self._held = (
            models.reshape(self._models.shape).copy(),
            held.reshape(self._held.shape).copy(),
        )
        self._fixed = fixed.reshape(self._fixed.shape).copy()
        self._descents = [] if np.isnan(first).any() else list(self._made())
        for descent, numbers in zip(self._descents, np.split(rest, self._wire.paths), strict=False):
            descent.restore(numbers)
        if self._comparison is not None:
            self._comparison.restore(compared)
        Trainer.restore(self, state[: self.problem.iterate_bytes])

    def _nothing(self) -> Floats:
        return np.zeros(self._wire.paths * descent_numbers(self._models.shape[1:]))

    def _place_intercepts(self, told: Told) -> None:
        """Give all candidates the best models without coefficients, by what was told at models of 0."""
        slopes, pull = told.gradients[0, ..., -1], told.H[0, ..., -1, -1]
        if self.problem.loss.counts:
            intercepts, nothing = log_means(slopes, told.shares * self._weights())
            self._fixed = np.where(nothing, intercepts, np.nan)
        elif self.problem.settings.loss != "logistic":
            intercepts = -slopes / np.where(pull > 0.0, pull, 1.0)
        else:
            one_class = np.abs(slopes) >= 0.5 * _ONE_CLASS
            odds = (0.5 - slopes) / np.where(one_class, 1.0, 0.5 + slopes)
            far = log1p(told.shares * self._weights())
            intercepts = np.where(
                one_class, np.where(slopes < 0.0, far, -far), log(np.where(one_class, 1.0, odds))
            )
            self._fixed = np.where(one_class, intercepts, np.nan)
        self._models[..., -1] = intercepts

    def _weights(self) -> Floats:
        """The weight (T,) of the rows of each task."""
        return np.array([total(self.problem.weights[list(S)]) for S in self.problem.partitions_of])

    def _set_out(self, told: Told) -> None:
        """Find the paths, and let all candidates begin."""
        if not _holds_out(told).any():
            raise DataError("partitions", "need a task of two rows to choose λ by cross-validation", 1)
        free = np.isnan(self._fixed[0])
        gradients = told.gradients[0, 0, :, : self.problem.coupled] * free[:, None]
        smoothness = 1.0 / self.problem.step_lengths[0]
        self._first = np.array(
            [coupling.critical_strength(gradients, smoothness) for _, coupling in self.problem.couplings]
        )
        self._descents = list(self._made())

    def _made(self) -> Iterator[Descent]:
        shape = self._models.shape[1], self._models.shape[2], self._models.shape[3]
        for name, strength in self._candidates():
            coupling = self.problem.make_coupling(name, strength)
            yield Descent(coupling, shape, self.problem.coupled, self._fixed, self._floor(coupling))

    def _floor(self, coupling: Coupling) -> float:
        """The objective that is low enough, whatever the least is: it may be 0 for separated rows."""
        hinge = self.problem.settings.loss == "squared_hinge"
        return _NOTHING * len(self.problem.tasks) if hinge else self.problem.separation(coupling)

    def _candidates(self) -> Iterator[tuple[str, float]]:
        """Coupling and λ of each path, in order."""
        for (name, _), first in zip(self.problem.couplings, self._first.tolist(), strict=True):
            count = strengths_of(name)
            path = (list(path_from(first)) * count)[:count]
            yield from ((name, strength) for strength in path)

    def _hopeful(self) -> NDArray[np.bool_]:
        """Which paths (P,) may still be the best."""
        if self._iterate.steps < _ROUNDS:
            return np.ones(len(self._held), np.bool_)
        known = self._held[:, ~np.isnan(self._held[0])]
        hopeful: NDArray[np.bool_] = total(known, 1) <= _HOPELESS * total(known, 1).min(initial=math.inf)
        return hopeful

    def _choose(self) -> None:
        """Take the models of all rows under the best coupling and λ."""
        candidates = list(self._candidates())
        selections, begin = {}, 0
        for name, _ in self.problem.couplings:
            part = slice(begin, begin + strengths_of(name))
            begin = part.stop
            strengths = np.array([strength for _, strength in candidates[part]])
            losses = self._held[part]
            if np.isnan(losses).all():
                losses = np.zeros_like(losses)
            found = Selection(0.0, strengths, losses)
            at = int(np.argmin(found.means))
            selections[name] = Selection(float(strengths[at]), strengths, losses)
        name = min(selections, key=lambda each: selections[each].loss)
        self._best = candidates.index((name, selections[name].strength))
        descent = self._descents[self._best]
        gap = float(descent.promised[0] + descent.gap[0])
        near = np.array([each.near(_ENOUGH)[1:].all() for each in self._descents])
        ended = near[self._hopeful()].all() and (self._comparison is None or self._comparison.near)
        low = descent.objective[0] <= self._floor(descent.coupling)
        self._iterate.residual = math.inf if not ended else 0.0 if low else self._residual_of(descent)
        residual = self._iterate.residual
        self.move(self._models[self._best, 0])
        if not math.isfinite(residual):
            self._iterate.residual = residual
        strength, objective = selections[name].strength, float(descent.objective[0])
        kind = self.problem.settings.choices[0].intercept
        self.outcome = Outcome(name, strength, objective, gap, selections, kind)


def _at_intercepts(told: Told, fixed: Floats) -> Told:
    """What is told at the best intercepts, by what was told at models of 0; `fixed` is (K, T)."""
    paths = len(told.losses)
    shares = 0.5 - told.gradients[0, ..., -1]
    intercepts, losses, gradients, H = at_intercepts(told.gradients[0], told.H[0], fixed)
    left_out = 1.0 - told.shares
    some = left_out > 0.0
    of_held = np.where(some, shares[0] - told.shares * shares, 0.0) / np.where(some, left_out, 1.0)
    held = np.where(some, softplus(intercepts) - of_held * intercepts, 0.0)
    parts = (np.broadcast_to(part, (paths, *part.shape)) for part in (losses, held, gradients, H))
    return Told(told.shares, *parts)


def _held_out(told: Told) -> Floats:
    """The mean loss (P, folds) of the rows that each fold holds out, averaged over tasks; NaN without."""
    counted = _holds_out(told)
    tasks = counted.sum(axis=1)
    added = total(np.where(counted, told.held[:, 1:], 0.0), 2)
    means: Floats = np.where(tasks > 0, added / np.maximum(tasks, 1), np.nan)
    return means


def _holds_out(told: Told) -> NDArray[np.bool_]:
    """Whether (folds, T) a fold holds out rows of a task: it must have some, and leave some."""
    shares = told.shares[1:]
    holds_out: NDArray[np.bool_] = (shares > 0.0) & (shares < 1.0)
    return holds_out
