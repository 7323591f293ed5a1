"""Local learners from their description as text, for runs whose updates are models.

All holders of a partition get the same text: "" is gradient descent, any other text is a linear model of
scikit-learn with parameters, such as `SGDRegressor(alpha=0.0, eta0=0.01)` (`scikit_learner`).
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.errors import DataError
from asyncdmtl.learning.local_learner import GradientDescent, Learner
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition


def make_learner(spec: str, loss: str, *, intercept: bool) -> Learner:
    """The learner that a text describes.

    Parameters
    ----------
    spec : str
        "" for `GradientDescent`; else the name of one of `scikit_learner.REGRESSORS` (for losses of real
        targets) or `scikit_learner.CLASSIFIERS` (for losses of labels), and its parameters as literals, if
        any, in brackets.
    loss : str
        A name in `LOSSES`.
    intercept : bool
        Whether models have an intercept.

    Raises
    ------
    UsageError
        The text is malformed, names no learner for this loss, or sets parameters that the learner does not
        accept or that the run sets.
    """
    if not spec:
        return GradientDescent(LOSSES[loss], intercept=intercept)
    # Imported here, because scikit-learn takes a second to load.
    from asyncdmtl.learning.scikit_learner import make_scikit_learner

    return make_scikit_learner(spec, loss, intercept=intercept)


def check_learner(partitions: Sequence[Partition], settings: Settings) -> None:
    """Check before a run that its learner can train on these partitions.

    Raises
    ------
    UsageError
        As `make_learner`. It is a DataError, which names task and partition, if the learner cannot use the
        labels or weights of a partition.
    """
    learner = make_learner(settings.learner, settings.loss, intercept=settings.has_intercept)
    problem = Problem(settings, [partition.info(settings) for partition in partitions])
    for t, partition in zip(problem.task_of, partitions, strict=True):
        if t in problem.fixed:
            continue
        try:
            learner.check(partition)
        except DataError as error:
            what = f"task {partition.task!r}, partition {partition.id!r}: {error.argument}"
            raise DataError(what, error.rule, error.value) from error
