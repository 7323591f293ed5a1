"""Local learners: what makes a partition's own model of the task's, where updates are models.

A learner travels as text, the same to every holder of a partition: "" is gradient descent, anything else a
linear model of scikit-learn with parameters, say `SGDRegressor(alpha=0.0, eta0=0.01)`. The text is parsed,
never evaluated.
"""

from __future__ import annotations

import ast
import inspect
import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES, Loss
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition

# What the run decides, and by which of its settings.
GOVERNED: Mapping[str, str] = MappingProxyType(
    {
        "fit_intercept": "the setting intercept",
        "max_iter": "the setting epochs",
        "random_state": "the setting seed",
        "warm_start": "the run, which always starts from the task's model",
        "average": "the run, which averages models itself",
        "early_stopping": "the run, which makes all epochs",
        "copy_X": "the run, whose data must stay as they are",
        "n_jobs": "the run, which uses one thread",
        "verbose": "the run, which reports itself",
    }
)

# Whose start from a given model is scikit-learn's promise, and whose model is linear in the features.
# HuberRegressor is not among them: its start drops an intercept that was not asked for after fitting it.
REGRESSORS = ("SGDRegressor", "PassiveAggressiveRegressor", "ElasticNet", "Lasso")
CLASSIFIERS = ("SGDClassifier", "PassiveAggressiveClassifier", "Perceptron", "LogisticRegression")

_LONGEST = 1000
_QUIET = threading.Lock()


class Learner(Protocol):
    """Trains one partition for some epochs, from a given model on."""

    def fit(
        self, X: Floats, y: Floats, weights: Floats | None, w: Floats, b: float,
        *, smoothness: float, epochs: int, seed: int,
    ) -> tuple[Floats, float]:  # fmt: skip
        """The model after `epochs` local epochs from `w`, `b` on; the same bits at every holder.

        For the same bits the caller allows one thread only (`training.single_threaded`).

        Parameters
        ----------
        X : (rows, features) float64 array
        y : (rows,) float64 array
            Labels of a classification are 0 and 1, and may all be equal.
        weights : (rows,) float64 array, or None
            Of the rows.
        w : (features,) float64 array
            As `X`, `y` and `weights` left as it is.
        b : float
            Intercept; 0 if the run has none, and then stays 0.
        smoothness : float
            `Partition.smoothness` of these rows.
        epochs : int
            At least 1.
        seed : int
            At least 0; of what is drawn at random.

        Returns
        -------
        Coefficients (features,) float64 and intercept: not finite if the learner diverged.

        Raises
        ------
        DataError
            Data that this learner cannot train on: weights, or labels of one class only. The caller adds
            the partition's name.
        """

    def check(self, y: Floats, weights: Floats | None) -> None:
        """DataError as `fit`, without training: labels or weights (rows,) that this learner cannot use."""


class GradientDescent:
    """`epochs` steps of length 1 / smoothness on the weighted mean loss of all rows."""

    def __init__(self, loss: Loss, *, intercept: bool) -> None:
        self._loss = loss
        self._intercept = intercept

    def fit(
        self, X: Floats, y: Floats, weights: Floats | None, w: Floats, b: float,
        *, smoothness: float, epochs: int, seed: int,
    ) -> tuple[Floats, float]:  # fmt: skip
        """As `Learner.fit`; draws nothing at random."""
        step = 1.0 / smoothness if smoothness > 0.0 else 1.0
        weight = float(len(y)) if weights is None else float(total(weights))
        for _ in range(epochs):
            scores = matmul(X, w) + b
            _, derivatives = self._loss.value_and_derivative(scores, y)
            if weights is not None:
                derivatives = derivatives * weights
            w = w - step / weight * matmul(derivatives, X)
            if self._intercept:
                b -= step / weight * float(total(derivatives))
        return w, b

    def check(self, y: Floats, weights: Floats | None) -> None:
        """All will do."""


class ScikitLearner:
    """A linear model of scikit-learn, continued from the task's model.

    Those that learn row by row make `epochs` passes of `partial_fit` over rows in an order drawn from `seed`,
    their learning rate starting anew with each call; the others a warm start of at most `epochs` iterations.
    What loss and penalty they minimise is given by their parameters, not by the run's.

    Parameters
    ----------
    made : type
        One of `REGRESSORS` or `CLASSIFIERS`.
    parameters : mapping
        Of its constructor; none of `GOVERNED`.
    intercept : bool
    """

    def __init__(self, made: type[Any], parameters: Mapping[str, Any], *, intercept: bool) -> None:
        self._made = made
        self._parameters = dict(parameters)
        self._intercept = intercept
        self._classifies = made.__name__ in CLASSIFIERS
        self._by_rows = hasattr(made, "partial_fit")
        learns = made.partial_fit if self._by_rows else made.fit
        self._weighted = "sample_weight" in inspect.signature(learns).parameters

    def fit(
        self, X: Floats, y: Floats, weights: Floats | None, w: Floats, b: float,
        *, smoothness: float, epochs: int, seed: int,
    ) -> tuple[Floats, float]:  # fmt: skip
        """As `Learner.fit`."""
        self.check(y, weights)
        try:
            coef, intercept = self.continued(X, y, weights, w, b, epochs, seed)
        except ValueError as error:
            if "overflow" not in str(error):
                raise
            return np.full_like(w, np.nan), math.nan
        return coef, intercept

    def check(self, y: Floats, weights: Floats | None) -> None:
        """As `Learner.check`."""
        name = self._made.__name__
        if weights is not None and not self._weighted:
            raise DataError("weights", f"cannot be used by the learner {name}", weights)
        if self._classifies and not self._by_rows and (y == y[0]).all():
            rule = f"must be both 0 and 1 for the learner {name} (SGDClassifier takes one class)"
            raise DataError("labels", rule, float(y[0]))

    def continued(
        self, X: Floats, y: Floats, weights: Floats | None, w: Floats, b: float, epochs: int, seed: int
    ) -> tuple[Floats, float]:
        """What `fit` does, with scikit-learn's own errors."""
        with _quiet():
            model = self._start(w, b, epochs, np.random.RandomState(seed % 2**32))
            given = {} if weights is None else {"sample_weight": weights}
            if self._by_rows:
                if self._classifies:
                    given["classes"] = np.array([0.0, 1.0])
                for _ in range(epochs):
                    model.partial_fit(X, y, **given)
            else:
                model.fit(X, y, **given)
        coef = np.asarray(model.coef_, dtype=np.float64).reshape(w.shape)
        return coef, float(np.ravel(model.intercept_)[0]) if self._intercept else 0.0

    def try_parameters(self) -> None:
        """Raise what scikit-learn finds wrong with the parameters.

        It looks at them when it fits, which is too late in the middle of a run, and not at all when it goes
        on by `partial_fit`; but that has rules of its own.
        """
        X, y = np.array([[0.0], [1.0]]), np.array([0.0, 1.0])
        with _quiet():
            self._made(**self._parameters).fit(X, y)
        self.continued(X, y, None, np.zeros(1), 0.0, 1, 0)

    def _start(self, w: Floats, b: float, epochs: int, random: np.random.RandomState) -> Any:
        """An estimator to which the given model looks like its own from before."""
        set_here = {
            "fit_intercept": self._intercept, "max_iter": epochs, "random_state": random, "warm_start": True
        }  # fmt: skip
        known = _defaults(self._made)
        model = self._made(
            **self._parameters, **{name: value for name, value in set_here.items() if name in known}
        )
        model.coef_ = w[None, :].copy() if self._classifies else w.copy()
        model.intercept_ = np.array([b])
        return model


def make_learner(spec: str, loss: str, *, intercept: bool) -> Learner:
    """The learner that a text describes.

    Parameters
    ----------
    spec : str
        "" for `GradientDescent`; else the name of one of `REGRESSORS` (for losses of real targets) or
        `CLASSIFIERS` (for those of labels), and its parameters as literals, if any, in brackets.
    loss : str
        A name in `LOSSES`.
    intercept : bool
        Whether models have one.

    Raises
    ------
    UsageError
        The text is not of that form, or names no learner for this loss, or parameters that it does not
        take or that the run sets.
    """
    if not spec:
        return GradientDescent(LOSSES[loss], intercept=intercept)
    from sklearn import linear_model

    name, parameters = _parsed(spec)
    wanted = CLASSIFIERS if LOSSES[loss].classification else REGRESSORS
    working = [learner for learner in wanted if hasattr(linear_model, learner)]
    if name not in working:
        raise UsageError("learner", f"must be one of {', '.join(working)} for {loss} loss", name)
    _check_parameters(parameters)
    made = getattr(linear_model, name)
    try:
        learner = ScikitLearner(made, parameters, intercept=intercept)
        learner.try_parameters()
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError("learner", f"must have parameters that {name} accepts ({error})", spec) from error
    return learner


def check_learner(partitions: Sequence[Partition], settings: Settings) -> None:
    """Find out before a run whether its learner can train on all partitions, where these are at hand.

    Raises
    ------
    UsageError
        As `make_learner`; or, as DataError, names the task and the partition of labels or weights that the
        learner cannot use.
    """
    learner = make_learner(settings.learner, settings.loss, intercept=settings.has_intercept)
    problem = Problem(settings, [partition.info(settings) for partition in partitions])
    for t, partition in zip(problem.task_of, partitions, strict=True):
        if t in problem.fixed:
            continue
        try:
            learner.check(partition.y, partition.weights)
        except DataError as error:
            what = f"task {partition.task!r}, partition {partition.id!r}: {error.argument}"
            raise DataError(what, error.rule, error.value) from error


def learner_spec(estimator: object) -> str:
    """The text that describes an estimator of scikit-learn to `make_learner`.

    Only parameters that are not the default are written; what the estimator may have learned is not.

    Raises
    ------
    UsageError
        Not one of `REGRESSORS` or `CLASSIFIERS`, a parameter that the run sets, or one that is no literal.
    """
    from sklearn import linear_model

    name = type(estimator).__name__
    if name not in REGRESSORS + CLASSIFIERS or type(estimator) is not getattr(linear_model, name, None):
        raise UsageError("learner", f"must be one of {', '.join(REGRESSORS + CLASSIFIERS)}", estimator)
    given: dict[str, Any] = estimator.get_params(deep=False)  # type: ignore[attr-defined]
    with _quiet():
        defaults = _defaults(type(estimator))
    changed = {key: value for key, value in given.items() if not _same(value, defaults[key])}
    _check_parameters(changed)
    written = ", ".join(f"{key}={_literal(key, value)}" for key, value in sorted(changed.items()))
    return f"{name}({written})"


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings: not to converge in few epochs is the plan, and the rest is what the user asked for.

    Filters of warnings belong to the process, so that threads must take turns.
    """
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parsed(spec: str) -> tuple[str, dict[str, Any]]:
    rule = "must be a name, with parameters that are literals, like SGDRegressor(alpha=0.0, eta0=0.01)"
    if len(spec) > _LONGEST:
        raise UsageError("learner", f"must have at most {_LONGEST} characters", spec)
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            given = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
            if "" not in given:  # it would be a dict to be unpacked
                return call.func.id, given
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError("learner", rule, spec) from error
    raise UsageError("learner", rule, spec)


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name, by in GOVERNED.items():
        if name in parameters:
            raise UsageError(f"learner's {name}", f"must be left to {by}", parameters[name])
    # This solver alone starts from nothing however it is asked.
    if parameters.get("solver") == "liblinear":
        raise UsageError("learner's solver", "must be one that can start from a model", "liblinear")


def _defaults(made: type[Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = made().get_params(deep=False)
    return defaults


def _same(value: object, default: object) -> bool:
    return type(value) is type(default) and value == default


def _literal(name: str, value: object) -> str:
    """`value` as text that `ast.literal_eval` reads."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0.0 else "-1e999"
    if isinstance(value, dict):
        items = (f"{_literal(name, key)}: {_literal(name, item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and value == value):
        return repr(value)
    raise UsageError(f"learner's {name}", "must be a number, text, or a dict of these", value)
