from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError

from asyncdmtl import CodedMultiTaskClassifier, CodedMultiTaskRegressor, CodedMultiTaskRegressorCV
from asyncdmtl.errors import UsageError

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4))
TASKS = np.repeat(["a", "b", "c"], 20)
Y = X @ [1.0, -2.0, 0.0, 0.5] + 0.1 * rng.standard_normal(60)
KINDS = np.digitize(Y, [-1.0, 1.0])


def of(task: str) -> Any:
    return task == TASKS


@pytest.mark.parametrize("frame", [False, True])
def test_a_regressor_of_one_task_goes_elsewhere(frame: bool) -> None:
    rows: Any = pd.DataFrame(X, columns=list("pqrs")) if frame else X
    model = CodedMultiTaskRegressor().fit(rows, Y, TASKS)
    one = model.to_sklearn("b")
    assert type(one).__module__.startswith("sklearn.")
    np.testing.assert_allclose(one.predict(rows[of("b")]), model.predict(rows, TASKS)[of("b")], rtol=1e-12)
    assert one.n_features_in_ == 4


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_of_one_task_goes_elsewhere(loss: str, classes: int) -> None:
    labels = np.array(["low", "high"])[(Y > 0).astype(int)] if classes == 2 else KINDS
    model = CodedMultiTaskClassifier(loss=loss, strength=0.01).fit(X, labels, TASKS)
    one = model.to_sklearn("c")
    own = of("c")
    np.testing.assert_array_equal(one.predict(X[own]), model.predict(X, TASKS)[own])
    np.testing.assert_array_equal(one.classes_, model.classes_)
    if loss == "logistic":
        np.testing.assert_allclose(
            one.predict_proba(X[own]), model.predict_proba(X, TASKS)[own], rtol=1e-10, atol=1e-12
        )


def test_only_tasks_of_fit_have_a_model() -> None:
    with pytest.raises(NotFittedError):
        CodedMultiTaskRegressor().to_sklearn("a")
    with pytest.raises(UsageError, match="task must be among the 3 of fit, got 'z'"):
        CodedMultiTaskRegressor().fit(X, Y, TASKS).to_sklearn("z")


def test_the_run_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = CodedMultiTaskRegressorCV(cv=2, strengths=[0.1, 1.0], update="gradient").fit(X, Y, TASKS)
    figure = model.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000
    assert len(figure.axes) >= 3
    # Pickles have some of the rounds only.
    few = pickle.loads(pickle.dumps(model))
    few.history_ = {name: values[[0, -1]] for name, values in few.history_.items()}
    assert [axes.get_title() for axes in few.plot().axes] == [axes.get_title() for axes in figure.axes]
    assert CodedMultiTaskClassifier().fit(X, KINDS, TASKS).plot() is not None
    with pytest.raises(UsageError, match="must"):
        model.plot(tmp_path / "run.docx")


@pytest.mark.parametrize("kind", ["regression", "counts", "two classes", "three classes"])
def test_all_tasks_go_to_onnx(kind: str) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    y: Any = {"regression": Y, "counts": np.exp(Y), "two classes": Y > 0, "three classes": KINDS}[kind]
    numbers = np.repeat([3, 5, 9], 20)
    if "classes" in kind:
        model: Any = CodedMultiTaskClassifier(strength=0.1).fit(X, y, numbers)
    else:
        loss = "poisson" if kind == "counts" else "squared"
        model = CodedMultiTaskRegressor(loss=loss, strength=0.1, unknown="mean").fit(X, y, numbers)
        numbers = np.repeat([3, 5, 1], 20)
    session = runtime.InferenceSession(
        model.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"X": X, "tasks": numbers[:, None]})
    if "classes" not in kind:
        np.testing.assert_allclose(found[0], model.predict(X, numbers), rtol=1e-12)
        return
    assert found[0].tolist() == model.predict(X, numbers).tolist()
    np.testing.assert_allclose(found[1], model.decision_function(X, numbers), rtol=1e-12)
    np.testing.assert_allclose(found[2], model.predict_proba(X, numbers), rtol=1e-9, atol=1e-12)


def test_coefficients_are_a_table() -> None:
    frame = pd.DataFrame(X, columns=list("pqrs"))
    model = CodedMultiTaskRegressor(standardise=True).fit(frame, Y, TASKS)
    table = model.coefficients()
    assert table.columns.tolist() == ["a", "b", "c"]
    by_hand = frame.to_numpy() @ table.loc[list("pqrs"), "b"] + table.loc["(intercept)", "b"]
    np.testing.assert_allclose(by_hand[of("b")], model.predict(frame, TASKS)[of("b")], rtol=1e-9)
    classes = CodedMultiTaskClassifier(strength=0.1).fit(X, KINDS, TASKS)
    np.testing.assert_array_equal(classes.coefficients()["b"].T[["x0", "x1", "x2", "x3"]], classes.coef_[1])


def test_estimators_go_through_joblib_and_skops() -> None:
    model = CodedMultiTaskClassifier(strength=0.1).fit(X, Y > 0, TASKS)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    np.testing.assert_array_equal(joblib.load(file).predict(X, TASKS), model.predict(X, TASKS))
    skops = pytest.importorskip("skops.io")
    dumped = skops.dumps(model)
    types = skops.get_untrusted_types(data=dumped)
    assert all(name.startswith("asyncdmtl.") for name in types)
    loaded = skops.loads(dumped, trusted=types)
    np.testing.assert_array_equal(loaded.predict(X, TASKS), model.predict(X, TASKS))
    assert loaded.plan_.uplink_load == model.plan_.uplink_load
    # A model of one task has only types that skops trusts.
    one = skops.dumps(model.to_sklearn("a"))
    assert not skops.get_untrusted_types(data=one)
    assert skops.loads(one).predict(X[:3]).tolist() == model.predict(X[:3], ["a"] * 3).tolist()


def test_rows_may_be_sparse() -> None:
    plain = CodedMultiTaskRegressor().fit(X, Y, TASKS)
    sparse = CodedMultiTaskRegressor().fit(csr_array(X), Y, TASKS)
    assert sparse.coef_.tobytes() == plain.coef_.tobytes()
    np.testing.assert_array_equal(sparse.predict(csr_array(X), TASKS), plain.predict(X, TASKS))
    parts = [csr_array(X[of(task)]) for task in "abc"]
    lists = CodedMultiTaskRegressor().fit(parts, [Y[of(task)] for task in "abc"], list("abc"))
    assert lists.coef_.tobytes() == plain.coef_.tobytes()
