from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.data import onnx_graph
from asyncdmtl.errors import UsageError

pytest.importorskip("onnx")


def run(model: Any, feed: dict[str, Any]) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, feed)
    return found


def test_a_graph_is_made_node_by_node() -> None:
    graph = onnx_graph.Graph(["x", "/node", "sum"])
    x = graph.input("x", "DOUBLE", 2)
    graph.input("/node", "INT64")
    graph.input("sum", "STRING")
    found = graph.codes("sum", ["u", "v"], -1)
    graph.output("sum", graph.node("ReduceSum", x, graph.constant(np.array([1])), keepdims=0), "DOUBLE")
    graph.output("code", found, "INT64", 1)
    made = graph.model("A sum.")
    # No name of a value is that of an input.
    assert [value.name for value in made.graph.output] == ["model_sum", "code"]
    assert not [node.name for node in made.graph.node if node.name.startswith("/node")]
    total, code = run(
        made,
        {
            "x": np.array([[1.0, 2.0]]),
            "/node": np.array([[1]]),
            "sum": np.array([["v"]], dtype=object),
        },
    )
    assert (total.tolist(), code.tolist()) == ([3.0], [[1]])


def test_whole_numbers_are_found_by_position() -> None:
    graph = onnx_graph.Graph(["x"])
    graph.output("code", graph.codes(graph.input("x", "INT64"), [7, -3], 2), "INT64", 1)
    (code,) = run(graph.model(""), {"x": np.array([[-3], [7], [0]])})
    assert code.tolist() == [[1], [0], [2]]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UsageError, match=r"ONNX needs: pip install 'asyncdmtl\[onnx\]'"):
        onnx_graph.Graph([])
