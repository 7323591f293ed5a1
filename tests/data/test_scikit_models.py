"""Models of scikit-learn predict as `asyncdmtl predict` does.

Features are in another order there, and so are sums, so that last digits may differ.
"""

from __future__ import annotations

import io
from typing import Any

import joblib
import numpy as np
import pytest
from support.exported import COLUMNS, LOSSES, TASKS, predicted, saved_model

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.scikit_models import linear_model
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels

pd = pytest.importorskip("pandas")


def frame(**columns: object) -> Any:
    """The rows as pandas would read them from a file."""
    return pd.DataFrame(COLUMNS | {"zip": list(map(int, COLUMNS["zip"]))} | columns).astype({"truth": str})


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_pipeline_encodes_and_predicts(loss: str, standardise: bool) -> None:
    saved, rows = saved_model(loss, standardise), frame()
    ours = predicted(saved)
    for task in ("a", "b"):
        own = task == TASKS
        made = saved.to_sklearn(task)
        found = made.predict(rows[own])
        if loss in ("squared", "poisson"):
            np.testing.assert_allclose(found, ours["prediction"][own], rtol=1e-12)
        else:
            assert found.tolist() == ours["prediction"][own].tolist()
        if loss == "logistic":
            assert made.classes_.tolist() == ["ill", "well"]
            both = np.column_stack([ours["probability_ill"], ours["probability_well"]])[own]
            np.testing.assert_allclose(made.predict_proba(rows[own]), both, rtol=1e-12)


def test_unknown_categories_are_warned_of() -> None:
    saved = saved_model("squared")
    rows = COLUMNS | {"ward": ["new", *COLUMNS["ward"][1:]]}
    with pytest.warns(UserWarning, match="unknown categories"):
        found = saved.to_sklearn("a").predict(frame(ward=rows["ward"]))
    np.testing.assert_allclose(found[::2], predicted(saved, rows)["prediction"][::2], rtol=1e-12)


def test_a_pipeline_needs_nothing_of_this_package() -> None:
    saved, file = saved_model("squared"), io.BytesIO()
    joblib.dump(saved.to_sklearn("a"), file)
    assert b"asyncdmtl" not in file.getvalue()
    file.seek(0)
    found = joblib.load(file).predict(frame())
    np.testing.assert_allclose(found[::2], predicted(saved)["prediction"][::2], rtol=1e-12)


def test_models_of_numbers_are_plain() -> None:
    models = TaskModels(("a",), np.array([[1.0, 2.0]]), np.array([3.0]), "logistic")
    plain = SavedModel(models, Encoding.empty(), None).to_sklearn("a")
    assert plain.predict([[1.0, 1.0], [-9.0, 0.0]]).tolist() == [1, 0]
    with pytest.raises(UsageError, match="task must be one of the 1 tasks of the model, got 'b'"):
        SavedModel(models, Encoding.empty(), None).to_sklearn("b")


def test_the_kind_of_model_follows_from_the_loss() -> None:
    w = np.array([1.0, 2.0])
    kinds = {"squared": "LinearRegression", "huber": "LinearRegression", "poisson": "PoissonRegressor"}
    assert {loss: type(linear_model(loss, w, 0.0)).__name__ for loss in kinds} == kinds
    two = {"logistic": "LogisticRegression", "squared_hinge": "LinearSVC"}
    classes = np.array(["n", "y"])
    assert {loss: type(linear_model(loss, w, 0.0, classes)).__name__ for loss in two} == two
    many = linear_model("logistic", np.eye(3, 2), np.zeros(3), np.arange(3))
    assert many.predict([[5.0, 0.0]]).tolist() == [0]
    assert many.n_features_in_ == 2
