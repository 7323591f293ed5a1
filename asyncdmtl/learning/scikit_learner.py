"""Linear models of scikit-learn as local learners, described by text that is parsed and never evaluated."""

from __future__ import annotations

import ast
import inspect
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.local_learner import LocalStart
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition

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
"""Parameters that a learner must not set, each with the setting or the reason that governs it."""

REGRESSORS = ("SGDRegressor", "PassiveAggressiveRegressor", "ElasticNet", "Lasso")
"""Regressors of scikit-learn that start from a given linear model, as documented there.

HuberRegressor is excluded: with a warm start, it fits an intercept even if none is wanted, and then drops it.
"""

CLASSIFIERS = ("SGDClassifier", "PassiveAggressiveClassifier", "Perceptron", "LogisticRegression")
"""Classifiers of scikit-learn that start from a given linear model, as documented there."""

# The most characters of a learner's text. All parameters of any learner fit in a few hundred.
_MAX_SPEC_LENGTH = 1000

# The lock that is held while warnings are switched off, since warning filters are global to the process.
_WARNINGS_OFF = threading.Lock()


class ScikitLearner:
    """A linear model of scikit-learn that continues from the task's model.

    A model that learns row by row makes `epochs` passes of `partial_fit` over the rows, in an order drawn
    from `seed`; its learning rate starts again with each call. Any other model makes a warm start of at most
    `epochs` iterations. The loss and the penalty are those of its parameters, not those of the run.

    Parameters
    ----------
    made : type
        One of `REGRESSORS` or `CLASSIFIERS`.
    parameters : mapping
        Arguments of its constructor, without any of `GOVERNED`.
    intercept : bool
        Whether models have an intercept.
    """

    def __init__(self, made: type[Any], parameters: Mapping[str, Any], *, intercept: bool) -> None:
        self._made = made
        self._parameters = dict(parameters)
        self._intercept = intercept
        self._classifies = made.__name__ in CLASSIFIERS
        self._by_rows = hasattr(made, "partial_fit")
        learns = made.partial_fit if self._by_rows else made.fit
        self._weighted = "sample_weight" in inspect.signature(learns).parameters

    def fit(self, partition: Partition, start: LocalStart) -> tuple[Floats, float]:
        """As `Learner.fit`."""
        self.check(partition)
        try:
            coef, intercept = self._continued(partition, start)
        except ValueError as error:
            if "overflow" not in str(error):
                raise
            return np.full_like(start.w, np.nan), math.nan
        return coef, intercept

    def check(self, partition: Partition) -> None:
        """As `Learner.check`."""
        name, y = self._made.__name__, partition.y
        if partition.weights is not None and not self._weighted:
            raise DataError("weights", f"cannot be used by the learner {name}", partition.weights)
        if self._classifies and not self._by_rows and (y == y[0]).all():
            rule = f"must be both 0 and 1 for the learner {name} (SGDClassifier takes one class)"
            raise DataError("labels", rule, float(y[0]))

    def try_parameters(self) -> None:
        """Raise the errors of scikit-learn about the parameters, by trial fits of two rows.

        Scikit-learn checks parameters when it fits, which is too late in the middle of a run. `partial_fit`
        checks fewer of them than `fit`, but has rules of its own, so both are tried.
        """
        rows = Partition("p", "t", np.array([[0.0], [1.0]]), np.array([0.0, 1.0]))
        with _no_warnings():
            self._made(**self._parameters).fit(rows.X, rows.y)
        self._continued(rows, LocalStart(np.zeros(1), 0.0, 1.0, 1, 0))

    def _continued(self, partition: Partition, start: LocalStart) -> tuple[Floats, float]:
        """The result of `fit`, with scikit-learn's own errors."""
        X, y = partition.X, partition.y
        with _no_warnings():
            model = self._estimator(start)
            given = {} if partition.weights is None else {"sample_weight": partition.weights}
            if self._by_rows:
                if self._classifies:
                    given["classes"] = np.array([0.0, 1.0])
                for _ in range(start.epochs):
                    model.partial_fit(X, y, **given)
            else:
                model.fit(X, y, **given)
        coef = np.asarray(model.coef_, dtype=np.float64).reshape(start.w.shape)
        return coef, float(np.ravel(model.intercept_)[0]) if self._intercept else 0.0

    def _estimator(self, start: LocalStart) -> Any:
        """An estimator that continues from the given model as if it had fitted it itself."""
        random = np.random.RandomState(start.seed % 2**32)
        set_here = {
            "fit_intercept": self._intercept, "max_iter": start.epochs, "random_state": random,
            "warm_start": True,
        }  # fmt: skip
        known = _defaults(self._made)
        model = self._made(
            **self._parameters, **{name: value for name, value in set_here.items() if name in known}
        )
        model.coef_ = start.w[None, :].copy() if self._classifies else start.w.copy()
        model.intercept_ = np.array([start.b])
        return model


def make_scikit_learner(spec: str, loss: str, *, intercept: bool) -> ScikitLearner:
    """The learner of scikit-learn that a text describes, see `learners.make_learner`."""
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


def learner_spec(estimator: object) -> str:
    """The text that describes an estimator of scikit-learn to `learners.make_learner`.

    Only parameters that differ from their defaults are written. A fitted model is not.

    Raises
    ------
    UsageError
        The estimator is not one of `REGRESSORS` or `CLASSIFIERS`, or sets a parameter that the run sets or
        that is no literal.
    """
    from sklearn import linear_model

    name = type(estimator).__name__
    if name not in REGRESSORS + CLASSIFIERS or type(estimator) is not getattr(linear_model, name, None):
        raise UsageError("learner", f"must be one of {', '.join(REGRESSORS + CLASSIFIERS)}", estimator)
    given: dict[str, Any] = estimator.get_params(deep=False)  # type: ignore[attr-defined]
    with _no_warnings():
        defaults = _defaults(type(estimator))
    changed = {key: value for key, value in given.items() if not _same(value, defaults[key])}
    _check_parameters(changed)
    written = ", ".join(f"{key}={_literal(key, value)}" for key, value in sorted(changed.items()))
    return f"{name}({written})"


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Switch off warnings in a `with` block: a few epochs are not expected to converge.

    The filters of warnings belong to the process, so threads take turns.
    """
    with _WARNINGS_OFF, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parsed(spec: str) -> tuple[str, dict[str, Any]]:
    rule = "must be a name, with parameters that are literals, like SGDRegressor(alpha=0.0, eta0=0.01)"
    if len(spec) > _MAX_SPEC_LENGTH:
        raise UsageError("learner", f"must have at most {_MAX_SPEC_LENGTH} characters", spec)
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            given = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
            if "" not in given:  # "" is the name of an unpacked dict
                return call.func.id, given
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError("learner", rule, spec) from error
    raise UsageError("learner", rule, spec)


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name, by in GOVERNED.items():
        if name in parameters:
            raise UsageError(f"learner's {name}", f"must be left to {by}", parameters[name])
    # This solver ignores the starting model.
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
