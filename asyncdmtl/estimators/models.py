"""The estimators: regression and classification, with λ given or chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.data.class_weights import BALANCED, balanced_factors
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators.base import CodedMultiTask
from asyncdmtl.estimators.cross_validated import CrossValidated
from asyncdmtl.estimators.frames import Target, TaskFrames
from asyncdmtl.learning.losses import predictions_of


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
        return predictions_of(self.loss, scores)


@dataclass(eq=False, repr=False, kw_only=True)
class _Classifier(ClassifierMixin, CodedMultiTask):  # type: ignore[misc]
    """One target for each task or, if there are more than two classes, for each class of each task."""

    loss: str = "logistic"
    class_weight: Any = None

    def decision_function(self, X: Any, tasks: Any = None) -> Any:
        """Scores of rows: (n,), positive for `classes_[1]`; or (n, classes), largest for the predicted class.

        Parameters and errors as for `predict`.
        """
        rows, index, scores = self._scores(X, tasks)
        return self._returned(rows, index, scores, self.classes_ if scores.ndim == 2 else None)

    @available_if(lambda self: self.loss == "logistic")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, tasks: Any = None) -> Any:
        """Probabilities of classes, (n, classes): with more than two classes, each against the rest, scaled
        to sum 1.

        Only under logistic loss. Parameters and errors as for `predict`.
        """
        rows, index, scores = self._scores(X, tasks)
        both = scores if scores.ndim == 2 else np.column_stack([-scores, scores])
        return self._returned(rows, index, softmax(log_expit(both), axis=1), self.classes_)

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
        if self.class_weight is not None:
            frames.reweight(
                class_weights(self.class_weight, self.classes_, codes, frames.rows, frames.weights)
            )
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
class CodedMultiTaskRegressor(_Regressor):
    """A linear regression for each task, all trained together in a coded distributed run.

    Minimises `Σ_t (1/n_t) Σ_i loss(y_i, x_i·w_t + b_t) + λ R(W)`, `n_t` the rows (or weight) of task `t`, to
    within `tol` of the optimum. Workers hold the rows, some rows several times, and talk over TCP; all bytes
    are counted.

    Parameters
    ----------
    coupling : str
        R, the penalty that ties the tasks' models `W` together: "none", "nuclear", "l21", "mean",
        "mean-regularised", "chain" (of tasks in natural order of their text), "graph", "covariance",
        "sparse-low-rank", "clustered"; see `asyncdmtl.learning.couplings`.
    strength : float or None
        λ, at least 0. None takes 3 % of the critical strength, above which the coupling alone determines the
        models of these rows (`Coupling.critical_strength`), or the λ of a server elsewhere. The estimators
        with CV in their name choose λ.
    loss : str
        "squared" (half the square), "huber" (the same up to a residual of 1, then linear) or "poisson" (half
        the Poisson deviance, for targets of at least 0: predictions are `exp(x·w + b)`).
    edges : sequence of (task, task, weight)
        Pairs of tasks that resemble each other, for the coupling "graph".
    aggregate : str
        How the updates of a task's partitions become one: "mean", or a rule that withstands outliers; see
        `asyncdmtl.learning.aggregation`.
    update : str
        The result of a partition in a round: its "statistics", once, from which every worker solves the rest
        (squared loss); loss and gradient, with curvatures ("newton") or without ("quasi-newton"), for few and
        long steps; its "gradient"; or first the "model" that `epochs` local epochs of `learner` make, and
        then as "newton". "auto" takes the kind that costs least in bytes and rounds.
    epochs : int
    learner : linear estimator of scikit-learn, or its text, or None for gradient descent
    fit_intercept : bool or "penalised"
        "penalised" adds a feature that is always 1, and that the coupling sees.
    standardise : bool
        Whether columns are divided by their standard deviation over all rows in training. The fitted
        attributes are for rows as given in either case.
    max_iter : int
        The most rounds.
    tol : float
        The permitted distance of the objective from its minimum, as a share of the objective (from that of a
        fixed point, see `converged_`); with 0, all `max_iter` rounds are made.
    dtype : str
        "float64" or "float32": the type of models and of exchanged vectors.
    strategy : str
        "relay", "central", "personal", "linear", "uncoded" or "auto": where updates are aggregated, and what
        is sent.
    workers, copies : int
        How many workers there are, and how many of them hold each partition.
    parts : int
        The most partitions that the rows of a task are cut into.
    cluster : str or distributed.Client
        Where training runs: in "threads" of this process, in "processes" on this machine, on the Dask workers
        of a client, or with the server at "HOST:PORT" (`python -m asyncdmtl.server --workers …`). Such a
        server has its own strategy, and its settings must equal these; with `--submissions`, it makes each
        `fit` a job with these settings, several at a time. Pickles have "threads" in place of a
        Dask client. Secrets and certificates for it are taken from the environment:
        ASYNCDMTL_SECRET and the other variables of `python -m asyncdmtl.worker`.
    name : str
        The name of this site, where several estimators take part in the run of one server: its workers are
        NAME-w0, NAME-w1, …, its partitions NAME/TASK/0, …. Sites may have rows of the same tasks, and each
        gets the models of its own. `copies` are those at this site. Columns must have the same scale at all
        sites, so `standardise` must be False.
    unknown : str
        Rows of a task that was not in `fit`: an "error", or predicted by the "mean" of all tasks' models.
    random_state : int, RandomState or None
        The seed for learners that draw random numbers.
    on_event : callable or None
        A callback: a function that is called with every event of the run (`asyncdmtl.server.events`), from
        `Started` over a `RoundRecord` for each round to `Finished` or `Failed`, in a thread of its own. If it
        fails, it is warned of, and gets no more events. A server elsewhere tells no events in between.
    verbose : bool
        Whether a bar on stderr, or in the notebook, shows the progress of the rounds.

    Attributes
    ----------
    tasks_ : list of length T
        The labels of the tasks, in natural order of their text; [0] if `fit` was given no tasks.
    coef_ : (T, features) float64 array
    intercept_ : (T,) float64 array
    strength_ : float
        λ.
    n_iter_ : int
        Rounds made.
    converged_ : bool
        Whether `tol` was reached; if not, there was a ConvergenceWarning. With an `aggregate` other than
        "mean", or a `learner`, the models are then near a fixed point of the rounds, not the minimum.
    history_ : dict of (n_iter_,) arrays
        One value for each round: "round" (its number, from 0), "objective", "residual" (an estimate of the
        distance of the objective from its minimum), "up_bytes", "down_bytes", "seconds". With a server
        elsewhere, "objective" and "residual" may be NaN. Pickles have 100 rounds at most, evenly spaced.
    traffic_ : dict
        Loads and bytes of the run, in the form of the reports of `asyncdmtl run`, without its lists by round.
    plan_ : Plan or LinearPlan
        The plan behind the traffic: matrices, loads, their lower bounds and the certificate.
    n_features_in_, feature_names_in_
        As in all estimators of scikit-learn. The column of tasks is no feature.

    Notes
    -----
    With an intercept, rows and targets are centred within each task in training, which changes only the
    number of rounds. Several outputs (a 2-D `y`) are refused: pass the rows once for each output, as a task
    each.

    With scikit-learn's metadata routing, `set_fit_request(tasks=True)` and `set_score_request(tasks=True)`
    let meta-estimators pass tasks on. A scorer passes nothing to `predict`: there, use a DataFrame with a
    column of tasks.
    """

    strength: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskClassifier(_Classifier):
    """A linear classifier for each task, all trained together in a coded distributed run.

    With two classes, each task has one model. With K > 2, each class of each task is a task of its own in
    training, named `TASK=CLASS`: this class against the rest. A class without rows in a task is predicted
    there only if the models of other tasks suggest it.

    Parameters
    ----------
    loss : str
        "logistic" or "squared_hinge". Only logistic loss gives probabilities.
    class_weight : dict of class to float, "balanced" or None
        Factors of the weights of rows, by their class; 1 for classes that a dict does not name. "balanced"
        gives all classes of a task the same weight, as in scikit-learn; a task's weight stays as it is. With
        a server elsewhere, the rows of a task are those that `fit` was given here.
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
    If all rows of a task are of one class, or none is, logistic loss would drive the task's intercept to
    infinity. Instead, Laplace's rule of succession sets the intercept, to odds of n + 1 at the mean of the n
    rows. The coefficients are the limit of training, in which the loss of the task is 0 and only the coupling
    with other tasks determines them.
    """

    strength: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskRegressorCV(_Regressor, CrossValidated):
    """`CodedMultiTaskRegressor` with λ chosen by cross-validation over a path, with warm starts.

    λ is chosen in this process, without traffic; then the models are trained with it on all rows. With a
    server elsewhere, which needs `--strength auto`, the run chooses λ from the rows of all sites.

    Parameters
    ----------
    strengths : sequence of float, or None
        The values of λ to try; None takes a path that falls from the critical strength.
    cv : int
        Folds. The rows of each task are dealt to them at random, by `random_state`.
    fit_intercept : bool, "penalised" or "auto"
        "auto" tries free and penalised intercepts, each with its own path of λ.
    all others
        As in `CodedMultiTaskRegressor`.

    Attributes
    ----------
    strength_ : float
        The λ of the least mean held-out loss.
    cv_results_ : dict of arrays, one value for each λ that was tried
        "param_strength", "split0_test_loss", …, "mean_test_loss", "std_test_loss", "rank_test_loss"; the loss
        of a row, averaged over the held-out rows of each task, then over tasks.
    fit_intercept_ : bool or "penalised"
        `fit_intercept`, or the kind of less held-out loss if that is "auto"; `cv_results_` are those with it.
    all others
        As in `CodedMultiTaskRegressor`.
    """


@dataclass(eq=False, repr=False, kw_only=True)
class CodedMultiTaskClassifierCV(_Classifier, CrossValidated):
    """`CodedMultiTaskClassifier` with λ chosen by cross-validation over a path, with warm starts.

    Parameters
    ----------
    strengths, cv, fit_intercept
        As in `CodedMultiTaskRegressorCV`. In each task, folds have the two classes in equal shares.
    all others
        As in `CodedMultiTaskClassifier`.

    Attributes
    ----------
    strength_, cv_results_, fit_intercept_
        As in `CodedMultiTaskRegressorCV`.
    all others
        As in `CodedMultiTaskClassifier`.
    """


def class_weights(
    given: Any,
    classes: NDArray[Any],
    codes: NDArray[np.intp],
    tasks: Sequence[Indices],
    weights: Floats | None,
) -> Floats:
    """The factor (n,) of each row's weight.

    Parameters
    ----------
    given : "balanced" or mapping of class to float
    classes : (K,) array
    codes : (n,) integer array
        The class of each row.
    tasks : sequence of integer arrays
        The rows of each task.
    weights : (n,) float64 array, or None

    Raises
    ------
    UsageError
        `given` is something else, names an unknown class, or has a factor that is none.
    """
    factors = np.ones(len(codes))
    if isinstance(given, str) and given == BALANCED:
        for rows in tasks:
            factors[rows] = balanced_factors(codes[rows], None if weights is None else weights[rows])
        return factors
    if not isinstance(given, Mapping):
        raise UsageError("class_weight", 'must be "balanced", a dict or None', given)
    position = {class_: c for c, class_ in enumerate(classes.tolist())}
    for class_, factor in given.items():
        if class_ not in position:
            raise UsageError("class_weight", f"must name classes of y, {classes.tolist()}; unknown", class_)
        if not isinstance(factor, int | float | np.number) or not 0.0 < factor < np.inf:
            raise UsageError("class_weight", f"of {class_!r} must be a finite number above 0", factor)
        factors[codes == position[class_]] = factor
    return factors


def _labels(codes: NDArray[np.intp], positive: int) -> Floats:
    """1.0 for rows of the class `positive`, 0.0 for all others."""
    labels: Floats = (codes == positive).astype(np.float64)
    return labels
