"""Training by statistics: after one exchange, every worker solves the whole problem by itself."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import DataError
from asyncdmtl.learning.choosing import Selection, choose, choose_strength
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import AUTO, AUTO_COUPLINGS
from asyncdmtl.learning.statistics import StatisticsWire, TaskStatistics
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

# The last solution in this process, by the digest of its problem; and the lock by which one thread solves.
_SOLVED: dict[bytes, tuple[Floats, Outcome]] = {}
_SOLVING = threading.Lock()


class StatisticsTrainer(Trainer):
    """A `Trainer` whose only step solves the problem."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        self._coupling = problem.coupling

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
        key = _key(self.problem, vectors)
        # If workers share a process, one solves the problem, and the others use its solution.
        with _SOLVING:
            if key not in _SOLVED:
                _SOLVED.clear()
                _SOLVED[key] = self._solve(vectors, wire)
            models, self.outcome = _SOLVED[key]
        self._coupling = self.problem.make_coupling(self.outcome.coupling, self.outcome.strength)
        self._take(models)
        self._iterate.residual = self.outcome.gap

    def penalty(self) -> float:
        """`λ R(W)`."""
        return self._coupling.penalty(self.W[:, : self.problem.coupled].astype(np.float64))

    def _choice(self, statistics: TaskStatistics) -> tuple[str, float, Mapping[str, Selection]]:
        problem, settings = self.problem, self.problem.settings
        if settings.strength is not None:
            return settings.coupling, settings.strength, {}
        smoothness = 1.0 / problem.step_lengths[0]
        if settings.coupling != AUTO:
            found = choose_strength(statistics, problem.coupling, settings.intercept, smoothness)
            return settings.coupling, found.strength, {settings.coupling: found}
        # With one task, the coupling by the mean would do nothing.
        names = AUTO_COUPLINGS if len(problem.tasks) > 1 else AUTO_COUPLINGS[:1]
        candidates = [(name, problem.make_coupling(name, 0.0)) for name in names]
        best, selections = choose(statistics, candidates, settings.intercept, smoothness)
        return best, selections[best].strength, selections

    def _solve(self, vectors: Sequence[NDArray[Any]], wire: StatisticsWire) -> tuple[Floats, Outcome]:
        """The models (T, d), and the outcome."""
        problem, intercept = self.problem, self.problem.settings.intercept
        statistics = TaskStatistics.of(vectors, wire.layout)
        name, strength, selections = self._choice(statistics)
        solution = solve(problem.make_coupling(name, strength), statistics.whole(intercept), [strength])
        W = np.zeros((len(problem.tasks), problem.d))
        W[:, : problem.coupled] = solution.W[0, 0]
        if problem.d > problem.coupled:
            W[:, -1] = statistics.intercepts(solution.W, intercept)[0, 0]
        gap = max(float(solution.gap[0, 0]), 0.0)
        return W, Outcome(name, strength, float(solution.value[0, 0]), gap, selections)

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
    h.update(repr((problem.settings.as_dict(), problem.tasks, problem.features, steepest)).encode())
    for vector in vectors:
        h.update(np.ascontiguousarray(vector).data)
    return h.digest()
