"""The base of regressors and classifiers: parameters, the training run, and predictions."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import as_text
from asyncdmtl.data.reading import identity
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators.cluster_parameter import ClusterParameter
from asyncdmtl.estimators.frames import Target, TaskFrames
from asyncdmtl.estimators.results import Results
from asyncdmtl.estimators.rows import TaskRows
from asyncdmtl.estimators.running import Launch, check_site, is_remote, of_site, run_observed
from asyncdmtl.learning.learners import check_learner
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.outcome import zero_words
from asyncdmtl.learning.scikit_learner import learner_spec
from asyncdmtl.learning.selection import critical_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.records import RunRecord

# For errors: a mapping of names of settings and options to the parameters of an estimator that set them.
_PARAMETERS: Mapping[str, str] = {
    "rounds": "max_iter", "tolerance": "tol", "intercept": "fit_intercept", "seed": "random_state",
    "folds": "cv", "accelerated": "strategy", "--strategy": "strategy",
    "--strategy linear": "strategy linear",
}  # fmt: skip

# The default λ, as a share of the critical strength, above which the coupling alone determines the models.
# This is a moderate coupling for any scale of the target.
DEFAULT_SHARE = 0.03

# A mapping of `fit_intercept` to `Settings.intercept`.
_INTERCEPTS: Mapping[object, str] = {True: "free", False: "none", "penalised": "penalised"}
# The keys of a run's report whose values grow with the number of rounds.
_BY_ROUND = ("rounds", "ledger")
# The fields of a round's record that `history_` has.
_HISTORY = ("round", "objective", "residual", "up_bytes", "down_bytes", "seconds")


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTask(Results, ClusterParameter):
    """The base of regressors and classifiers: parameters, the training run, and predictions."""

    coupling: str = "nuclear"
    loss: str = "squared"
    edges: Sequence[tuple[Hashable, Hashable, float]] = ()
    aggregate: str = "mean"
    update: str = "auto"
    epochs: int = 1
    learner: Any = None
    fit_intercept: bool | str = True
    standardise: bool = False
    max_iter: int = 5000
    tol: float = 1e-6
    dtype: str = "float64"
    strategy: str = "relay"
    workers: int = 3
    copies: int = 2
    parts: int = 1
    cluster: Any = "threads"
    name: str = ""
    unknown: str = "error"
    random_state: Any = 0
    on_event: Any = None
    verbose: bool = False

    def fit(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> Self:
        """Train a model for each task, all of them together.

        Parameters
        ----------
        X : (n, features) array-like, DataFrame or sparse matrix; or a list of them, one per task
            Sparse rows become dense ones.
        y : (n,) array-like; or a list of arrays
        tasks : array-like of n labels, or the name of a column of `X`, or None
            The task of each row: text, numbers, anything hashable. A column of tasks is no feature, and need
            not be named again later. With lists, one label per array, by default 0, 1, …. None is one task.
        sample_weight : (n,) array-like, or a list of arrays, or None
            A row of weight 2 counts as two equal rows, a row of weight 0 as none.

        Raises
        ------
        ValueError
            Names the parameter, task or column that breaks a rule.
        """
        with _parameter_names():
            self._check_parameters()
            frames, y = self._read(X, y, tasks, sample_weight)
            self._fit(frames, y)
        return self

    def predict(self, X: Any, tasks: Any = None) -> Any:
        """Predicted values or classes of rows, (n,), each under the model of its task.

        Parameters
        ----------
        X : (n, features) array-like or DataFrame; or a list of arrays, for a list of results
        tasks : as for `fit`
            May be None if there is one task only, or if `fit` was given the name of a column.

        Raises
        ------
        ValueError
            A task has no model, and the error names it; or `X` has other columns than in `fit`.
        """
        rows, index, scores = self._scores(X, tasks)
        return self._returned(rows, index, self._predicted(scores))

    @property
    def _intercept(self) -> str:
        if self.fit_intercept not in (True, False, "penalised"):
            raise UsageError("fit_intercept", "must be True, False or 'penalised'", self.fit_intercept)
        return _INTERCEPTS[self.fit_intercept]

    def _check_parameters(self) -> None:
        if self.unknown not in ("error", "mean"):
            raise UsageError("unknown", "must be error or mean", self.unknown)
        suited = [name for name, loss in LOSSES.items() if loss.classification == is_classifier(self)]
        if self.loss not in suited:
            raise UsageError("loss", f"must be one of {', '.join(suited)}", self.loss)
        if not (self.on_event is None or callable(self.on_event)):
            raise UsageError("on_event", "must be a function of an event, or None", self.on_event)
        check_site(self.name, self.cluster, standardise=self.standardise)

    def _read(self, X: Any, y: Any, tasks: Any, sample_weight: Any) -> tuple[TaskFrames, NDArray[Any]]:
        """The rows and targets of `fit`, without rows of weight 0."""
        rows = TaskRows.gather(X, tasks)
        y = rows.flat(y, "y")
        shape: tuple[int, ...] = getattr(y, "shape", ())
        if len(shape) == 2 and shape[1] > 1:
            rule = "must be 1-D (several outputs: give the rows once for each, as tasks), as shape"
            raise DataError("y", rule, shape)
        numeric = not is_classifier(self)
        X, y = validate_data(
            self, rows.X, y, dtype=np.float64, order="C", y_numeric=numeric, accept_sparse="csr"
        )
        X = dense(X)
        if numeric and y.dtype.kind not in "biuf":
            raise DataError("y", "must be numbers", y[0])
        labels, weights = rows.of_each(len(X)), None
        if sample_weight is not None:
            given = rows.flat(sample_weight, "sample_weight")
            weights = _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)
            kept = np.flatnonzero(weights)
            if gone := set(labels) - {labels[i] for i in kept}:
                raise DataError("sample_weight", "must not be 0 for all rows of a task", [*map(str, gone)])
            X, y, weights, labels = X[kept], y[kept], weights[kept], [labels[i] for i in kept]
        self._task_column = rows.column
        frames = TaskFrames(
            X, weights, labels,
            loss=self.loss, intercept=self._intercept, standardise=self.standardise, parts=plain(self.parts),
            site=self.name, centred=not is_remote(self.cluster),
        )  # fmt: skip
        self.tasks_ = list(frames.names)
        return frames, y

    def _train(self, frames: TaskFrames, targets: Sequence[Target]) -> tuple[Floats, Floats]:
        """Train, set the fitted attributes of the run, and return coefficients and intercepts by target."""
        frames, partitions, settings = self._choose(frames, targets)
        record, models = self._run(settings, partitions)
        self.strength_ = record.settings.strength or 0.0
        self.n_iter_ = len(record.rounds)
        self.converged_ = record.converged
        self.history_ = _history(record)
        # Without its lists by round: `history_` has what they say, in a tenth of the memory.
        report = report_run(record)
        self.traffic_ = {name: value for name, value in report.items() if name not in _BY_ROUND}
        # A copy, because the plan of the run has cached values that cannot be pickled.
        self.plan_ = replace(record.plan)
        _warn(record)
        return frames.models_as_given(models, targets)

    def _prepared(self, frames: TaskFrames, targets: Sequence[Target]) -> tuple[list[Partition], Settings]:
        """The partitions of all targets, and the settings for them, as far as they are given."""
        settings = replace(self._settings(self._edges(frames.names)), intercept=frames.intercept)
        partitions = sorted(frames.partitions(targets), key=lambda partition: natural_key(partition.id))
        if settings.learner:
            check_learner(partitions, settings)
        return partitions, settings

    def _edges(self, names: Mapping[Hashable, str]) -> list[tuple[str, str, float]]:
        """The edges of the graph, with tasks by the names that they have in the run."""
        for edge in self.edges:
            if not isinstance(edge, tuple | list) or len(edge) != 3:
                raise UsageError("edges", "must each be (task, task, weight)", edge)
            if unknown := [task for task in edge[:2] if task not in names]:
                raise UsageError("edges", "must join tasks; unknown", unknown[0])
        return [(names[s], names[t], plain(weight)) for s, t, weight in self.edges]

    def _settings(self, edges: Sequence[tuple[str, str, float]]) -> Settings:
        learner = self.learner or ""
        return Settings(
            loss=self.loss,
            coupling=self.coupling,
            strength=0.0 if self._strength_is_open else getattr(self, "strength", 0.0),
            rounds=plain(self.max_iter),
            aggregate=self.aggregate,
            edges=tuple(edges),
            tolerance=plain(self.tol),
            update="gradient" if (self.update, self.strategy) == ("auto", "linear") else self.update,
            epochs=plain(self.epochs),
            learner=learner if isinstance(learner, str) else learner_spec(learner),
            accelerated=self.strategy != "linear",
            dtype=self.dtype,
            intercept=self._intercept,
            seed=_seed(self.random_state),
        )

    def _choose(
        self, frames: TaskFrames, targets: Sequence[Target]
    ) -> tuple[TaskFrames, Sequence[Partition], Settings]:
        """The frames, partitions and settings to train with; the default λ, if `strength` is None."""
        partitions, settings = self._prepared(frames, targets)
        of_job = settings if is_remote(self.cluster) else self._settings_of_job(settings, partitions)
        return frames, partitions, of_job

    @property
    def _strength_is_open(self) -> bool:
        """Whether `strength` is None; estimators that choose it themselves have no such parameter."""
        return getattr(self, "strength", 0.0) is None

    def _run(self, settings: Settings, partitions: Sequence[Partition]) -> tuple[RunRecord, TaskModels]:
        placed = Placement.cyclic(plain(self.workers), len(partitions), plain(self.copies))
        left = ["strength"] * self._strength_is_open + ["update"] * (self.update == "auto")
        job = partial(self._settings_of_job, settings, partitions)
        launch = Launch(self.cluster, self.strategy, left, self.on_event, bool(self.name), job)
        at = of_site(placed, self.name)
        return run_observed(launch, settings, partitions, at, verbose=bool(self.verbose))

    def _settings_of_job(self, settings: Settings, partitions: Sequence[Partition]) -> Settings:
        """The settings for a job of a server's stream, to which these rows are all."""
        if not self._strength_is_open:
            return settings
        return replace(settings, strength=DEFAULT_SHARE * critical_strength(partitions, settings))

    def _scores(self, X: Any, tasks: Any) -> tuple[TaskRows, Any, Floats]:
        """Scores of rows under the models of their tasks: (n,), or (n, classes) where there are many."""
        check_is_fitted(self)
        rows = TaskRows.gather(X, tasks, self._task_column)
        index = rows.X.index if hasattr(rows.X, "index") else None
        X = dense(validate_data(self, rows.X, dtype=np.float64, reset=False, accept_sparse="csr"))
        if rows.labels is None and len(self.tasks_) > 1:
            raise UsageError("tasks", f"must be given: there are models of {len(self.tasks_)} tasks", None)
        labels = self.tasks_ * len(X) if rows.labels is None else rows.of_each(len(X))
        codes = self._codes(labels)
        # The last model is the mean of all, for tasks that were not in `fit`.
        coef = np.concatenate([self.coef_, self.coef_.mean(axis=0, keepdims=True)])
        intercept = np.concatenate([self.intercept_, self.intercept_.mean(axis=0, keepdims=True)])
        return rows, index, _scores(X, codes, coef, intercept)

    def _codes(self, labels: Sequence[Hashable]) -> NDArray[np.int64]:
        """The number of each row's task; that of a task that was not in `fit` is T, if that is permitted."""
        t_of = {task: t for t, task in enumerate(self.tasks_)}
        unknown = [label for label in dict.fromkeys(labels) if label not in t_of]
        if unknown and self.unknown != "mean":
            raise UsageError("tasks", f"must be among the {len(t_of)} of fit; unknown", unknown[0])
        # The mean model would be a silent wrong result for a known task in another spelling.
        spelled = {identity(as_text(task)): task for task in t_of} if unknown else {}
        if other := [label for label in unknown if identity(as_text(label)) in spelled]:
            known = spelled[identity(as_text(other[0]))]
            raise UsageError("tasks", f"must be as in fit, where there is {known!r}", other[0])
        return np.array([t_of.get(label, len(t_of)) for label in labels])

    def _rated(self, metric: Any, X: Any, y: Any, tasks: Any, sample_weight: Any) -> float:
        """A metric of `predict` over the rows of all tasks."""
        rows, _, scores = self._scores(X, tasks)
        weights = rows.flat(sample_weight, "sample_weight")
        return float(metric(rows.flat(y, "y"), self._predicted(scores), sample_weight=weights))

    def _returned(self, rows: TaskRows, index: Any, values: NDArray[Any], columns: Any = None) -> Any:
        """Values in the form that `set_output` chose; a list of these if `X` was a list."""
        parts = rows.like_given(values)
        if getattr(self, "_sklearn_output_config", {}).get("transform") != "pandas":
            return parts
        import pandas as pd

        index = pd.RangeIndex(len(values)) if index is None else index
        whole = pd.Series(values, index) if columns is None else pd.DataFrame(values, index, columns)
        if rows.lengths is None:
            return whole
        ends = np.cumsum(rows.lengths)
        return [whole.iloc[end - n : end] for end, n in zip(ends, rows.lengths, strict=True)]

    @abstractmethod
    def _fit(self, frames: TaskFrames, y: NDArray[Any]) -> None:
        """Train on the rows of all tasks."""

    @abstractmethod
    def _predicted(self, scores: Floats) -> NDArray[Any]:
        """The predictions that follow from scores."""


def _history(record: RunRecord) -> dict[str, Floats]:
    """The fields of `_HISTORY` by round; the last objective and residual are those of the final models."""
    history = {name: np.array([getattr(r, name) for r in record.rounds]) for name in _HISTORY}
    if record.outcome is not None:
        history["objective"][-1:] = record.outcome.objective
        history["residual"][-1:] = record.outcome.gap
    return history


def _scores(X: Floats, codes: NDArray[np.int64], coef: Floats, intercept: Floats) -> Floats:
    """Scores of rows under the models of their tasks, which `codes` number."""
    scores = np.empty((len(X), *coef.shape[1:-1]))
    for t in np.unique(codes):
        own = codes == t
        scores[own] = matmul(X[own], coef[t].T) + intercept[t]
    return scores


def dense(X: Any) -> Floats:
    """Rows as a dense array, whatever they were."""
    rows: Floats = X.toarray() if issparse(X) else X
    return rows


def plain(value: Any) -> Any:
    """A NumPy scalar as a plain Python number; grid searches pass NumPy scalars."""
    return value.item() if isinstance(value, np.generic) else value


def _warn(record: RunRecord) -> None:
    """Warn of models that have not converged, or whose coefficients are all 0."""
    settings = record.settings
    if not record.converged and settings.tolerance > 0.0:
        warnings.warn(
            f"the models have not converged after max_iter={settings.rounds} rounds: "
            "raise max_iter or tol, or bring the features to one scale (standardise=True)",
            ConvergenceWarning,
            stacklevel=5,
        )
    if record.critical_strength:
        words = zero_words(settings.strength or 0.0, record.critical_strength)
        warnings.warn(words, ConvergenceWarning, stacklevel=5)


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def _parameter_names() -> Iterator[None]:
    """Make errors in a `with` block name parameters of an estimator instead of settings and options."""
    try:
        yield
    except UsageError as error:
        own = _PARAMETERS.get(error.argument)
        if own is None:
            raise
        raise type(error)(own, error.rule, error.value) from error
