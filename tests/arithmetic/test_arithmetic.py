"""Rules for the whole package: the modules it may import, and NumPy's functions that it must not use."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from asyncdmtl import arithmetic

MODULES = sorted(Path(str(arithmetic.__file__)).parent.glob("*.py"))

OWN = {path.stem for path in MODULES}

# Functions whose last bits depend on the version, the CPU or the memory layout.
UNSAFE = {
    "sum", "mean", "std", "var", "dot", "vdot", "inner", "einsum", "tensordot", "linalg", "exp",
    "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "sin", "cos", "tanh", "hypot",
    "cbrt", "nansum", "average", "trace", "reduce", "convolve", "interp",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_imports_are_few(module: Path) -> None:
    nodes = list(ast.walk(ast.parse(module.read_text())))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    outside = {name for name in names if not name.startswith("asyncdmtl.arithmetic")}
    assert outside - {
        "asyncdmtl.arrays",
        "asyncdmtl.errors",
        "numpy",
        "numpy.typing",
        "threadpoolctl",
    } <= sys.stdlib_module_names | {"collections.abc"}


# Modules that use NumPy's functions for comparison, or as the alternative.
PLAIN = {"blas", "kinds", "probe"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.stem not in PLAIN], ids=lambda path: path.stem)
def test_no_unsafe_function_is_called(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert not (node.value.id in {"np", "math"} and node.attr in UNSAFE), (
                f"{node.value.id}.{node.attr}"
            )
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), "@"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module_of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            assert module_of in OWN or node.func.attr not in {"sum", "mean", "std", "dot"}, node.func.attr
