"""How well models do on rows with known targets: per task, and over all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import natural_key

Rows = tuple[Floats, Floats]
Decided = tuple[Floats, Floats]


@dataclass(frozen=True)
class Metric:
    """A number that says how well scores (rows,) fit targets (rows,); NaN where it has no value."""

    of: Callable[[Floats, Floats], float]
    higher_is_better: bool


@dataclass(frozen=True)
class Scores:
    """A metric of some models.

    Attributes
    ----------
    tasks : mapping of task to float
        In natural order of the tasks; NaN where the metric has no value.
    all_rows : float
        Of the rows of all tasks together, which is what the literature on multi-task regression reports as
        "test RMSE". Large tasks count more, and a ROC AUC compares scores of different models.
    """

    tasks: Mapping[str, float]
    all_rows: float

    @property
    def mean(self) -> float:
        """Mean over the tasks that have a value, each counting the same; NaN if none has."""
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
        A task without a model, or (as DataError) rows that do not fit.
    """
    return measure(decide(models, rows), metric)


def decide(models: TaskModels, rows: Mapping[str, Rows]) -> dict[str, Decided]:
    """Targets and scores (rows,) of each task, in natural order of the tasks; UsageError as `score`."""
    tasks = sorted(rows, key=natural_key)
    return {task: (rows[task][1], models.decision_function(rows[task][0], task)) for task in tasks}


def measure(decided: Mapping[str, Decided], metric: str) -> Scores:
    """A metric of what `decide` gave."""
    of = METRICS[metric].of
    y, scores = (np.concatenate([np.empty(0), *(each[i] for each in decided.values())]) for i in (0, 1))
    return Scores({task: of(*each) for task, each in decided.items()}, of(y, scores))


def metrics_for(loss: str) -> tuple[str, str]:
    """The two metrics to show for a loss, the more telling first."""
    return ("ROC AUC", "accuracy") if LOSSES[loss].classification else ("RMSE", "R²")


def _roc_auc(y: Floats, scores: Floats) -> float:
    # Here and not above: scikit-learn takes a second to import.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores)) if len(np.unique(y)) == 2 else math.nan


def _accuracy(y: Floats, scores: Floats) -> float:
    return float(np.mean((scores > 0.0) == (y == 1.0))) if len(y) else math.nan


def _rmse(y: Floats, scores: Floats) -> float:
    return float(np.sqrt(np.mean((y - scores) ** 2))) if len(y) else math.nan


def _r2(y: Floats, scores: Floats) -> float:
    if not len(y) or y.min() == y.max():
        return math.nan
    return 1.0 - float(((y - scores) ** 2).sum() / ((y - y.mean()) ** 2).sum())


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "ROC AUC": Metric(_roc_auc, higher_is_better=True),
        "accuracy": Metric(_accuracy, higher_is_better=True),
        "RMSE": Metric(_rmse, higher_is_better=False),
        "R²": Metric(_r2, higher_is_better=True),
    }
)
