"""Cross-validation and training in one: Newton's steps of all candidates, side by side.

At first all models are 0. Where intercepts are free, the first round finds the intercepts of models without
coefficients. The gradients there give the first λ of each path; under logistic loss they follow from the
first round (`curvature.at_intercepts`), and the next round tells them under other losses. From there on every
candidate descends by itself (`descent`), and each round tells its loss on the rows that its fold holds out.
The run ends when the candidates of all folds are near their optima, and the candidate of all rows under the
best coupling and λ is as near as the run's tolerance asks.

If the run chooses the intercept too, the best coupling is also tried with a penalised one: from the third
round on there are candidates of it, which begin at the models of those with a free intercept. They begin
again if another coupling becomes the best. Nothing is fixed for them: the coupling determines the intercept
of a task of one class, which has no best one if it is free. Both kinds are judged by the same held-out rows
of all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.elementary import log, log1p, softplus
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arithmetic.triangles import upper
from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.candidate_paths import CandidatePaths
from asyncdmtl.learning.candidates import CandidatesWire, Told, descent_numbers
from asyncdmtl.learning.curvature import at_intercepts, log_means
from asyncdmtl.learning.descent import Descent, Place
from asyncdmtl.learning.held_out import HeldOut, held_out, holds_out
from asyncdmtl.learning.newton_trainer import NEAR, NewtonTrainer
from asyncdmtl.learning.outcome import Outcome, outcome_numbers, packed, unpacked
from asyncdmtl.learning.parallel import in_parallel
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.second_derivatives import Whole
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

# A fold's candidate takes no more steps once the last one promised less than this share of its objective.
# Near the optimum the next one would promise about the square of it.
_ENOUGH = 1e-4

# The steps after which candidates with a penalised intercept begin: held-out losses then tell which coupling
# is likely to be the best.
_TRIED_TOO = 2

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
        self._paths = CandidatePaths(problem)
        # Free intercepts that do not change, see `Problem.fixed`; NaN where they do.
        self._fixed = np.full(shape[1:3], np.nan)
        self._held = HeldOut(wire.paths, wire.folds)
        self._descents: list[Descent] = []
        self._best = 0

    @property
    def _wire(self) -> CandidatesWire:
        wire = self.problem.wire
        assert isinstance(wire, CandidatesWire)
        return wire

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write what partitions tell, see `Trainer.packed_updates`."""
        sharp, active, curved = np.zeros((3, *self._models.shape[:2]), np.bool_)
        # At first all candidates have the same models.
        active[0] = curved[0] = not self._descents
        for p, (descent, rest) in enumerate(zip(self._descents, self._rests(), strict=True)):
            sharp[p], active[p] = descent.near(NEAR), ~descent.rests(self._models[p], rest)
            curved[p] = descent.wants(rest)
        self._local.candidates = self._models, sharp, active, curved
        self._local.fixes = self._fixes
        return Trainer.packed_updates(self, out)

    def losses(self) -> Floats:
        """The losses at the models, see `Trainer.losses`."""
        self._local.fixes = self._fixes
        return super().losses()

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

    def _take(self, vectors: Floats) -> None:
        told = self._wire.told(vectors)
        if self._comparison is not None:
            self._comparison.take(self._wire.comparison(vectors))
        if self._iterate.steps == 0 and self.problem.d > self.problem.coupled:
            if self._paths.tries_second:
                self._paths.begin(1, told.gradients[0, 0])
            self._place_intercepts(told)
            if self.problem.settings.loss != "logistic":
                self.move(self._models[0, 0])
                self._iterate.residual = math.inf
                return
            told = _at_intercepts(told, self._fixed)
        if not self._descents:
            told = Told(told.shares, *(np.broadcast_to(part[:1], part.shape) for part in told[1:]))
            self._set_out(told)
        self._descend_all(told)
        if self._paths.tries_second and self._iterate.steps >= _TRIED_TOO:
            self._follow()
        self._choose()
        best = self._descents[self._best]
        self.zeros.note(self.W, lambda: best.gradients[0][:, : best.coupled], best.coupling)

    def _descend_all(self, told: Told) -> None:
        """Take a step with each candidate, given what all tasks told at its models."""
        held, rests = held_out(told), self._rests()
        places, verdicts = [], []
        for p, (descent, rest) in enumerate(zip(self._descents, rests, strict=True)):
            free = np.isnan(descent.fixed)
            places.append(Place(self._models[p], told.losses[p] * free, told.gradients[p] * free[..., None]))
            verdicts.append(descent.judge(places[p], rest))
            self._held.note(p, held[p], verdicts[p].better[1:])
        # Now that held-out losses are known, more candidates may be without hope; those that were rest on.
        rests = [np.maximum(*both) for both in zip(rests, self._rests(), strict=True)]

        def descend(p: int) -> None:
            descent, verdict = self._descents[p], verdicts[p]
            if not (verdict.better | verdict.worse).any():
                return
            H = told.second_derivatives(p)
            H[~np.isnan(descent.fixed)] = 0.0
            self._models[p] = descent.go_on(places[p], verdict, Whole(H), rests[p])

        in_parallel(descend, range(len(self._descents)), told.triangles[0].size)

    def penalty(self) -> float:
        """`λ R(W)`."""
        if not self._descents:
            return self.problem.coupling.penalty(self.W.astype(np.float64)[:, : self.problem.coupled])
        best = self._descents[self._best]
        return best.coupling.penalty(self.W.astype(np.float64)[:, : best.coupled])

    def state_parts(self) -> list[Bytes]:
        """The parts of what another process needs to continue from here, `problem.state_bytes` bytes."""
        told = packed(self.outcome, self.problem.settings)
        best = np.array([float(self._best)])
        own = [told, self._paths.state(), best, self._models, self._held.state(), self._fixed]
        descents = [descent.state() for descent in self._descents]
        descents.append(self._nothing()[sum(map(len, descents)) :])
        compared = [] if self._comparison is None else [self._comparison.state()]
        flat = np.concatenate([np.ravel(part) for part in (*own, *descents, *compared)])
        return [*Trainer.state_parts(self), flat.view(np.uint8)]

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        told, flat = np.split(self._numbers_of(state), [outcome_numbers(self.problem.settings)])
        outcome = unpacked(told, self.problem.settings)
        sizes = [len(self._paths.state()), 1, self._models.size, len(self._held.state()), self._fixed.size]
        paths, best, models, held, fixed, rest = np.split(flat, np.cumsum(sizes))
        rest, compared = np.split(rest, [len(self._nothing())])
        self._paths.restore(paths)
        candidates = max((path.places.stop for path in self._paths.known()), default=1)
        if not (np.isfinite(models).all() and best[0] in range(candidates)):
            raise UsageError("state", "must be finite and in range", "not a number")
        self.outcome = outcome
        self._best = int(best[0])
        self._held.restore(held)
        self._models = models.reshape(self._models.shape).copy()
        self._fixed = fixed.reshape(self._fixed.shape).copy()
        self._descents = self._paths.descents(self._shape, self._fixed)
        if rest[len(self._descents) * descent_numbers(self._shape) :].any():
            raise UsageError("state", "must be 0 for candidates that have not begun", "other numbers")
        for descent, numbers in zip(self._descents, np.split(rest, self._wire.paths), strict=False):
            descent.restore(numbers)
        if self._comparison is not None:
            self._comparison.restore(compared)
        Trainer.restore(self, state[: self.problem.iterate_bytes])

    def _nothing(self) -> Floats:
        return np.zeros(self._wire.paths * descent_numbers(self._models.shape[1:]))

    def _place_intercepts(self, told: Told) -> None:
        """Give all candidates the best models without coefficients, by what was told at models of 0."""
        slopes, pull = told.gradients[0, ..., -1], told.triangles[0, ..., -1]
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
        if not holds_out(told).any():
            raise DataError("partitions", "need a task of two rows to choose λ by cross-validation", 1)
        free = np.isnan(self._fixed[0])
        gradients = told.gradients[0, 0, :, : self.problem.coupled] * free[:, None]
        self._paths.begin(0, gradients)
        self._descents = self._paths.descents(self._shape, self._fixed)

    def _rests(self) -> list[Floats]:
        """For each candidate, the shares (K,) of the objective: it rests once a step promised less.

        Without hope, it rests in any case.
        """
        hopeful, rests = self._held.hopeful(len(self._descents), self._iterate.steps), []
        for p in range(len(self._descents)):
            rest = np.full(self._models.shape[1], _ENOUGH if hopeful[p] else 1.0)
            if p == self._best:
                rest[0] = self.problem.settings.tolerance
            rests.append(rest)
        return rests

    def _follow(self) -> None:
        """Begin to try the best coupling with a penalised intercept; the next round tells of its models."""
        sources = self._paths.follow(self._held.losses)
        if sources is None:
            return
        self._models[: len(sources)] = self._models[sources]
        made = self._paths.descents(self._shape, self._fixed)
        kept = sources.max() + 1
        self._descents = [*self._descents[:kept], *made[kept:]]
        self._held.follow(sources, kept)

    @property
    def _shape(self) -> tuple[int, int, int]:
        _, K, T, d = self._models.shape
        return K, T, d

    @property
    def _fixes(self) -> bool:
        """Whether intercepts of the best candidate are fixed for tasks of one class."""
        return not self._descents or self._descents[self._best].coupled < self.problem.d

    def _choose(self) -> None:
        """Take the models of all rows under the best coupling and λ."""
        self._best, choice, selections = self._paths.selected(self._held.losses)
        descent = self._descents[self._best]
        gap = float(descent.promised[0] + descent.gap[0])
        near = np.array([each.near(_ENOUGH)[1:].all() for each in self._descents])
        hopeful = self._held.hopeful(len(near), self._iterate.steps)
        ended = near[hopeful].all() and (self._comparison is None or self._comparison.near)
        ended &= not self._paths.tries_second or self._paths.second >= 0
        low = descent.objective[0] <= self._paths.floor(descent.coupling)
        self._iterate.residual = math.inf if not ended else 0.0 if low else self._residual_of(descent)
        residual = self._iterate.residual
        self.move(self._models[self._best, 0])
        if not math.isfinite(residual):
            self._iterate.residual = residual
        objective = float(descent.objective[0])
        strength = descent.coupling.strength
        self.outcome = Outcome(choice.coupling, strength, objective, gap, selections, choice.intercept)


def _at_intercepts(told: Told, fixed: Floats) -> Told:
    """What is told at the best intercepts, by what was told at models of 0; `fixed` is (K, T)."""
    paths = len(told.losses)
    shares = 0.5 - told.gradients[0, ..., -1]
    intercepts, losses, gradients, H = at_intercepts(told.gradients[0], told.second_derivatives(0), fixed)
    left_out = 1.0 - told.shares
    some = left_out > 0.0
    of_held = np.where(some, shares[0] - told.shares * shares, 0.0) / np.where(some, left_out, 1.0)
    held = np.where(some, softplus(intercepts) - of_held * intercepts, 0.0)
    parts = (np.broadcast_to(part, (paths, *part.shape)) for part in (losses, held, gradients, upper(H)))
    return Told(told.shares, *parts)
