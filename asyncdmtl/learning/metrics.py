"""Metrics of models on rows with known targets: per task, and over all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from asyncdmtl.arithmetic.elementary import expit, log
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import natural_key

Rows = tuple[Floats, Floats]
"""`X` (rows, features) and `y` (rows,)."""

Decided = tuple[Floats, Floats]
"""Targets and scores of the same rows: (rows,) each."""


@dataclass(frozen=True)
class Metric:
    """A number that measures how well scores (rows,) fit targets (rows,); NaN if it is undefined."""

    of: Callable[[Floats, Floats], float]
    higher_is_better: bool


@dataclass(frozen=True)
class Scores:
    """The values of a metric for some models.

    Attributes
    ----------
    tasks : mapping of task to float
        The value of each task, in natural order of the tasks; NaN if it is undefined.
    all_rows : float
        The value over the rows of all tasks together. The literature on multi-task regression reports this
        as "test RMSE". Large tasks count more, and a ROC AUC compares scores of different models.
    """

    tasks: Mapping[str, float]
    all_rows: float

    @property
    def mean(self) -> float:
        """The unweighted mean over the tasks whose value is defined; NaN if there is none."""
        known = [value for value in self.tasks.values() if not math.isnan(value)]
        return math.fsum(known) / len(known) if known else math.nan


def score(models: TaskModels, rows: Mapping[str, Rows], metric: str) -> Scores:
    """Score models on rows of their tasks.

    Parameters
    ----------
    models : TaskModels
    rows : mapping of task to `X` (rows, features) and `y` (rows,)
    metric : str
        A name in `METRICS`.

    Raises
    ------
    UsageError
        A task has no model. It is a DataError if rows have another number of features.
    """
    return measure(decide(models, rows), metric)


def decide(models: TaskModels, rows: Mapping[str, Rows]) -> dict[str, Decided]:
    """Targets and scores (rows,) of each task, in natural order of the tasks. UsageError as `score`."""
    tasks = sorted(rows, key=natural_key)
    return {task: (rows[task][1], models.decision_function(rows[task][0], task)) for task in tasks}


def measure(decided: Mapping[str, Decided], metric: str) -> Scores:
    """The values of a metric for the result of `decide`."""
    of = METRICS[metric].of
    y, scores = (np.concatenate([np.empty(0), *(each[i] for each in decided.values())]) for i in (0, 1))
    return Scores({task: of(*each) for task, each in decided.items()}, of(y, scores))


def metrics_for(loss: str) -> tuple[str, str]:
    """The two metrics to show for a loss, the more informative first."""
    if LOSSES[loss].counts:
        return ("Poisson deviance", "D²")
    return ("ROC AUC", "accuracy") if LOSSES[loss].classification else ("RMSE", "R²")


def further_metrics(loss: str) -> tuple[str, ...]:
    """The metrics to report beside `metrics_for` a loss; only logistic loss has probabilities."""
    if not LOSSES[loss].classification:
        return ()
    return ("average precision", "F1", *(("log-loss", "Brier score") if loss == "logistic" else ()))


def _roc_auc(y: Floats, scores: Floats) -> float:
    # Imported here, because scikit-learn takes a second to load.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores)) if len(np.unique(y)) == 2 else math.nan


def _accuracy(y: Floats, scores: Floats) -> float:
    return float(np.mean((scores > 0.0) == (y == 1.0))) if len(y) else math.nan


def _average_precision(y: Floats, scores: Floats) -> float:
    """The area under the curve of precision over recall, as a sum of steps."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, scores)) if (y == 1.0).any() else math.nan


def _f1(y: Floats, scores: Floats) -> float:
    """`2 TP / (2 TP + FP + FN)` of class 1."""
    said, true = scores > 0.0, y == 1.0
    count = int(said.sum()) + int(true.sum())
    return 2.0 * int((said & true).sum()) / count if count else math.nan


def _log_loss(y: Floats, scores: Floats) -> float:
    """The mean of `−log p` of the true class, with `p` by the logistic function."""
    values, _ = LOSSES["logistic"].value_and_derivative(scores, y)
    return float(np.mean(values)) if len(y) else math.nan


def _brier(y: Floats, scores: Floats) -> float:
    """The mean of `(p − y)²`, with the probability `p` of class 1 by the logistic function."""
    return float(np.mean((expit(scores) - y) ** 2)) if len(y) else math.nan


def _rmse(y: Floats, scores: Floats) -> float:
    return float(np.sqrt(np.mean((y - scores) ** 2))) if len(y) else math.nan


def _r2(y: Floats, scores: Floats) -> float:
    if not len(y) or y.min() == y.max():
        return math.nan
    return 1.0 - float(((y - scores) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _deviance(y: Floats, scores: Floats) -> float:
    """The mean Poisson deviance of the means `exp(score)`."""
    values, _ = LOSSES["poisson"].value_and_derivative(scores, y)
    return 2.0 * float(np.mean(values)) if len(y) else math.nan


def _explained_deviance(y: Floats, scores: Floats) -> float:
    """The share of the deviance about the mean target that the models explain."""
    if not len(y) or y.min() == y.max():
        return math.nan
    return 1.0 - _deviance(y, scores) / _deviance(y, log(np.full(len(y), y.mean())))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "ROC AUC": Metric(_roc_auc, higher_is_better=True),
        "accuracy": Metric(_accuracy, higher_is_better=True),
        "average precision": Metric(_average_precision, higher_is_better=True),
        "F1": Metric(_f1, higher_is_better=True),
        "log-loss": Metric(_log_loss, higher_is_better=False),
        "Brier score": Metric(_brier, higher_is_better=False),
        "RMSE": Metric(_rmse, higher_is_better=False),
        "R²": Metric(_r2, higher_is_better=True),
        "Poisson deviance": Metric(_deviance, higher_is_better=False),
        "D²": Metric(_explained_deviance, higher_is_better=True),
    }
)
