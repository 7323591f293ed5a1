"""The models of all tasks, and the encoding of their columns, as one model of ONNX.

It computes in float64, as `predict` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.data.onnx_graph import Graph
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import TaskModels

UNKNOWN = ("error", "mean", "empty")
"""What becomes of rows whose task has no model: an error, the mean of all models, or an empty prediction."""


def onnx_of_table(models: TaskModels, encoding: Encoding, task_column: str, unknown: str) -> Any:
    """The `onnx.ModelProto` of models of columns, as `SavedModel.to_onnx` describes it.

    Raises
    ------
    UsageError
        The package onnx is not installed, `unknown` is another word, a category is an empty text, or a
        feature is called like the column of tasks.
    """
    if unknown not in UNKNOWN:
        raise UsageError("unknown", f"must be one of {', '.join(UNKNOWN)}", unknown)
    sources = encoding.sources or ("X",)
    if task_column in sources:
        raise UsageError("column of tasks", "must be called otherwise than all features", task_column)
    graph = Graph((task_column, *sources))
    task = graph.codes(graph.input(task_column, "STRING"), models.tasks, len(models.tasks))
    if encoding.is_empty:
        features, order = graph.input("X", "DOUBLE", models.features), list(range(models.features))
    else:
        features, order = _encoded(graph, encoding)
    coef, intercept = models.coef_[:, order].astype(np.float64), models.intercept_.astype(np.float64)
    scores = _scored(graph, features, task, (coef, intercept), unknown)
    _outputs(graph, scores, models.loss, encoding.labels_of(models.loss), unknown, encoding.offset)
    return graph.model(f"Models of {len(models.tasks)} tasks for {encoding.target or 'y'}.")


def onnx_of_array(
    tasks: Sequence[Any],
    coef: Floats,
    intercept: Floats,
    loss: str,
    classes: NDArray[Any] | None,
    unknown: str,
) -> Any:
    """The `onnx.ModelProto` of models of numbers, with the inputs `X` (rows, F) and `tasks` (rows, 1).

    Parameters
    ----------
    tasks : sequence of T labels
    coef : (T, F) or, for K > 2 classes, (T, K, F) float64 array
    intercept : (T,) or (T, K) float64 array
    loss : str
    classes : (K,) array or None
    unknown : str
        One of `UNKNOWN`.

    Raises
    ------
    UsageError
        The package onnx is not installed; labels of tasks are neither all text nor all whole numbers; or
        classes are neither text, numbers nor truth values.
    """
    kinds = set(map(type, tasks))
    if kinds not in ({str}, {int}):
        raise UsageError("tasks", "must be all text or all whole numbers for ONNX", list(tasks)[:3])
    if classes is not None and not (
        classes.dtype.kind in "iufbU" or all(isinstance(label, str) for label in classes.tolist())
    ):
        raise UsageError("classes", "must be text, numbers, or true and false for ONNX", classes.tolist()[:3])
    graph = Graph(("X", "tasks"))
    features = graph.input("X", "DOUBLE", coef.shape[-1])
    task = graph.codes(graph.input("tasks", "STRING" if kinds == {str} else "INT64"), tasks, len(tasks))
    scores = _scored(graph, features, task, (coef, intercept), unknown)
    _outputs(graph, scores, loss, classes, unknown)
    return graph.model(f"Models of {len(tasks)} tasks.")


def _encoded(graph: Graph, encoding: Encoding) -> tuple[str, list[int]]:
    """The features (rows, F) of the columns, which become inputs; and the feature that each of them is.

    Raises
    ------
    UsageError
        A category is an empty text, which is a missing value in ONNX.
    """
    starts = np.cumsum([0, *(len(column.features) for column in encoding.columns)])
    pieces, order, numbers = [], [], []
    for column, start in zip(encoding.columns, starts, strict=False):
        if isinstance(column, NumberColumn):
            numbers.append(column)
            order.append(int(start))
    if numbers:
        inputs = [graph.input(column.name, "DOUBLE") for column in numbers]
        x = graph.node("Concat", *inputs, axis=1)
        impute, shift, scale = np.array([(own.impute, own.shift, own.scale) for own in numbers]).T
        x = graph.node("Where", graph.node("IsNaN", x), graph.constant(impute), x)
        x = graph.node("Sub", x, graph.constant(shift))
        pieces.append(graph.node("Div", x, graph.constant(scale)))
    for column, start in zip(encoding.columns, starts, strict=False):
        if isinstance(column, CategoryColumn):
            pieces.append(_indicators(graph, column))
            order += range(start, start + len(column.features))
    return graph.node("Concat", *pieces, axis=1), order


def _indicators(graph: Graph, column: CategoryColumn) -> str:
    """The indicators (rows, len(features)) of a column of texts, in which a missing value is empty."""
    if "" in column.values:
        raise UsageError(f"category of column {column.name!r}", "must not be empty for ONNX", "")
    keys = [*column.values, *[""] * column.missing]
    found = graph.codes(graph.input(column.name, "STRING"), keys, -1)
    levels = np.arange(len(keys) - len(column.features), len(keys), dtype=np.int64)
    equal = graph.node("Equal", found, graph.constant(levels))
    return graph.node("Cast", equal, to=11)  # 11 is DOUBLE in the format


def _scored(graph: Graph, features: str, task: str, models: tuple[Floats, Floats], unknown: str) -> str:
    """The scores of rows under the models of their tasks: (rows,), or (rows, K).

    Parameters
    ----------
    graph : Graph
    features : str
        (rows, F) features.
    task : str
        (rows, 1) numbers of tasks, T for others.
    models : pair of float64 arrays
        Coefficients (T, F) or (T, K, F), and intercepts (T,) or (T, K).
    unknown : str
        One of `UNKNOWN`. For "error", the row T of intercepts is missing, so that ONNX Runtime fails; for
        other runtimes that row of coefficients is NaN.
    """
    coef, intercept = models
    more = coef.mean(axis=0) if unknown == "mean" else np.full(coef.shape[1:], np.nan)
    W = np.concatenate([coef, more[None]])
    b = intercept if unknown == "error" else np.concatenate([intercept, intercept.mean(axis=0)[None]])
    row = graph.node("Squeeze", task, graph.constant(np.array([1])))
    axis = coef.ndim - 1
    if axis == 2:
        features = graph.node("Unsqueeze", features, graph.constant(np.array([1])))
    products = graph.node("Mul", graph.node("Gather", graph.constant(W), row), features)
    sums = graph.node("ReduceSum", products, graph.constant(np.array([axis])), keepdims=0)
    # ONNX Runtime names the node that fails.
    of_task = graph.node("Gather", graph.constant(b), row, name="a_task_without_a_model")
    return graph.node("Add", sums, of_task)


def _outputs(
    graph: Graph,
    scores: str,
    loss: str,
    classes: NDArray[Any] | None,
    unknown: str,
    offset: float = 0.0,
) -> None:
    """The outputs of a classification, or of a regression, which adds `offset` to the scores."""
    if classes is not None:
        return _classification(graph, scores, loss, classes, unknown)
    value = graph.node("Add", scores, graph.constant(np.float64(offset))) if offset else scores
    return graph.output("prediction", graph.node("Exp", value) if LOSSES[loss].counts else value, "DOUBLE")


def _classification(graph: Graph, scores: str, loss: str, classes: NDArray[Any], unknown: str) -> None:
    """The outputs of a classification.

    These are `prediction` (rows,), `score` (rows,) or (rows, K) and, under logistic loss, `probabilities`
    (rows, K). For `unknown` "empty", predictions are texts, and those of unknown tasks are empty.
    """
    K = len(classes)
    if K > 2:
        chosen = graph.node("ArgMax", scores, axis=1, keepdims=0)
        missing = graph.node("ReduceSum", scores, graph.constant(np.array([1])), keepdims=0)
    else:
        positive = graph.node("Greater", scores, graph.constant(np.float64(0.0)))
        chosen, missing = graph.node("Cast", positive, to=7), scores  # 7 is INT64 in the format
    if unknown == "empty":
        classes = np.array([*map(str, classes.tolist()), ""], dtype=np.object_)
        none = graph.constant(np.int64(K))
        chosen = graph.node("Where", graph.node("IsNaN", missing), none, chosen)
    kinds = {"i": "INT64", "u": "INT64", "b": "BOOL", "f": "DOUBLE"}
    kind = kinds.get(classes.dtype.kind, "STRING")
    if kind in ("INT64", "DOUBLE"):
        classes = classes.astype(np.int64 if kind == "INT64" else np.float64)
    graph.output("prediction", graph.node("Gather", graph.constant(classes), chosen), kind)
    graph.output("score", scores, "DOUBLE", K if K > 2 else 0)
    if loss == "logistic":
        if K == 2:
            each = graph.node("Unsqueeze", scores, graph.constant(np.array([1])))
            both = graph.node("Concat", graph.node("Neg", each), each, axis=1)
            shares = graph.node("Sigmoid", both)
        else:
            # Each class against the rest: softmax(log expit s); log expit s = min(s, 0) − log(1 + e^−|s|).
            small = graph.node("Exp", graph.node("Neg", graph.node("Abs", scores)))
            excess = graph.node("Log", graph.node("Add", small, graph.constant(np.float64(1.0))))
            least = graph.node("Min", scores, graph.constant(np.float64(0.0)))
            logs = graph.node("Sub", least, excess)
            shares = graph.node("Softmax", logs, axis=1)
        graph.output("probabilities", shares, "DOUBLE", K)
