"""Training by few and long steps: each solves the coupled problem of a quadratic model of every task's loss.

Newton's method is told the second derivatives, a quasi-Newton method learns them from the gradients that all
see anyway (`secants`). Either way all take the steps of `descent`, at no byte.

With updates "model", the steps of either method begin at the mean of the models that local epochs make of
each partition; as gradients decide from there, training ends at the optimum whatever the epochs and the
learner are. Reference: Zhang, Duchi, Wainwright, "Communication-Efficient Algorithms for Statistical
Optimization", JMLR 14, 2013 (the mean of local models); local epochs in every round saved no rounds over
these steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.blas import chosen
from asyncdmtl.arithmetic.sums import norm, total
from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.comparison import Comparison
from asyncdmtl.learning.curvature import SecondOrderWire, at_intercepts, log_means, told_of_comparison
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.iterate import only_rounding
from asyncdmtl.learning.problem import LOCAL_MODELS, PROGRESS_BYTES, SIZES, Problem
from asyncdmtl.learning.secants import Secants, has_low_rank
from asyncdmtl.learning.second_derivatives import SecondDerivatives, Whole
from asyncdmtl.learning.shared_solutions import shared
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer, models_of_kinds

# Once the predicted decrease is below this share of the objective, exact second derivatives are used. Before
# that, those of outliers under Huber loss would be 0, and steps too long.
NEAR = 1e-3


class NewtonTrainer(Trainer):
    """A `Trainer` of second order."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        T, d = len(problem.tasks), problem.d
        self._fixed = np.array([[problem.fixed.get(t, math.nan) for t in range(T)]])
        self._descent = Descent(problem.coupling, (1, T, d), problem.coupled, self._fixed)
        assert isinstance(problem.wire, SecondOrderWire)
        self._secants = None if problem.wire.curvature else self._first_metric()
        self._comparison = self._local.comparison = Comparison(problem) if problem.compares else None

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Nothing: the step needs all of `Z`."""

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write what partitions tell, see `Trainer.packed_updates`."""
        self._local.sharp = bool(self._descent.near(NEAR)[0])
        return super().packed_updates(out)

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Take a step, given what all tasks told; or go back along the last one.

        Of the workers on one machine, one computes a step of Newton's method, and the others take over its
        state. A quasi-Newton method has a long state, and each computes for itself.

        Raises
        ------
        DataError
            The models outgrow the run's dtype.
        """
        wire = self.problem.wire
        assert isinstance(wire, SecondOrderWire)
        vectors = np.stack([np.asarray(z) for z in (Z(slice(None)) if callable(Z) else Z)])
        losses, gradients, H = wire.split(vectors)
        here = self.W.astype(np.float64)
        if self._opens(here, losses, gradients):
            return
        if self._begins_at_0(here):
            here = here.copy()
            if self.problem.loss.counts:
                # The next round tells what is there.
                free = np.isnan(self._fixed[0])
                best, _ = log_means(np.where(free, gradients[:, -1], 0.0), np.ones(len(here)))
                here[:, -1] = np.where(free, best, self._fixed[0])
                if self._comparison is not None:
                    self._comparison.take(wire.comparison(vectors))
                self._begin_at(here)
                return
            here[:, -1], losses, gradients, H = at_intercepts(gradients, H, self._fixed[0])
        if self._secants is None:

            def take() -> None:
                if self._comparison is not None:
                    self._comparison.take(wire.comparison(vectors))
                self._descend(here, losses, gradients, Whole(H[None]))

            self._share(vectors, take)
        else:
            if math.isfinite(self._descent.objective[0]):
                self._secants.add(here - self._descent.best[0], gradients - self._descent.gradients[0])
            self._descend(here, losses, gradients, self._secants.metric())
        self.zeros.note(self.W, lambda: gradients[:, : self.problem.coupled])

    def _opens(self, here: Floats, losses: Floats, told: Floats) -> bool:
        """Use what was `told` in place of gradients; the result is False if gradients were told, to be used.

        Sizes become the scales of the metric. The means of local models are gone to, and left again if the
        objective is higher there, as losses tell a round later.
        """
        openings, descent, steps = self.problem.openings, self._descent, self._iterate.steps
        if steps < len(openings) and openings[steps] == SIZES:
            assert self._secants is not None
            self._secants.scale(told)
            self._begin_at(here)
            return True
        if LOCAL_MODELS not in openings or steps > len(openings):
            return False
        objective = float(total(losses)) + self.penalty()
        if steps < len(openings):
            descent.best[0], descent.objective[0] = here, objective
            self._begin_at(told)
            return True
        least, descent.objective[0] = float(descent.objective[0]), math.inf
        if objective <= least:
            return False
        self._begin_at(descent.best[0])
        return True

    def _begin_at(self, models: Floats) -> None:
        """Go to these models (T, d), of which the next round tells everything."""
        self.move(models)
        self._iterate.residual = math.inf

    def _descend(self, here: Floats, losses: Floats, gradients: Floats, H: SecondDerivatives) -> None:
        following, better = self._descent.step(here[None], losses[None], gradients[None], H)
        if better[0]:
            self._iterate.residual = self._residual_of(self._descent)
        self.move(following[0])
        if self._comparison is not None and not self._comparison.near:
            self._iterate.residual = math.inf

    def baselines(self) -> dict[str, TaskModels]:
        """The models to compare with, see `Trainer.baselines`."""
        if self._comparison is None:
            return {}
        return models_of_kinds(self.problem, self._comparison.coefficients())

    def _share(self, vectors: Floats, take: Callable[[], None]) -> None:
        """Take a step with `take`, or take over the state of another worker of this machine after it."""
        if self.alone:
            take()
            return
        computed = False

        def state_after() -> Floats:
            nonlocal computed
            take()
            computed = True
            state = self.state()
            return np.concatenate([state, np.zeros(-len(state) % 8, np.uint8)]).view(np.float64)

        state = shared(self._key(vectors), state_after)
        if not computed:
            self.restore(state.view(np.uint8)[: self.problem.state_bytes])

    def _key(self, vectors: Floats) -> bytes:
        """A digest of everything that a step depends on."""
        problem = self.problem
        h = hashlib.blake2b(digest_size=32, usedforsecurity=False)
        known = problem.settings.as_dict(), problem.tasks, problem.features, problem.step_lengths, chosen()
        h.update(repr((known, type(self).__name__, problem.update, problem.coupling.strength)).encode())
        h.update(
            repr((problem.partitions_of, problem.weights.tolist(), sorted(problem.fixed.items()))).encode()
        )
        for part in (*self.state_parts(), vectors):
            h.update(np.ascontiguousarray(part).data)
        return h.digest()

    def _residual_of(self, descent: Descent) -> float:
        """What `Trainer.residual` is after a step of all rows.

        Under Poisson loss it is infinite while the run must go on: a step that goes too far makes the
        objective so huge that any residual would be a small share of it.
        """
        residual, settings = float(descent.promised[0] + descent.gap[0]), self.problem.settings
        if self.problem.loss.counts and residual > settings.tolerance * float(descent.objective[0]):
            return math.inf
        return residual

    def _begins_at_0(self, here: Floats) -> bool:
        """Whether these are the first models, of logistic or Poisson loss, with intercepts to be improved."""
        problem = self.problem
        if not problem.loss.unattained or problem.update != "newton" or problem.d == problem.coupled:
            return False
        begun = np.where(np.isnan(self._fixed[0]), here[:, -1], 0.0)
        return self._iterate.steps == 0 and not here[:, :-1].any() and not begun.any()

    def penalty(self) -> float:
        """`λ R(W)`."""
        return self.problem.coupling.penalty(self.W.astype(np.float64)[:, : self.problem.coupled])

    def told(self, *, last: bool) -> Bytes:
        """Models, and where second derivatives depend on it how far training has come; see `Trainer.told`."""
        parts = [super().told(last=last)]
        if self.problem.tells_progress:
            progress = self._descent.objective[0], self._descent.promised[0], float(self._iterate.steps)
            parts.append(np.tile(np.array([progress]).view(np.uint8), (len(parts[0]), 1)))
        if self._comparison is not None:
            parts.append(self._comparison.told().view(np.uint8))
        return np.concatenate(parts, axis=1)

    def take_told(self, rows: Sequence[int], told: Bytes) -> None:
        """Continue from what a trainer `told` of some tasks, none or more."""
        super().take_told(rows, told)
        if not len(told):
            return
        end = told.shape[1]
        if self._comparison is not None:
            end -= 16 * told_of_comparison(self.problem.d)
            self._comparison.take_told(rows, np.ascontiguousarray(told[:, end:]).view(np.float64))
        if self.problem.tells_progress:
            progress = np.ascontiguousarray(told[0, end - PROGRESS_BYTES : end]).view(np.float64)
            self._descent.objective[0], self._descent.promised[0] = map(float, progress[:2])
            self._iterate.steps = int(progress[2])

    def state_parts(self) -> list[Bytes]:
        """The parts of what another process needs to continue from here, `problem.state_bytes` bytes."""
        own = [part.state() for part in (self._descent, self._secants, self._comparison) if part is not None]
        return [*super().state_parts(), *(part.view(np.uint8) for part in own)]

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        flat = self._numbers_of(state)
        for part in (self._descent, self._secants, self._comparison):
            if part is not None:
                numbers, flat = np.split(flat, [len(part.state())])
                part.restore(numbers)
        super().restore(state[: self.problem.iterate_bytes])

    def _numbers_of(self, state: Bytes) -> Floats:
        """What a state holds beside the iterate's; UsageError if it has another size."""
        if state.dtype != np.uint8 or state.shape != (self.problem.state_bytes,):
            rule = f"must be {self.problem.state_bytes} bytes"
            raise UsageError("state", rule, (state.dtype, state.shape))
        return np.frombuffer(state[self.problem.iterate_bytes :].tobytes(), np.float64)

    def _first_metric(self) -> Secants:
        """Pairs without any, and second derivatives that no task's loss exceeds, as declared."""
        problem = self.problem
        steepest = np.array(problem.task_means([info.smoothness for info in problem.infos]))
        steepest = np.maximum(steepest, 1e-12)
        first = np.repeat(steepest[:, None], problem.d, axis=1)
        if problem.d > problem.coupled:
            first[:, -1] = problem.loss.curvature
        curvature = problem.loss.curvature
        low_rank = has_low_rank(problem.settings.coupling, *first.shape)
        return Secants(steepest + curvature, first, problem.coupled, curvature, low_rank=low_rank)

    def move(self, following: Floats) -> None:
        """Go to these models (T, d); DataError if they outgrow the run's dtype."""
        with np.errstate(over="ignore"):
            models: Vectors = following.astype(self.problem.dtype)
        if not np.isfinite(models).all():
            rule = f"must stay finite in {self.problem.dtype}; scale the features"
            raise DataError("models", rule, float(np.abs(following).max()))
        # Near an objective of 0, steps of rounding go on for ever.
        C = self.problem.coupled
        moved, size = (
            np.array([norm(A[:, :C].reshape(-1)), norm(A[:, C:].reshape(-1))])
            for A in (following - self.W, following)
        )
        still = bool((models == self.W).all()) or only_rounding(self.problem, moved, size, np.float64)
        self.place(range(len(models)), models)
        self._iterate.steps += 1
        if still:
            self._iterate.residual = 0.0
