"""Models of ONNX predict as `asyncdmtl predict` does, checked with ONNX Runtime.

It adds up in another order, with features in another order too, so that last digits may differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.exported import COLUMNS, LOSSES, ROWS, TASKS, predicted, saved_model

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.onnx_models import onnx_of_array
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def run(model: Any, feed: dict[str, Any]) -> dict[str, Any]:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([out.name for out in session.get_outputs()], session.run(None, feed), strict=True))


def inputs(columns: dict[str, list[Any]], tasks: Any = TASKS) -> dict[str, Any]:
    numbers = ("age", "mass")
    feed: dict[str, Any] = {"clinic": np.array(tasks, dtype=object)[:, None]}
    for name, values in columns.items():
        if name in numbers:
            feed[name] = np.array(values, np.float64)[:, None]
        else:
            texts = ["" if value is None else str(value) for value in values]
            feed[name] = np.array(texts, dtype=object)[:, None]
    return feed


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_kinds_of_columns_are_encoded(loss: str, standardise: bool) -> None:
    saved = saved_model(loss, standardise)
    # Categories that were in no training row encode as zeros.
    rows = COLUMNS | {"ward": ["new", *COLUMNS["ward"][1:]]}
    ours, theirs = predicted(saved, rows), run(saved.to_onnx(), inputs(rows))
    if loss in ("squared", "poisson"):
        assert set(theirs) == {"prediction"}
        np.testing.assert_allclose(theirs["prediction"], ours["prediction"], rtol=1e-12)
        return
    assert theirs["prediction"].tolist() == ours["prediction"].tolist()
    np.testing.assert_allclose(theirs["score"], ours["score"], rtol=1e-12, atol=1e-12)
    assert ("probabilities" in theirs) == (loss == "logistic")
    if loss == "logistic":
        both = np.column_stack([ours["probability_ill"], ours["probability_well"]])
        np.testing.assert_allclose(theirs["probabilities"], both, rtol=1e-12)


def test_rows_of_other_tasks_are_treated_as_asked() -> None:
    saved, rows = saved_model("squared"), inputs(COLUMNS, ["a", "nowhere"] * (ROWS // 2))
    with pytest.raises(Exception, match="a_task_without_a_model"):
        run(saved.to_onnx(), rows)
    with_mean = run(saved.to_onnx("mean"), rows)["prediction"]
    of_a, of_b = (run(saved.to_onnx(), inputs(COLUMNS, [task] * ROWS))["prediction"] for task in ("a", "b"))
    np.testing.assert_allclose(with_mean[::2], of_a[::2])
    np.testing.assert_allclose(with_mean[1::2], (of_a[1::2] + of_b[1::2]) / 2, rtol=1e-12)
    empty = run(saved.to_onnx("empty"), rows)["prediction"]
    assert np.isnan(empty).tolist() == [False, True] * (ROWS // 2)
    of_classes = run(saved_model("squared_hinge").to_onnx("empty"), rows)["prediction"]
    assert set(of_classes[::2]) <= {"1", "2"}
    assert set(of_classes[1::2]) == {""}
    with pytest.raises(UsageError, match="unknown must be one of error, mean, empty, got 'best'"):
        saved.to_onnx("best")


def test_models_of_numbers_have_one_input() -> None:
    models = TaskModels(("a", "b"), np.eye(2, 3, dtype=np.float32), np.ones(2, np.float32), "squared")
    made = SavedModel(models, Encoding.empty(), None).to_onnx()
    found = run(made, {"X": np.arange(6.0).reshape(2, 3), "tasks": np.array([["b"], ["a"]], dtype=object)})
    assert found["prediction"].tolist() == [2.0, 4.0]


def test_what_onnx_cannot_tell_is_refused() -> None:
    with pytest.raises(UsageError, match="column of tasks must be called otherwise"):
        saved_model("squared", clinic=[1.0, 2.0] * 12).to_onnx()
    encoding = {"columns": [["c", {"values": ["", "x", "y"], "missing": True}]], "dropped": []}
    more: dict[str, Any] = {"target": "y", "classes": None, "offset": 0.0}
    models = TaskModels(("a",), np.ones((1, 4)), np.zeros(1), "squared")
    with pytest.raises(UsageError, match="category of column 'c' must not be empty for ONNX"):
        SavedModel(models, Encoding.from_dict(encoding | more), None).to_onnx()
    W, b = np.ones((2, 1)), np.zeros(2)
    with pytest.raises(UsageError, match="tasks must be all text or all whole numbers"):
        onnx_of_array(["a", 1], W, b, "squared", None, "error")
    with pytest.raises(UsageError, match="classes must be text"):
        onnx_of_array(["a", "b"], W, b, "logistic", np.array([None, 1]), "error")


def test_classes_are_told_by_their_largest_score() -> None:
    W, b = np.array([[[1.0], [-1.0], [0.0]]]), np.array([[0.0, 0.0, math.nan]])
    b[0, 2] = 0.5
    made = onnx_of_array([4], W, b, "logistic", np.array([3, 5, 8]), "mean")
    feed = {"X": np.array([[2.0], [-900.0], [0.0]]), "tasks": np.array([[4], [4], [9]])}
    found = run(made, feed)
    assert found["prediction"].tolist() == [3, 5, 8]
    assert found["score"][1].tolist() == [-900.0, 900.0, 0.5]
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1.0)
