from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.learners import make_learner
from asyncdmtl.learning.local_learner import LocalStart
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.scikit_learner import CLASSIFIERS, REGRESSORS, learner_spec
from asyncdmtl.learning.tasks import Partition

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 5))
W = rng.standard_normal(5)
NOISY = X @ W + 0.5 + 0.1 * rng.standard_normal(60)
TARGETS = {"squared": NOISY, "logistic": (NOISY > 0.5).astype(float)}
SPECS = {
    "": "squared",
    "SGDRegressor(alpha=0.0)": "squared",
    "SGDRegressor(loss='huber', penalty=None, learning_rate='constant', eta0=0.05)": "squared",
    "PassiveAggressiveRegressor(C=0.1)": "squared",
    "Lasso(alpha=0.01, selection='random')": "squared",
    "ElasticNet(alpha=0.01, l1_ratio=0.3)": "squared",
    "SGDClassifier(loss='log_loss', alpha=0.01, class_weight={0: 1.0, 1: 2.0})": "logistic",
    "PassiveAggressiveClassifier(C=0.1)": "logistic",
    "Perceptron": "logistic",
    "LogisticRegression(C=10.0)": "logistic",
    "LogisticRegression(solver='saga')": "logistic",
    "LogisticRegression(solver='newton-cholesky', C=10.0)": "logistic",
}
ROW_BY_ROW = [spec for spec in SPECS if spec.startswith(("SGD", "Passive", "Perceptron"))]


def learned(
    spec: str,
    *,
    w: Floats | None = None,
    b: float = 0.0,
    y: Floats | None = None,
    weights: Floats | None = None,
    intercept: bool = True,
    epochs: int = 1,
    seed: int = 3,
) -> tuple[Floats, float]:
    loss = SPECS.get(spec, "squared")
    y = TARGETS[loss] if y is None else y
    partition = Partition("p", "t", X, y, weights)
    smoothness = replace(partition, weights=None).smoothness(loss, intercept=intercept)
    start = LocalStart(np.zeros(5) if w is None else w, b, smoothness, epochs, seed)
    with single_threaded():
        return make_learner(spec, loss, intercept=intercept).fit(partition, start)


def loss_of(spec: str, w: Floats, b: float) -> float:
    loss = SPECS[spec]
    return float(LOSSES[loss].value_and_derivative(X @ w + b, TARGETS[loss])[0].mean())


@pytest.mark.parametrize("spec", SPECS)
def test_a_learner_fits_repeats_to_the_bit_and_leaves_its_arguments(spec: str) -> None:
    start, before = np.zeros(5), (X.copy(), TARGETS[SPECS[spec]].copy())
    w, b = learned(spec, w=start, epochs=3)
    again, b_again = learned(spec, w=start, epochs=3)
    assert w.shape == (5,)
    assert w.dtype == np.float64
    assert w.tobytes() == again.tobytes()
    assert b == b_again != 0.0
    assert loss_of(spec, w, b) < 0.9 * loss_of(spec, start, 0.0)
    assert not start.any()
    assert (before[0] == X).all()
    assert (before[1] == TARGETS[SPECS[spec]]).all()


@pytest.mark.parametrize("spec", SPECS)
def test_a_learner_goes_on_from_the_given_model(spec: str) -> None:
    near, _ = learned(spec, w=W.copy(), b=0.5)
    far, _ = learned(spec, w=-50.0 * W, b=0.5)
    assert np.linalg.norm(near - W) < 10.0
    assert np.linalg.norm(far - W) > np.linalg.norm(near - W) + 1.0


@pytest.mark.parametrize("spec", SPECS)
def test_without_an_intercept_there_is_none(spec: str) -> None:
    w, b = learned(spec, intercept=False, epochs=2)
    assert b == 0.0
    assert w.any()


@pytest.mark.parametrize("spec", [*ROW_BY_ROW, "Lasso(alpha=0.01, selection='random')"])
def test_the_order_of_rows_follows_from_the_seed(spec: str) -> None:
    assert learned(spec, seed=1)[0].tobytes() != learned(spec, seed=2**32 + 2)[0].tobytes()


@pytest.mark.parametrize("spec", ROW_BY_ROW)
def test_every_epoch_is_a_pass_in_another_order(spec: str) -> None:
    # The second pass has another order than the first; two calls with one seed would repeat the order.
    once = learned(spec)
    assert learned(spec, epochs=2)[0].tobytes() != learned(spec, w=once[0], b=once[1])[0].tobytes()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "Passive" not in spec])
def test_sample_weights_count(spec: str) -> None:
    weights = np.where(np.arange(60) < 20, 5.0, 0.1)
    assert np.abs(learned(spec, weights=weights)[0] - learned(spec)[0]).max() > 1e-4


def test_learners_that_take_no_weights_say_so() -> None:
    with pytest.raises(DataError, match="weights cannot be used by the learner PassiveAggressiveRegressor"):
        learned("PassiveAggressiveRegressor(C=0.1)", weights=np.ones(60))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if SPECS[spec] == "logistic"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_learned_or_refused(spec: str, label: float) -> None:
    y = np.full(60, label)
    if spec.startswith("Logistic"):
        with pytest.raises(
            DataError, match=r"labels must be both 0 and 1 for the learner LogisticRegression"
        ):
            learned(spec, y=y)
    else:
        w, b = learned(spec, w=(0.5 - label) * W, y=y, epochs=5)
        right, before = (((X @ v + c > 0.0) == label).sum() for v, c in ((w, b), ((0.5 - label) * W, 0.0)))
        assert right > before


@pytest.mark.parametrize("spec", ["SGDRegressor(learning_rate='constant', eta0=1e6)", ""])
def test_what_diverges_is_given_back(spec: str) -> None:
    with np.errstate(all="ignore"):
        w, _ = learned(spec, w=np.full(5, np.inf), epochs=30)
    assert not np.isfinite(w).all()


def test_warnings_stay_what_they_were() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        threads = [
            threading.Thread(target=learned, args=(spec,), kwargs={"epochs": 2})
            for spec in ("Lasso(alpha=0.01, selection='random')", "LogisticRegression(C=10.0)") * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("still heard", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["still heard"]


@pytest.mark.parametrize(
    ("spec", "loss", "message"),
    [
        ("LogisticRegression", "squared", "learner must be one of SGDRegressor, .*Lasso for squared loss"),
        (
            "SGDRegressor",
            "logistic",
            "learner must be one of SGDClassifier, .*for logistic loss, got 'SGDRegr",
        ),
        ("Ridge", "squared", "must be one of"),
        ("system", "squared", "must be one of"),
        ("SGDRegressor(alpha=-1.0)", "squared", r"must have parameters that SGDRegressor accepts \(.*alpha"),
        ("SGDRegressor(nonsense=1)", "squared", "must have parameters that SGDRegressor accepts"),
        ("SGDRegressor(alpha={1, 2})", "squared", "must have parameters that SGDRegressor accepts"),
        ("SGDClassifier(class_weight='balanced')", "logistic", "must have parameters that SGDClassifier"),
        (
            "SGDRegressor(max_iter=5)",
            "squared",
            "learner's max_iter must be left to the setting epochs, got 5",
        ),
        ("SGDRegressor(average=True)", "squared", "learner's average must be left to the run"),
        ("Lasso(copy_X=False)", "squared", "learner's copy_X must be left to the run"),
        ("LogisticRegression(solver='liblinear')", "logistic", "learner's solver must be one that can start"),
        ("SGDRegressor(0.1)", "squared", "must be a name, with parameters that are literals"),
        ("SGDRegressor(**{'alpha': 1.0})", "squared", "must be a name"),
        ("SGDRegressor(alpha=print(1))", "squared", "must be a name"),
        ("sklearn.linear_model.SGDRegressor()", "squared", "must be a name"),
        ("SGDRegressor(alpha=1.0", "squared", "must be a name"),
        ("SGDRegressor(alpha=" + "(" * 500 + ")", "squared", "must be a name"),
        ("SGDRegressor(alpha=1." + "0" * 1000 + ")", "squared", "must have at most 1000 characters"),
        ("\0", "squared", "must be a name"),
    ],
)
def test_what_is_no_learner_is_refused(spec: str, loss: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_learner(spec, loss, intercept=True)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("name", REGRESSORS + CLASSIFIERS)
def test_every_name_works_with_its_defaults(name: str, intercept: bool) -> None:
    make_learner(name, "squared" if name in REGRESSORS else "squared_hinge", intercept=intercept)


@pytest.mark.parametrize(
    ("estimator", "spec"),
    [
        (linear_model.SGDRegressor(), "SGDRegressor()"),
        (
            linear_model.SGDRegressor(eta0=np.float64(0.5), alpha=0, penalty=None),
            "SGDRegressor(alpha=0, eta0=0.5, penalty=None)",
        ),
        (linear_model.LogisticRegression(C=np.inf), "LogisticRegression(C=1e999)"),
        (
            linear_model.SGDClassifier(class_weight={0: 0.5, np.int64(1): 2}, loss="modified_huber"),
            "SGDClassifier(class_weight={0: 0.5, 1: 2}, loss='modified_huber')",
        ),
        (linear_model.Lasso(positive=True), "Lasso(positive=True)"),
    ],
)
def test_an_estimator_becomes_text_and_works(estimator: Any, spec: str) -> None:
    assert learner_spec(estimator) == spec
    loss = "squared" if type(estimator).__name__ in REGRESSORS else "logistic"
    make_learner(spec, loss, intercept=True)


class Derived(linear_model.SGDRegressor):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (linear_model.Ridge(), "must be one of SGDRegressor"),
        (Derived(), "must be one of SGDRegressor"),
        ("SGDRegressor", "must be one of SGDRegressor"),
        (linear_model.SGDRegressor(random_state=0), "random_state must be left to the setting seed"),
        (linear_model.SGDRegressor(alpha=np.nan), "learner's alpha must be a number"),
        (linear_model.Lasso(precompute=np.eye(2)), "learner's precompute must be a number"),
    ],
)
def test_estimators_that_cannot_travel_are_refused(estimator: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        learner_spec(estimator)
