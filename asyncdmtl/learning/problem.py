"""The problem of a run: everything that follows from its settings and from the declared partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncdmtl.arithmetic.elementary import log1p
from asyncdmtl.arithmetic.products import gram, matmul
from asyncdmtl.arithmetic.solving import solve
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.learning.aggregation import AGGREGATES, COLUMNWISE, mean_of_sums, weighted_sum
from asyncdmtl.learning.candidates import CandidatesWire, descent_numbers
from asyncdmtl.learning.compression import Wire
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.registry import make_coupling
from asyncdmtl.learning.curvature import SecondOrderWire, told_of_comparison
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.outcome import outcome_numbers
from asyncdmtl.learning.secants import has_low_rank, pairs_kept
from asyncdmtl.learning.settings import AUTO, Choice, Settings
from asyncdmtl.learning.statistics import StatisticsWire, pool
from asyncdmtl.learning.tasks import PartitionInfo, check_infos
from asyncdmtl.learning.updates import (
    Forecast,
    candidate_intercepts,
    candidates_wire,
    choices,
    compares,
    coupling_names,
    forecasts,
    minimises,
    resolve,
    statistics_layout,
    why_no_curvature_after_local_models,
)
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.spans import Span

# Bytes of a trainer's state besides the models: four float64 for FISTA's t, momentum, residual and steps.
SCALAR_BYTES = 32

# Bytes that tell how far training has come: the objective, what the last step promised, and the steps.
PROGRESS_BYTES = 24

SIZES, LOCAL_MODELS = "sizes", "local models"
"""What partitions may tell first: mean squares of their columns; and models after local epochs."""

# Classes count as separated if the objective is at most this share of that without a model: rows are then
# predicted with some 99.9 % probability, which further rounds only raise.
SEPARATED = 1e-3

# A partition's gradient that is so many times steeper than the median of all is left to a robust aggregate,
# which leaves it out; steps are not shortened for it.
_STEEP = 10.0

# The logistic loss of a row without a model.
_LOG_2 = 0.6931471805599453


class Problem:
    """Everything that follows from the settings and from the partitions that workers declare.

    The server and every worker compute the same problem.

    Parameters
    ----------
    settings : Settings
    infos : sequence of PartitionInfo
        All `N` partitions. The position of a partition is its index `n` everywhere else.

    Attributes
    ----------
    tasks : tuple of str
        `T` names in natural order.
    task_of : tuple of int
        The index of the task that owns partition `n`.
    partitions_of : tuple of tuple of int
        `S_t`, ascending.
    weights : (N,) float64 array
        The weight of each partition: the sum of its rows' weights, or its number of rows.
    features : int
        Features per row.
    d : int
        Numbers per update: the features, and last the intercept, if there is one.
    update : str
        The kind of the updates: that of the settings, with "auto" resolved (`updates.resolve`).
    wire : Wire, StatisticsWire or SecondOrderWire
        The format of updates as they travel.
    coupled : int
        Numbers per model that the coupling involves: all, or all but a free intercept.
    fixed : mapping of task index to float
        Free intercepts that training does not change. Under logistic loss, a task whose rows all have the
        same label has no minimum: loss and gradient vanish as the intercept grows. In that limit the loss is
        0 and the coupling alone determines the task's coefficients. The intercept is set to the odds
        (n + 1) : 1 for n rows (Laplace's rule of succession).
    damping : tuple of float
        The factor of each task's gradient: 1, or less for a task whose robust aggregate may be so steep that
        steps of these lengths would diverge. Its models then come slowly to where they would come otherwise,
        and λ weighs more for them.
    step_lengths : (float, float)
        The step lengths for the columns that the coupling involves, and for a free intercept. Without one the
        first is `1/L` with `L = max_t Σ_{n ∈ S_t} (weight_n / n_t)·smoothness_n`, a Lipschitz constant of
        every task's gradient; `n_t` is the weight of the task. Robust aggregates count a `smoothness_n` as
        ten times the median of all at most, so that one partition with large numbers does not shorten the
        steps of all tasks. With a free intercept the lengths are `1/(1.25·L)` and `1/(5·curvature)`: the
        block-diagonal matrix of `(1 + 1/a)·L` and `(1 + a)·curvature` majorises the Hessian for any `a > 0`,
        since `2xy ≤ x²/a + a·y²`. An intercept then moves faster than the steepest feature allows; on real
        data `a = 4` takes half the rounds of one common step.

    Raises
    ------
    DataError
        There is no partition, one is declared twice or is malformed, or numbers of features differ.
    """

    def __init__(self, settings: Settings, infos: Sequence[PartitionInfo]) -> None:
        check_infos(infos)
        self.settings = settings
        self.infos = tuple(infos)
        self.tasks = tuple(sorted({info.task for info in infos}, key=natural_key))
        self.task_of = tuple(self.tasks.index(info.task) for info in infos)
        self.partitions_of = tuple(
            tuple(n for n, owner in enumerate(self.task_of) if owner == t) for t in range(len(self.tasks))
        )
        self.weights = np.array([info.weight for info in infos], dtype=np.float64)
        self.features = infos[0].features
        self.d = self.features + settings.has_intercept
        self.coupled = self.features + (settings.intercept == "penalised")
        self.dtype: np.dtype[np.floating[Any]] = np.dtype(settings.dtype)
        self.update = resolve(settings, self.infos)
        self.wire = self._wire()
        self.loss = LOSSES[settings.loss]
        self.fixed = self._fixed_intercepts()
        self.coupling = self.make_coupling(settings.coupling, settings.strength or 0.0)
        steepest = self._steepest()
        self.damping = self._damping(steepest)
        free = settings.intercept in ("free", AUTO)
        bound = (1.25 if free else 1.0) * steepest
        self.step_lengths = (1.0 / bound, 1.0 / (5.0 * self.loss.curvature))

    def make_coupling(self, name: str, strength: float) -> Coupling:
        """A coupling of these tasks; `NoCoupling` for "auto", until a coupling is chosen."""
        known = "none" if name == AUTO else name
        settings = self.settings
        return make_coupling(known, strength, self.tasks, settings.edges, settings.arithmetic)

    @property
    def couplings(self) -> list[tuple[str, Coupling]]:
        """The couplings that cross-validation by Newton's steps compares, with λ = 0."""
        names = coupling_names(self.settings, self.features, len(self.tasks))
        return [(name, self.make_coupling(name, 0.0)) for name in names]

    @property
    def candidate_intercepts(self) -> tuple[str, ...]:
        """The kinds of intercepts that cross-validation by Newton's steps compares."""
        return candidate_intercepts(self.settings)

    @property
    def choices(self) -> list[tuple[Choice, Coupling]]:
        """What cross-validation by statistics compares, with λ = 0."""
        known = choices(self.settings, len(self.tasks))
        return [(choice, self.make_coupling(choice.coupling, 0.0)) for choice in known]

    @property
    def accelerated(self) -> bool:
        """Whether updates are computed ahead of the models."""
        return self.settings.accelerated and self.update == "gradient"

    @property
    def forecasts(self) -> tuple[Forecast, ...]:
        """The predicted traffic of each kind of update."""
        return forecasts(self.settings, self.features, min(info.rows for info in self.infos), len(self.tasks))

    @property
    def exact(self) -> bool:
        """Whether a single round gives the solution, as with statistics."""
        return self.update == "statistics"

    @property
    def minimises(self) -> bool:
        """Whether models that rounds leave in place are the minimum of the objective."""
        return minimises(self.settings.aggregate)

    @property
    def tests(self) -> bool:
        """Whether sites hold out test rows."""
        return any(info.held for info in self.infos)

    @property
    def compares(self) -> bool:
        """Whether models of each task alone, and one for all, are made to be compared with on test rows."""
        return self.tests and compares(self.settings, self.update, self.d)

    @property
    def rounds(self) -> int:
        """The most rounds of the run."""
        return 1 if self.exact else self.settings.rounds

    @property
    def state_bytes(self) -> int:
        """Bytes of `Trainer.state()`."""
        T, d = len(self.tasks), self.d
        if self.exact:
            return self.iterate_bytes + 8 * (
                outcome_numbers(self.settings) + self.compares * (T + 1) * (self.features + 1)
            )
        if not isinstance(self.wire, SecondOrderWire):
            return self.iterate_bytes
        if isinstance(self.wire, CandidatesWire):
            firsts = len(self.candidate_intercepts) * len(self.couplings)
            numbers = self.wire.state_numbers(T, firsts) + outcome_numbers(self.settings)
            return self.iterate_bytes + 8 * numbers
        low_rank = has_low_rank(self.settings.coupling, T, d)
        kept = 0 if self.wire.curvature else 1 + 2 * pairs_kept(T, d, low_rank=low_rank)
        numbers = descent_numbers((1, T, d)) + kept * T * d + self.wire.comparison_numbers(T)
        return self.iterate_bytes + 8 * numbers

    @property
    def iterate_bytes(self) -> int:
        """Bytes of `Iterate.state()`."""
        matrices = 2 if self.accelerated else 1
        return matrices * len(self.tasks) * self.d * self.dtype.itemsize + SCALAR_BYTES

    def converged(self, objective: float, residual: float) -> bool:
        """Whether a run may end at this objective, after a step that left this `Trainer.residual`.

        If the problem `minimises`, the objective is then estimated to be within `tolerance` of its minimum,
        relatively; otherwise the models are that near to a fixed point of the rounds.
        """
        if not self.settings.tolerance:
            return False
        (told,) = self.rounded([residual])
        return told <= self.settings.tolerance * abs(objective) or objective <= self.separated

    @cached_property
    def separated(self) -> float:
        """`separation` of the run's coupling; −∞ if the run chooses, as it is not over before it has."""
        return -math.inf if self.settings.chooses else self.separation(self.coupling)

    def separation(self, coupling: Coupling) -> float:
        """The largest objective at which the classes count as separated; 0 if they cannot be separated.

        If the coupling's penalty is 0 for equal models, classes that a hyperplane separates have no solution
        under logistic loss: the objective falls to 0 as the models grow without limit, and its distance from
        the infimum never becomes a small share of it.
        """
        equal = np.ones((len(self.tasks), self.coupled))
        if self.settings.loss != "logistic" or coupling.penalty(equal) > 0.0:
            return 0.0
        return SEPARATED * _LOG_2 * len(self.tasks)

    def aggregate(
        self, t: int, updates: NDArray[Any] | Sequence[NDArray[Any]], spans: Sequence[Span] | None = None
    ) -> NDArray[Any]:
        """`z_t = ψ(v_n : n ∈ S_t)`, the aggregate of a task.

        Parameters
        ----------
        t : int
            The index of the task.
        updates : (|S_t|, d) array of the run's dtype, or vectors of bytes for statistics
            In ascending order of `n`.
        spans : sequence of Span, optional
            The partitions that each vector stands for, if some vectors are results of `partial_sum`.

        Returns
        -------
        (d,) array of the run's dtype. For a single update it is that update itself, not a copy.
        """
        if isinstance(self.wire, StatisticsWire):
            return self._pooled(t, updates, spans, Span(0, len(self.partitions_of[t])))
        if len(updates) == 1:
            only: Vectors = updates[0]
            return only
        weights = self.weights[list(self.partitions_of[t])]
        with np.errstate(over="ignore", invalid="ignore"):
            if self.settings.aggregate == "mean":
                z = mean_of_sums(_by_span(updates, spans), weights, self._dtype_of_sums)
            else:
                psi = AGGREGATES[self.settings.aggregate]
                z = psi(np.asarray(updates).astype(np.float64, copy=False), weights)
        return z.astype(self._dtype_of_sums, copy=False)

    def partial_sum(self, t: int, span: Span, updates: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The sum of the updates of some consecutive partitions of a task, as it travels in their place.

        It is weighted; of statistics, they are pooled. `span` must be a node of the tree of the task's
        partitions (`asyncdmtl.plan.spans`), and `updates` be those of its partitions.
        """
        spans = span.singles
        if isinstance(self.wire, StatisticsWire):
            return self._pooled(t, updates, spans, span)
        weights = self.weights[list(self.partitions_of[t])]
        with np.errstate(over="ignore", invalid="ignore"):
            found = weighted_sum(span, _by_span(updates, spans), weights, self._dtype_of_sums)
            return found.astype(self._dtype_of_sums, copy=False)

    def _pooled(
        self, t: int, updates: Sequence[NDArray[Any]] | NDArray[Any], spans: Sequence[Span] | None, span: Span
    ) -> NDArray[Any]:
        assert isinstance(self.wire, StatisticsWire)
        return pool(_by_span(updates, spans), span, self.wire.layout, f"task {self.tasks[t]!r}")

    @property
    def _dtype_of_sums(self) -> np.dtype[Any]:
        """The dtype of aggregates, and of sums as they travel."""
        return np.dtype(np.float64) if isinstance(self.wire, SecondOrderWire) else self.dtype

    @property
    def told(self) -> tuple[int, np.dtype[Any]]:
        """Length and dtype of `Trainer.told()` for a task: its model, and what else holders must know."""
        more = PROGRESS_BYTES if self.tells_progress else 0
        if self.compares:
            more += 16 * (self.features + 1 if self.exact else told_of_comparison(self.d))
        size = self.d * self.dtype.itemsize + more
        return (size, np.dtype(np.uint8)) if more else (self.d, self.dtype)

    @property
    def openings(self) -> tuple[str, ...]:
        """What takes the place of gradients in the first rounds: `SIZES`, `LOCAL_MODELS`, both or nothing.

        Sizes of columns are told where they may differ, to a method that learns its metric.
        """
        if self.update not in ("quasi-newton", "model"):
            return ()
        told = isinstance(self.wire, SecondOrderWire) and self.wire.curvature
        sizes = () if self.settings.standardise or told else (SIZES,)
        return (*sizes, LOCAL_MODELS) if self.update == "model" else sizes

    @property
    def tells_progress(self) -> bool:
        """Whether updates depend on how far training has come.

        Those of openings do, and second derivatives of huber loss.
        """
        return bool(self.openings) or (self.update == "newton" and self.settings.loss == "huber")

    @property
    def columnwise(self) -> bool:
        """Whether updates can be aggregated some columns at a time in the form in which they travel."""
        unpacked = isinstance(self.wire, Wire) and self.wire.compression is None
        return self.settings.aggregate in COLUMNWISE and unpacked

    @cached_property
    def linear_target(self) -> Floats:
        """`A` (C, N): if ψ is the mean, a step depends on the updates `V` only through `A·V`.

        `A = Φ·Ψ`. `Ψ` (T, N) has the share of each partition in the weight of its task, and `Φ` is the
        coupling's mixing matrix. With a free intercept, `A` is `Ψ`, as every task's aggregate is needed.
        """
        shares = np.zeros((len(self.tasks), len(self.infos)))
        for t, S in enumerate(self.partitions_of):
            shares[t, list(S)] = self.weights[list(S)] / float(total(self.weights[list(S)]))
        return shares if self.coupled < self.d else matmul(self.coupling.mixing(len(self.tasks)), shares)

    def spread(self, combined: Vectors) -> Vectors:
        """Aggregates (T, d) that lead to the same step as the true ones, from `combined` = `A·V` (C, d)."""
        if len(combined) == len(self.tasks):
            return combined
        mixing = self.coupling.mixing(len(self.tasks))
        # This applies the pseudoinverse of a matrix of full rank with more columns than rows.
        solved = solve(gram(mixing), combined.astype(np.float64, copy=False))
        return matmul(mixing.T, solved).astype(self.dtype)

    def rounded(self, numbers: ArrayLike) -> tuple[float, ...]:
        """Numbers as workers tell them: rounded to the dtype of the run, in which they travel.

        Finite numbers stay finite: they become the largest number of the dtype at most.
        """
        exact, most = np.asarray(numbers, np.float64), float(np.finfo(self.dtype).max)
        told = np.where(np.isinf(exact), exact, np.clip(exact, -most, most)).astype(self.dtype)
        return tuple(told.astype(np.float64).tolist())

    def objective(self, losses: ArrayLike, penalty: float) -> float:
        """`Σ_t (1/n_t)·loss_t + λ R`, given the losses as for `data_loss` and the coupling's penalty."""
        (told,) = self.rounded([penalty])
        return self.data_loss(losses) + told

    def data_loss(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t`, given the weighted mean loss of each of the `N` partitions, as it is told."""
        means = self.task_means(self.rounded(losses))
        try:
            return math.fsum(means)
        except (OverflowError, ValueError):  # overflow, or infinities of both signs
            return math.inf

    def _wire(self) -> Wire | StatisticsWire | SecondOrderWire:
        if self.update == "statistics":
            return StatisticsWire(statistics_layout(self.settings, self.features))
        if self.update == "newton" and self.settings.chooses:
            return candidates_wire(self.settings, self.features, len(self.tasks), compares=self.compares)
        if self.update in ("newton", "quasi-newton", "model"):
            return SecondOrderWire(self.d, curvature=self._told_curvature, compares=self.compares)
        return Wire(self.settings.compression, self.d, self.dtype)

    @property
    def _told_curvature(self) -> bool:
        """Whether partitions tell second derivatives in updates of second order."""
        if self.update != "model":
            return self.update == "newton"
        fewest = min(info.rows for info in self.infos)
        return not why_no_curvature_after_local_models(self.settings, self.d, fewest, len(self.tasks))

    def _fixed_intercepts(self) -> dict[int, float]:
        if not self.loss.unattained or self.coupled == self.d:
            return {}
        fixed = {}
        for t, S in enumerate(self.partitions_of):
            classes = {self.infos[n].classes for n in S}
            if classes in ({"0"}, {"1"}):
                size = float(log1p(total(self.weights[list(S)])))
                fixed[t] = size if classes == {"1"} else -size
        return fixed

    def _steepest(self) -> float:
        """`L`, which bounds every task's gradient, see `step_lengths`; 1 if all features are 0."""
        smoothness = np.array([info.smoothness for info in self.infos])
        if self.settings.aggregate != "mean":
            smoothness = np.minimum(smoothness, _STEEP * float(np.median(smoothness)) or np.inf)
        return max(self.task_means(smoothness)) or 1.0

    def _damping(self, steepest: float) -> tuple[float, ...]:
        if self.settings.aggregate == "mean":
            return (1.0,) * len(self.tasks)
        psi, factors = AGGREGATES[self.settings.aggregate], []
        for S in map(list, self.partitions_of):
            smoothness = np.array([[self.infos[n].smoothness] for n in S])
            bound = float(psi(smoothness, self.weights[S])[0])
            factors.append(1.0 if bound <= 2.0 * steepest else steepest / bound)
        return tuple(factors)

    def task_means(self, values: ArrayLike) -> list[float]:
        """The weighted mean over each task's partitions of a value per partition."""
        weighted = np.asarray(values, dtype=np.float64) * self.weights
        sets = [list(S) for S in self.partitions_of]
        return [float(total(weighted[S]) / total(self.weights[S])) for S in sets]


def _by_span(
    updates: NDArray[Any] | Sequence[NDArray[Any]], spans: Sequence[Span] | None
) -> dict[Span, NDArray[Any]]:
    """Vectors by the partitions that they stand for; by default one each."""
    return dict(zip(spans or Span(0, len(updates)).singles, updates, strict=True))
