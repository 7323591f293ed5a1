"""Training by statistics: after one exchange, every worker solves the whole problem by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes, Floats, Vectors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.outcome import Outcome, outcome_numbers, packed, unpacked
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.ridge import alone_and_together
from asyncdmtl.learning.settings import Choice
from asyncdmtl.learning.shared_solutions import shared
from asyncdmtl.learning.statistics import StatisticsWire, TaskStatistics
from asyncdmtl.learning.statistics_selection import Selection, choose
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer, models_of_kinds


class StatisticsTrainer(Trainer):
    """A `Trainer` whose only step solves the problem."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        # The numbers of a model that the coupling sees, once an intercept is chosen.
        self._coupled = problem.coupled
        self._coupling = problem.coupling
        # The baseline models: of each task alone, and last of all tasks together, with intercepts.
        self._baselines = np.zeros(((len(problem.tasks) + 1) * problem.compares, problem.features + 1))

    def advance(self, Z: Columns, ready: Callable[[slice], bool]) -> None:
        """Do nothing: the step needs all of `Z`."""

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Solve the problem from the statistics of all tasks.

        Raises
        ------
        DataError
            The models outgrow the run's dtype, or cross-validation cannot hold out any row.
        """
        wire = self.problem.wire
        assert isinstance(wire, StatisticsWire)
        vectors: Sequence[NDArray[Any]] = Z(slice(None)) if callable(Z) else list(Z)
        solution = shared(_key(self.problem, vectors), lambda: self._solve(vectors, wire))
        models, told, baselines = np.split(
            solution, np.cumsum([self.W.size, outcome_numbers(self.problem.settings)])
        )
        self._take(models.reshape(self.W.shape))
        outcome = unpacked(told, self.problem.settings)
        assert outcome is not None
        self._baselines = baselines.reshape(self._baselines.shape).copy()
        self._conclude(outcome)
        self._iterate.residual = outcome.gap
        self.zeros.note(self.W, lambda: self._correlations(vectors, wire), self._coupling)

    def baselines(self) -> dict[str, TaskModels]:
        """The baseline models, once the problem is solved, if sites hold out test rows."""
        if not len(self._baselines):
            return {}
        return models_of_kinds(self.problem, self._baselines)

    def told(self, *, last: bool) -> Bytes:
        """The models and the baseline models, see `Trainer.told`."""
        models = super().told(last=last)
        if not len(self._baselines):
            return models
        *alone, one = self._baselines
        both = np.column_stack([np.array(alone), np.tile(one, (len(models), 1))])
        return np.concatenate([models, np.ascontiguousarray(both).view(np.uint8)], axis=1)

    def take_told(self, rows: Sequence[int], told: Bytes) -> None:
        """Take over the models of some tasks from the result of another trainer's `told`."""
        super().take_told(rows, told)
        if len(self._baselines) and len(told):
            size = self._baselines.shape[1]
            both = np.ascontiguousarray(told[:, -16 * size :]).view(np.float64)
            self._baselines[list(rows)], self._baselines[-1] = both[:, :size], both[0, size:]

    def state_parts(self) -> list[Bytes]:
        """The parts of what another process needs to have the solution, `problem.state_bytes` bytes."""
        told = packed(self.outcome, self.problem.settings), self._baselines.reshape(-1)
        return [*super().state_parts(), *(numbers.view(np.uint8) for numbers in told)]

    def restore(self, state: Bytes) -> None:
        """Continue from what `state` returned; UsageError if it has another size or numbers out of range."""
        if state.dtype != np.uint8 or state.shape != (self.problem.state_bytes,):
            rule = f"must be {self.problem.state_bytes} bytes"
            raise UsageError("state", rule, (state.dtype, state.shape))
        numbers = np.frombuffer(state[self.problem.iterate_bytes :].tobytes(), np.float64)
        told, baselines = np.split(numbers, [outcome_numbers(self.problem.settings)])
        if not np.isfinite(baselines).all():
            raise UsageError("state", "must have finite models to compare with", "not a number")
        outcome = unpacked(told, self.problem.settings)
        super().restore(state[: self.problem.iterate_bytes])
        self._baselines = baselines.reshape(self._baselines.shape).copy()
        self._conclude(outcome)

    def penalty(self) -> float:
        """`λ R(W)`."""
        return self._coupling.penalty(self.W[:, : self._coupled].astype(np.float64))

    def _correlations(self, vectors: Sequence[NDArray[Any]], wire: StatisticsWire) -> Floats:
        """The gradients (T, coupled) at models of 0, up to their sign."""
        statistics = TaskStatistics.of(vectors, wire.layout)
        assert self.outcome is not None
        correlations: Floats = statistics.whole(self.outcome.intercept).b[0]
        return correlations

    def _choice(self, statistics: TaskStatistics) -> tuple[Choice, float, Mapping[str, Selection]]:
        problem, settings = self.problem, self.problem.settings
        if settings.strength is not None:
            return settings.choices[0], settings.strength, {}
        best, found = choose(statistics, problem.choices, 1.0 / problem.step_lengths[0])
        named = {settings.name_of(choice): selection for choice, selection in found.items()}
        return best, found[best].strength, named

    def _conclude(self, outcome: Outcome | None) -> None:
        self.outcome = outcome
        if outcome is not None:
            self._coupled = self.problem.features + (outcome.intercept == "penalised")
            self._coupling = self.problem.make_coupling(outcome.coupling, outcome.strength)

    def _solve(self, vectors: Sequence[NDArray[Any]], wire: StatisticsWire) -> Floats:
        """The models (T, d), the outcome as from `packed`, and the baseline models, one after another."""
        problem = self.problem
        statistics = TaskStatistics.of(vectors, wire.layout)
        (name, intercept), strength, selections = self._choice(statistics)
        solution = solve(problem.make_coupling(name, strength), statistics.whole(intercept), [strength])
        W = np.zeros((len(problem.tasks), problem.d))
        coupled = solution.W.shape[-1]
        W[:, :coupled] = solution.W[0, 0]
        if problem.d > coupled:
            W[:, -1] = statistics.intercepts(solution.W, intercept)[0, 0]
        gap = max(float(solution.gap[0, 0]), 0.0)
        outcome = Outcome(name, strength, float(solution.value[0, 0]), gap, selections, intercept)
        told = packed(outcome, problem.settings)
        return np.concatenate([W.reshape(-1), told, self._apart(statistics).reshape(-1)])

    def _apart(self, statistics: TaskStatistics) -> Floats:
        problem = self.problem
        if not problem.compares:
            return self._baselines
        rows = [sum(problem.infos[n].rows for n in S) for S in problem.partitions_of]
        return alone_and_together(statistics, rows, intercept=problem.settings.has_intercept)

    def _take(self, W: Floats) -> None:
        with np.errstate(over="ignore"):
            models: Vectors = W.astype(self.problem.dtype)
        if not np.isfinite(models).all():
            rule = f"must stay finite in {self.problem.dtype}; scale the features"
            raise DataError("models", rule, float(np.abs(W).max()))
        self.place(range(len(models)), models)
        self._iterate.steps += 1


def _key(problem: Problem, vectors: Sequence[NDArray[Any]]) -> bytes:
    """A digest of everything that the solution depends on."""
    h = hashlib.blake2b(digest_size=32, usedforsecurity=False)
    steepest = problem.step_lengths[0]
    known = problem.settings.as_dict(), problem.tasks, problem.features, steepest, problem.compares
    h.update(repr(known).encode())
    for vector in vectors:
        h.update(np.ascontiguousarray(vector).data)
    return h.digest()
