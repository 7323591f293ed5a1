"""What a run is compared with: every task by itself, with scikit-learn, on the same rows; and the scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES, check_targets
from asyncdmtl.learning.tasks import Partition, TaskModels, task_arrays
from asyncdmtl.learning.training import single_threaded
from asyncdmtl.plan.placement import natural_key

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_CS = np.logspace(-3, 3, 7)
_ALPHAS = np.logspace(-4, 3, 15)
_FOLDS = 5


def single_task(partitions: Sequence[Partition], loss: str, *, intercept: bool = True) -> TaskModels:
    """Each task fitted alone on all its rows, its ℓ2 regularisation chosen by cross-validation.

    Squared loss: ridge regression, leave-one-out. Logistic loss: logistic regression, up to five
    stratified folds judged by log-loss. A task too small to be cross-validated gets a middling
    regularisation, a task of one class a constant.

    Raises
    ------
    UsageError
        No baseline for this loss, or (as DataError) targets that do not suit it.
    """
    fits = {"squared": _fit_ridge, "logistic": _fit_logistic}
    if loss not in fits:
        raise UsageError("loss", f"must be one of {', '.join(fits)} for single-task training", loss)
    arrays = task_arrays(partitions)
    tasks = tuple(sorted(arrays, key=natural_key))
    coefs, intercepts = [], []
    # Many small fits: BLAS threads would spend their time waiting for each other.
    with single_threaded():
        for task in tasks:
            X, y = arrays[task]
            check_targets(loss, y, f"task {task!r}")
            w, b = fits[loss](X, y, intercept)
            coefs.append(w)
            intercepts.append(b)
    return TaskModels(tasks, np.array(coefs), np.array(intercepts), loss)


def score(models: TaskModels, test: Mapping[str, tuple[Floats, Floats]], metric: str) -> dict[str, float]:
    """A metric for each task with test data, in natural order of the tasks.

    Parameters
    ----------
    models : TaskModels
    test : mapping of task to `X` (rows, features) and `y` (rows,)
    metric : "ROC AUC" or "RMSE"

    Returns
    -------
    dict of task to float
        NaN where the metric has no value: ROC AUC of test rows of one class, RMSE of no rows.

    Raises
    ------
    UsageError
        A task without a model, or (as DataError) rows that do not fit.
    """
    return {
        task: _METRICS[metric](test[task][1], models.decision_function(test[task][0], task))
        for task in sorted(test, key=natural_key)
    }


def mean_score(scores: Mapping[str, float]) -> float:
    """Mean over the tasks that have a score; NaN if none has."""
    known = [value for value in scores.values() if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def higher_is_better(metric: str) -> bool:
    """Whether a larger score is a better one."""
    return metric == "ROC AUC"


def _fit_ridge(X: Floats, y: Floats, intercept: bool) -> tuple[Floats, float]:
    # In units of the mean non-zero eigenvalue of XᵀX, so that one grid fits data of any scale.
    centred = X - X.mean(axis=0) if intercept else X
    alphas = _ALPHAS * (float((centred**2).sum()) / min(X.shape) or 1.0)
    if len(y) > 2:
        model = RidgeCV(alphas, fit_intercept=intercept)
    else:
        model = Ridge(alphas[len(alphas) // 2], fit_intercept=intercept)
    model.fit(X, y)
    return np.asarray(model.coef_, dtype=np.float64), float(model.intercept_)


def _fit_logistic(X: Floats, y: Floats, intercept: bool) -> tuple[Floats, float]:
    positives = int(y.sum())
    rare = min(positives, len(y) - positives)
    if rare == 0:
        odds = (positives + 1) / (len(y) - positives + 1)
        return np.zeros(X.shape[1]), math.log(odds) if intercept else 0.0
    best = _CS[len(_CS) // 2]
    with warnings.catch_warnings():
        # At the weak end of the grid separable rows have no optimum; what counts is the loss reached.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if rare > 1:
            folds = list(StratifiedKFold(min(_FOLDS, rare)).split(X, y))
            best = min(_CS, key=lambda C: math.fsum(_held_out_loss(X, y, intercept, C, *f) for f in folds))
        model = LogisticRegression(C=best, fit_intercept=intercept, max_iter=1000).fit(X, y)
    return np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0]) if intercept else 0.0


def _held_out_loss(X: Floats, y: Floats, intercept: bool, C: float, fit: Indices, held: Indices) -> float:
    model = LogisticRegression(C=C, fit_intercept=intercept, max_iter=1000).fit(X[fit], y[fit])
    values, _ = LOSSES["logistic"].value_and_derivative(model.decision_function(X[held]), y[held])
    return float(values.sum())


def _roc_auc(y: Floats, scores: Floats) -> float:
    if len(np.unique(y)) < 2:
        return math.nan
    return float(roc_auc_score(y, scores))


def _rmse(y: Floats, scores: Floats) -> float:
    return float(np.sqrt(np.mean((y - scores) ** 2))) if len(y) else math.nan


_METRICS = {"ROC AUC": _roc_auc, "RMSE": _rmse}
