"""The estimators: regression and classification, with λ given or found."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, softmax
from scipy.stats import rankdata
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError
from asyncdmtl.estimators.base import CodedMultiTask, plain
from asyncdmtl.estimators.frames import Target, TaskFrames
from asyncdmtl.learning.selection import Selection, select_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition


@dataclass(eq=False, repr=False, kw_only=True)
class _Regressor(RegressorMixin, CodedMultiTask):  # type: ignore[misc]
    """One target for each task."""

    def score(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> float:
        """R² of `predict` over the rows of all tasks; parameters as for `fit`."""
        return self._rated(r2_score, X, y, tasks, sample_weight)

    def _fit(self, frames: TaskFrames, y: NDArray[Any]) -> None:
        targets = [Target(name, t, y[frames.rows[t]]) for t, name in enumerate(frames.names.values())]
        self.coef_, self.intercept_ = self._train(frames, targets)

    def _predicted(self, scores: Floats) -> Floats:
        return scores


@dataclass(eq=False, repr=False, kw_only=True)
class _Classifier(ClassifierMixin, CodedMultiTask):  # type: ignore[misc]
    """One target for each task, or of more than two classes for each class of each task."""

    loss: str = "logistic"

    def decision_function(self, X: Any, tasks: Any = None) -> Any:
        """Scores of rows: (n,), positive for `classes_[1]`; or (n, classes), the largest for the class.

        Parameters and errors as for `predict`.
        """
        rows, index, scores = self._scores(X, tasks)
        return self._given_out(rows, index, scores, self.classes_ if scores.ndim == 2 else None)

    @available_if(lambda self: self.loss == "logistic")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, tasks: Any = None) -> Any:
        """Probabilities of classes, (n, classes); of more than two, those of each against the rest, scaled.

        Only under logistic loss. Parameters and errors as for `predict`.
        """
        rows, index, scores = self._scores(X, tasks)
        both = scores if scores.ndim == 2 else np.column_stack([-scores, scores])
        return self._given_out(rows, index, softmax(log_expit(both), axis=1), self.classes_)

    def score(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> float:
        """Accuracy of `predict` over the rows of all tasks; parameters as for `fit`."""
        return self._rated(accuracy_score, X, y, tasks, sample_weight)

    def _fit(self, frames: TaskFrames, y: NDArray[Any]) -> None:
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        K, names = len(self.classes_), list(frames.names.values())
        if K < 2:
            raise DataError("y", "must have at least two classes over all tasks; one class", self.classes_[0])
        if K == 2:
            targets = [Target(name, t, _labels(codes, 1)[frames.rows[t]]) for t, name in enumerate(names)]
        else:
            targets = [
                Target(f"{name}={class_}", t, _labels(codes, c)[frames.rows[t]])
                for t, name in enumerate(names)
                for c, class_ in enumerate(self.classes_)
            ]
        coef, intercept = self._train(frames, targets)
        shape = (len(names),) if K == 2 else (len(names), K)
        self.coef_, self.intercept_ = coef.reshape(*shape, -1), intercept.reshape(shape)

    def _edges(self, names: Mapping[Hashable, str]) -> list[tuple[str, str, float]]:
        edges = super()._edges(names)
        if len(self.classes_) == 2:
            return edges
        return [(f"{s}={c}", f"{t}={c}", weight) for s, t, weight in edges for c in self.classes_]

    def _predicted(self, scores: Floats) -> NDArray[Any]:
        found: NDArray[Any] = self.classes_[
            scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0.0).astype(int)
        ]
        return found


@dataclass(eq=False, repr=False, kw_only=True)
class _CrossValidated:
    """λ from a path, by held-out loss."""

    strengths: Sequence[float] | None = None
    cv: int = 5

    def _choose(self, frames: TaskFrames, partitions: Sequence[Partition], settings: Settings) -> Settings:
        counts = [len(rows) for rows in frames.rows]
        if max(counts) < 2:
            rule = f"with n_samples = {sum(counts)} must include a task of two rows, to hold one out; rows"
            raise DataError("tasks", rule, counts)
        selection = select_strength(partitions, settings, strengths=self.strengths, folds=plain(self.cv))
        self.strength_ = selection.strength
        self.cv_results_ = _results(selection)
        return replace(settings, strength=selection.strength)


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskRegressor(_Regressor):
    """A linear regression for each task, all trained together in a coded distributed run.

    Minimises `Σ_t (1/n_t) Σ_i loss(y_i, x_i·w_t + b_t) + λ R(W)`, `n_t` the rows (or weight) of task `t`, by
    accelerated proximal gradients until it is estimated to be within `tol` of the least. Workers hold the
    rows, some of them several times, and talk over TCP; what that costs is measured.

    Parameters
    ----------
    coupling : str
        R, what ties the tasks' models `W` together: "none", "nuclear", "l21", "mean", "mean-regularised",
        "chain" (of tasks in natural order of their text), "graph", "covariance", "sparse-low-rank",
        "clustered"; see `asyncdmtl.learning.couplings`.
    strength : float or None
        λ, at least 0. None takes 3 % of that from which on the coupling decides alone for these rows
        (`Coupling.critical_strength`): a middling one, whatever the scale of the target; with a server of
        yours that server's. `…CV` choose it.
    loss : str
        "squared" (half the square) or "huber" (the same up to a residual of 1, then linear).
    edges : sequence of (task, task, weight)
        Which tasks resemble each other, for the coupling "graph".
    aggregate : str
        How the updates of a task's `parts` become one: "mean", or one that withstands outliers; see
        `asyncdmtl.learning.aggregation`.
    update : str
        What is computed from a partition in a round: the "gradient", or the "model" that `epochs` local
        epochs of `learner` make; only the former reaches the optimum exactly.
    epochs : int
    learner : linear estimator of scikit-learn, or its text, or None for gradient descent
    fit_intercept : bool or "penalised"
        "penalised": as one more feature that is always 1, which the coupling sees.
    standardise : bool
        Whether columns are divided by their standard deviation over all rows before λ R(W) sees their
        coefficients. The attributes are for rows as given either way.
    max_iter : int
        Rounds at the most.
    tol : float
        Part of the objective that the models may be above the least; 0 makes all rounds.
    dtype : str
        "float64" or "float32", of models and of what is exchanged.
    strategy : str
        "relay", "central", "personal", "linear", "uncoded" or "auto": who aggregates, and what is sent.
    workers, copies : int
        How many workers there are, and how many of them hold each partition.
    parts : int
        Partitions that the rows of a task are cut into, at the most.
    cluster : str
        Where it runs: in "threads" of this process, in "processes" on this machine, or with the server at
        "HOST:PORT" (`python -m asyncdmtl.server --workers …`), whose strategy counts and whose settings must
        be these. What its workers need to be let in is taken from the environment: ASYNCDMTL_SECRET and the
        other options of `python -m asyncdmtl.worker`.
    random_state : int, RandomState or None
        For learners that draw at random.

    Attributes
    ----------
    tasks_ : list of length T
        The labels of the tasks, in natural order of their text; 0 if nothing was said of tasks.
    coef_ : (T, features) float64 array
    intercept_ : (T,) float64 array
    strength_ : float
        λ.
    n_iter_ : int
        Rounds made.
    converged_ : bool
        Whether `tol` was reached; if not, there was a ConvergenceWarning.
    history_ : dict of (n_iter_,) arrays
        By round: "objective", "residual" (the estimate of how far that is above the least), "up_bytes",
        "down_bytes", "seconds". Of a server elsewhere, objective and residual may be NaN.
    traffic_ : dict
        What travelled, in the form of the reports of `asyncdmtl run`.
    plan_ : Plan or LinearPlan
        Why: matrices, loads, their lower bounds and the certificate.
    n_features_in_, feature_names_in_
        As in all of scikit-learn; the column of tasks is not among them.

    Notes
    -----
    With an intercept, rows and targets are centred within each task while training, which changes nothing but
    the number of rounds. Several outputs (a 2-D `y`) are refused: give the rows once for each, as tasks.

    With scikit-learn's metadata routing, `set_fit_request(tasks=True)` and `set_score_request(tasks=True)`
    let meta-estimators pass tasks on. Where they cannot (a scorer does not pass anything to `predict`), name
    a column of a DataFrame.
    """

    strength: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskClassifier(_Classifier):
    """A linear classifier for each task, all trained together in a coded distributed run.

    Of two classes, a task has one model. Of K > 2, each class of each task is a task of its own in training,
    with the name `TASK=CLASS`: this class against the rest. A class that a task has no rows of is never
    predicted there unless what it shares with other tasks suggests it.

    Parameters
    ----------
    loss : str
        "logistic" or "squared_hinge". Only the former gives probabilities.
    all others
        As in `CodedMultiTaskRegressor`.

    Attributes
    ----------
    classes_ : (K,) array
        All classes of all tasks, sorted.
    coef_ : (T, features) or, for K > 2, (T, K, features) float64 array
    intercept_ : (T,) or (T, K) float64 array
    all others
        As in `CodedMultiTaskRegressor`.

    Notes
    -----
    If all rows of a task are of one class (or none is of a class), logistic loss would drive its intercept
    to infinity. It is set by Laplace's rule of succession instead, to odds of n + 1 for n rows at their mean,
    and the coefficients to what other tasks suggest: the limit of training, in which its loss is 0.
    """

    strength: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskRegressorCV(_CrossValidated, _Regressor):
    """`CodedMultiTaskRegressor` with λ chosen by cross-validation over a path, with warm starts.

    λ is chosen in this process, without traffic; then the models are trained with it on all rows.

    Parameters
    ----------
    strengths : sequence of float, or None
        The values of λ to try; None takes a path from where λ is overwhelming down.
    cv : int
        Folds. The rows of each task are dealt to them at random, by `random_state`.
    all others
        As in `CodedMultiTaskRegressor`.

    Attributes
    ----------
    strength_ : float
        The λ of the least mean held-out loss.
    cv_results_ : dict of arrays, one value for each λ that was tried
        "param_strength", "split0_test_loss", …, "mean_test_loss", "std_test_loss", "rank_test_loss"; the loss
        of a row, averaged over the held-out rows of each task, then over tasks.
    all others
        As in `CodedMultiTaskRegressor`.
    """


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskClassifierCV(_CrossValidated, _Classifier):
    """`CodedMultiTaskClassifier` with λ chosen by cross-validation over a path, with warm starts.

    Parameters
    ----------
    strengths, cv
        As in `CodedMultiTaskRegressorCV`. In each task, folds have the two classes in equal shares.
    all others
        As in `CodedMultiTaskClassifier`.

    Attributes
    ----------
    strength_, cv_results_
        As in `CodedMultiTaskRegressorCV`.
    all others
        As in `CodedMultiTaskClassifier`.
    """


def _labels(codes: NDArray[np.intp], positive: int) -> Floats:
    """1.0 for rows of this class, 0.0 for others."""
    labels: Floats = (codes == positive).astype(np.float64)
    return labels


def _results(selection: Selection) -> dict[str, NDArray[Any]]:
    """In the manner of GridSearchCV's `cv_results_`."""
    mean = np.nanmean(selection.losses, axis=1)
    folds = {f"split{i}_test_loss": column for i, column in enumerate(selection.losses.T)}
    return {
        "param_strength": selection.strengths,
        **folds,
        "mean_test_loss": mean,
        "std_test_loss": np.nanstd(selection.losses, axis=1),
        "rank_test_loss": rankdata(mean, method="min").astype(int),
    }
