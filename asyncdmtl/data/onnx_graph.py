"""A graph of ONNX that is made node by node.

It has operators of the domains `ai.onnx` (opset 17) and `ai.onnx.ml` (opset 2), which ONNX Runtime has had
since 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncdmtl._version import __version__
from asyncdmtl.errors import UsageError

# The versions of the operators, and of the format of the file: the oldest that have all that is used.
_OPSET, _ML_OPSET, _FORMAT = 17, 2, 8

_ML = "ai.onnx.ml"


class Graph:
    """Collects the nodes of a graph; values are called by names.

    Parameters
    ----------
    names : sequence of str
        The names of inputs, which no other value may have.

    Raises
    ------
    UsageError
        The package onnx is not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        try:
            import onnx
        except ImportError as error:
            raise UsageError("ONNX", "needs: pip install 'asyncdmtl[onnx]'", None) from error
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._names = frozenset(names)
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in names):
            self._prefix += "/"

    def input(self, name: str, kind: str, width: int = 1) -> str:
        """An input (rows, width) of STRING, INT64 or DOUBLE."""
        self._inputs.append(self._value(name, kind, width))
        return name

    def constant(self, values: Any) -> str:
        """A constant array of numbers or texts."""
        array = np.asarray(values)
        name = f"{self._prefix}constant{len(self._constants)}"
        if array.dtype.kind in "UO":
            texts = [str(text).encode() for text in array.reshape(-1)]
            made = self._onnx.helper.make_tensor(name, self._onnx.TensorProto.STRING, array.shape, texts)
        else:
            made = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        self._constants.append(made)
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any) -> str:
        """The result of an operator; `name` is for errors of runtimes."""
        name = f"{self._prefix}{name or operator}{len(self._nodes)}"
        make = self._onnx.helper.make_node
        self._nodes.append(make(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def output(self, name: str, value: str, kind: str, width: int = 0) -> None:
        """An output (rows,), or (rows, width); `model_NAME` if an input has this name."""
        name = f"model_{name}" if name in self._names else name
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(self._value(name, kind, width))

    def codes(self, value: str, keys: Sequence[Any], other: int) -> str:
        """The positions of texts or whole numbers in `keys`, or `other`, in the shape of `value`."""
        named: dict[str, Any] = {
            "keys_int64s" if isinstance(keys[0], int) else "keys_strings": list(keys),
            "values_int64s": list(range(len(keys))),
        }
        return self.node("LabelEncoder", value, domain=_ML, **named, default_int64=other)

    def model(self, description: str) -> Any:
        """The checked `onnx.ModelProto`."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "asyncdmtl", self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_ML, _ML_OPSET)]
        made = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=_FORMAT,
            producer_name="asyncdmtl",
            producer_version=__version__,
            doc_string=description,
        )
        self._onnx.checker.check_model(made)
        return made

    def _value(self, name: str, kind: str, width: int) -> Any:
        shape = ["rows", width] if width else ["rows"]
        return self._onnx.helper.make_tensor_value_info(name, getattr(self._onnx.TensorProto, kind), shape)
