"""Training calls none of NumPy's functions whose last bits depend on the machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from asyncdmtl import data, exchange, learning

# Modules whose last bits do not matter: baselines, scores, pictures of models, a proposal that Cholesky's
# factors check, and sketches of models, which are compared up to rounding.
APART = {"baseline", "metrics", "structure", "selection", "smoothness", "states"}
MODULES = sorted(
    path
    for room in (learning, data, exchange)
    for path in Path(str(room.__file__)).parent.rglob("*.py")
    if path.stem not in APART
)

UNSAFE = {
    "average", "cbrt", "convolve", "corrcoef", "cos", "cov", "dot", "exp", "exp2", "expm1", "geomspace",
    "hypot", "inner", "interp", "linalg", "log", "log10", "log1p", "log2", "logaddexp", "logspace", "matmul",
    "mean", "nanmean", "nansum", "pow", "power", "sin", "std", "tanh", "tensordot", "trace", "var", "vdot",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.stem}.{path.stem}")
def test_no_function_depends_on_the_machine(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            assert not (node.value.id in {"np", "math"} and node.attr in UNSAFE), used
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), "@"
