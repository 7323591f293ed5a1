"""The mathematics of a round, without a wire: what workers, the server and the one-process twin share.

A round of (proximal) gradient descent on `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)`: local updates `v_n` →
`z_t = ψ(v_n : n ∈ S_t)` → `W ← prox(W − step·Z)`. Vectors are kept and exchanged in the run's dtype;
everything in between is computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.coupling import COUPLINGS, make_coupling
from asyncdmtl.learning.losses import LOSSES, check_targets
from asyncdmtl.learning.tasks import Partition, PartitionInfo, TaskModels
from asyncdmtl.plan.placement import natural_key

Floats = NDArray[np.float64]
Vectors = NDArray[np.floating[Any]]

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """What is trained, and how; the same at the server and at every worker.

    `loss`, `aggregate` and `coupling` are names in `LOSSES`, `AGGREGATES` and `COUPLINGS`; `strength` is λ;
    `dtype` is that of models and updates; `seed` is that of the data.

    Raises
    ------
    UsageError
        Names the option that breaks a rule.
    """

    loss: str
    aggregate: str
    coupling: str
    strength: float
    rounds: int
    dtype: str
    intercept: bool
    seed: int

    def __post_init__(self) -> None:
        choices = {"loss": LOSSES, "aggregate": AGGREGATES, "coupling": COUPLINGS, "dtype": DTYPES}
        for name, known in choices.items():
            if getattr(self, name) not in tuple(known):
                raise UsageError(name, f"must be one of {', '.join(known)}", getattr(self, name))
        if not _is_number(self.strength) or not 0.0 <= self.strength < math.inf:
            raise UsageError("strength", "must be a finite number, at least 0", self.strength)
        object.__setattr__(self, "strength", float(self.strength))
        for name, least in (("rounds", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(name, f"must be a whole number, at least {least}", value)
            if value > 2**53:
                raise UsageError(name, "must be at most 2**53", value)
        if not isinstance(self.intercept, bool):
            raise UsageError("intercept", "must be true or false", self.intercept)

    def as_dict(self) -> dict[str, str | float | int | bool]:
        """Plain types, for JSON and msgpack; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Read what `as_dict` gave, wherever it has been since.

        Raises
        ------
        UsageError
            A setting is missing, unknown, or breaks a rule.
        """
        names = [field.name for field in fields(cls)]
        if set(content) != set(names):
            raise UsageError("settings", f"must be exactly {', '.join(names)}", sorted(map(str, content)))
        return cls(**content)


class Problem:
    """What follows from the settings and from what all workers declare; equal at everyone.

    Parameters
    ----------
    settings : Settings
    infos : sequence of PartitionInfo
        All `N` partitions; the position is the index `n` that everything else uses.

    Attributes
    ----------
    tasks : tuple of str
        `T` names in natural order.
    task_of : tuple of int
        The task that owns partition `n`.
    partitions_of : tuple of tuple of int
        `S_t`, ascending.
    rows : (N,) float64 array
        Rows per partition.
    features, d : int
        Features per row, and numbers per update: one more if there is an intercept, which comes last.
    step : float
        `1 / max_t Σ_{n ∈ S_t} (rows_n / n_t)·smoothness_n`, which no task's gradient outruns.

    Raises
    ------
    DataError
        No partition, one that is declared twice or without sense, or disagreeing numbers of features.
    """

    def __init__(self, settings: Settings, infos: Sequence[PartitionInfo]) -> None:
        _check_infos(infos)
        self.settings = settings
        self.infos = tuple(infos)
        self.tasks = tuple(sorted({info.task for info in infos}, key=natural_key))
        self.task_of = tuple(self.tasks.index(info.task) for info in infos)
        self.partitions_of = tuple(
            tuple(n for n, owner in enumerate(self.task_of) if owner == t) for t in range(len(self.tasks))
        )
        self.rows = np.array([info.rows for info in infos], dtype=np.float64)
        self.features = infos[0].features
        self.d = self.features + settings.intercept
        self.dtype: np.dtype[np.floating[Any]] = np.dtype(settings.dtype)
        self.loss = LOSSES[settings.loss]
        self.coupling = make_coupling(settings.coupling, settings.strength)
        steepest = max(self._task_means([info.smoothness for info in infos]))
        self.step = 1.0 / steepest if steepest > 0.0 else 1.0

    def aggregate(self, t: int, updates: Vectors) -> Vectors:
        """`z_t = ψ(v_n : n ∈ S_t)`: (|S_t|, d) updates, ascending by `n` → (d,), both of the run's dtype."""
        weights = self.rows[list(self.partitions_of[t])]
        psi = AGGREGATES[self.settings.aggregate]
        with np.errstate(over="ignore", invalid="ignore"):
            return psi(updates.astype(np.float64, copy=False), weights).astype(self.dtype)

    @cached_property
    def linear_target(self) -> Floats:
        """`A` (C, N): where ψ is the mean, all that a step needs of the updates `V` is `A·V`.

        `A = Φ·Ψ` with the shares of the rows of a task in `Ψ` (T, N) and the coupling's mixing `Φ`; an
        intercept, which no coupling touches, needs every task's aggregate.
        """
        shares = np.zeros((len(self.tasks), len(self.infos)))
        for t, S in enumerate(self.partitions_of):
            shares[t, list(S)] = self.rows[list(S)] / self.rows[list(S)].sum()
        return shares if self.settings.intercept else self.coupling.mixing(len(self.tasks)) @ shares

    def spread(self, combined: Vectors) -> Vectors:
        """Aggregates (T, d) that a step cannot tell from those that `combined` = `A·V` (C, d) came from."""
        if len(combined) == len(self.tasks):
            return combined
        spread: Vectors = (np.linalg.pinv(self.coupling.mixing(len(self.tasks))) @ combined).astype(
            self.dtype
        )
        return spread

    def data_loss(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t` from the mean loss per row of each of the `N` partitions."""
        means = self._task_means(losses)
        try:
            return math.fsum(means)
        except (OverflowError, ValueError):  # too large, or infinities of both signs
            return math.inf

    def _task_means(self, values: ArrayLike) -> list[float]:
        """Per task, the mean of a value per partition, weighted by rows."""
        weighted = np.asarray(values, dtype=np.float64) * self.rows
        sets = [list(S) for S in self.partitions_of]
        return [float(weighted[S].sum() / self.rows[S].sum()) for S in sets]


class Trainer:
    """The models of all tasks, and what one who holds some partitions does with them in a round.

    Parameters
    ----------
    problem : Problem
    partitions : mapping of index `n` to Partition
        Those that are stored here; may be none.

    Attributes
    ----------
    own : tuple of int
        Indices of the stored partitions, ascending.
    W : (T, d) array of the run's dtype
        The models, zero at first; the intercept, if any, is the last column.

    Raises
    ------
    DataError
        A partition is not the one declared under its index, or its targets do not suit the loss.
    """

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        for n, partition in partitions.items():
            if not 0 <= n < len(problem.infos) or problem.infos[n].id != partition.id:
                raise DataError("partition", f"must be the one declared as number {n}", partition.id)
            info = problem.infos[n]
            declared = (info.task, info.rows, info.features)
            if declared != (partition.task, partition.rows, partition.features):
                raise DataError(
                    f"partition {partition.id!r}",
                    f"must have task, rows and features as declared {declared}",
                    (partition.task, partition.rows, partition.features),
                )
            check_targets(problem.settings.loss, partition.y, f"partition {partition.id!r}")
        self.problem = problem
        self.own = tuple(sorted(partitions))
        self._stored = tuple(partitions[n] for n in self.own)
        self.W: Vectors = np.zeros((len(problem.tasks), problem.d), problem.dtype)

    def local_updates(self, out: Vectors) -> Floats:
        """Write `v_n`, the gradient of the mean loss per row at the current models, for stored partitions.

        Parameters
        ----------
        out : (len(own), d) array of the run's dtype
            Row `i` becomes the update of partition `own[i]`. No update depends on what else is stored here.

        Returns
        -------
        (len(own),) float64 array
            Mean loss per row of each partition at the current models.

        Raises
        ------
        UsageError
            `out` has another shape or dtype.
        """
        expected = ((len(self.own), self.problem.d), self.problem.dtype)
        if (out.shape, out.dtype) != expected:
            raise UsageError("out", f"must have shape and dtype {expected}", (out.shape, out.dtype))
        losses = np.empty(len(self.own))
        F = self.problem.features
        # What overflows here is caught in `step`, where it is everybody's error and not one worker's.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (n, partition) in enumerate(zip(self.own, self._stored, strict=True)):
                values, derivatives = self._losses(n, partition)
                losses[i] = values.mean()
                derivatives /= partition.rows
                out[i, :F] = derivatives @ partition.X
                out[i, F:] = derivatives.sum()
        return losses

    def losses(self) -> Floats:
        """What `local_updates` returns, without the updates."""
        pairs = zip(self.own, self._stored, strict=True)
        return np.array([self._losses(n, partition)[0].mean() for n, partition in pairs])

    def aggregate(self, t: int, updates: Vectors) -> Vectors:
        """`Problem.aggregate`."""
        return self.problem.aggregate(t, updates)

    def step(self, Z: Vectors) -> None:
        """`W ← prox(W − step·Z)` with the aggregated updates of all tasks, `Z` (T, d).

        Raises
        ------
        DataError
            The models outgrow the run's dtype.
        """
        problem = self.problem
        # One float64 matrix, worked on in place: at a million features copies are what costs.
        V = Z.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            V *= -problem.step
            V += self.W
        largest = max(float(V.max()), -float(V.min()))
        if not largest <= float(np.finfo(problem.dtype).max):
            raise DataError("models", f"must stay finite in {problem.dtype}; scale the features", largest)
        F = problem.features
        self.W[:, :F] = problem.coupling.prox(V[:, :F], problem.step)
        self.W[:, F:] = V[:, F:]

    def penalty(self) -> float:
        """`λ R(W)` of the current models."""
        F = self.problem.features
        return self.problem.coupling.penalty(self.W[:, :F].astype(np.float64))

    def objective(self, losses: ArrayLike) -> float:
        """`Σ_t (1/n_t)·loss_t(w_t) + λ R(W)`, given the mean losses of all `N` partitions at these models."""
        return self.problem.data_loss(losses) + self.penalty()

    def models(self) -> TaskModels:
        """The current models, as a copy."""
        F = self.problem.features
        intercept = self.W[:, F] if self.problem.settings.intercept else np.zeros(len(self.W), self.W.dtype)
        return TaskModels(
            self.problem.tasks, self.W[:, :F].copy(), intercept.copy(), self.problem.settings.loss
        )

    def _losses(self, n: int, partition: Partition) -> tuple[Floats, Floats]:
        """Loss and its derivative by the score at the current model of partition `n`, row by row."""
        w = self.W[self.problem.task_of[n]].astype(np.float64)
        F = self.problem.features
        scores = partition.X @ w[:F]
        if self.problem.settings.intercept:
            scores += w[F]
        return self.problem.loss.value_and_derivative(scores, partition.y)


class Trained(NamedTuple):
    """What `train` returns: models, and the objective (rounds,) at the beginning of each round."""

    models: TaskModels
    objectives: Floats


def train(partitions: Sequence[Partition], settings: Settings) -> Trained:
    """The one-process twin: bit for bit what a distributed run gives on this machine.

    Parameters
    ----------
    partitions : sequence of Partition
        All of them, in the order of their index `n`.
    settings : Settings

    Raises
    ------
    DataError
        The partitions do not fit each other or the loss, or the models outgrow the dtype.
    """
    with single_threaded():
        infos = [p.info(settings.loss, intercept=settings.intercept) for p in partitions]
        problem = Problem(settings, infos)
        trainer = Trainer(problem, dict(enumerate(partitions)))
        updates = np.empty((len(infos), problem.d), problem.dtype)
        Z = np.empty((len(problem.tasks), problem.d), problem.dtype)
        objectives = np.empty(settings.rounds)
        for r in range(settings.rounds):
            objectives[r] = trainer.objective(trainer.local_updates(updates))
            for t, S in enumerate(problem.partitions_of):
                Z[t] = trainer.aggregate(t, updates[list(S)])
            trainer.step(Z)
    return Trained(trainer.models(), objectives)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One BLAS thread while in force: how a sum is split over threads shows in its last bits."""
    with threadpool_limits(limits=1):
        yield


def _check_infos(infos: Sequence[PartitionInfo]) -> None:
    if not infos:
        raise DataError("partitions", "must be at least one", [])
    ids = [info.id for info in infos]
    if len(set(ids)) != len(ids):
        raise DataError(
            "partitions", "must be declared once each; twice", sorted({i for i in ids if ids.count(i) > 1})
        )
    for info in infos:
        what = f"partition {info.id!r}"
        if info.rows < 1 or info.features < 1:
            raise DataError(
                what, "needs at least one row and one feature, as shape", (info.rows, info.features)
            )
        if not 0.0 <= info.smoothness < math.inf:
            raise DataError(f"smoothness of {what}", "must be a finite number, at least 0", info.smoothness)
        if info.features != infos[0].features:
            raise DataError(
                f"features of {what}",
                f"must be as many as in {ids[0]!r} ({infos[0].features})",
                info.features,
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
