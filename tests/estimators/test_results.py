from __future__ import annotations

from pathlib import Path
from typing import Any

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
    assert CodedMultiTaskClassifier().fit(X, KINDS, TASKS).plot() is not None
    with pytest.raises(UsageError, match="must"):
        model.plot(tmp_path / "run.docx")


def test_rows_may_be_sparse() -> None:
    plain = CodedMultiTaskRegressor().fit(X, Y, TASKS)
    sparse = CodedMultiTaskRegressor().fit(csr_array(X), Y, TASKS)
    assert sparse.coef_.tobytes() == plain.coef_.tobytes()
    np.testing.assert_array_equal(sparse.predict(csr_array(X), TASKS), plain.predict(X, TASKS))
    parts = [csr_array(X[of(task)]) for task in "abc"]
    lists = CodedMultiTaskRegressor().fit(parts, [Y[of(task)] for task in "abc"], list("abc"))
    assert lists.coef_.tobytes() == plain.coef_.tobytes()
