"""Classes, functions and files stay small; exceptions have a reason here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import asyncdmtl

ROOT = Path(asyncdmtl.__file__).parent

# The most lines, methods and attributes of a class, lines of a function without its docstring, and lines of a
# file.
MOST_LINES, MOST_METHODS, MOST_ATTRIBUTES, MOST_OF_A_FUNCTION, MOST_OF_A_FILE = 250, 20, 12, 65, 450

LARGE = {
    "exchange/coded_server.py CodedServerSide": "answers the interface of all sides of servers",
    "exchange/coded_worker.py CodedWorkerSide": "keeps a round's buffers, which are made once for a plan",
    "exchange/sides.py ServerSide": "is the interface of all sides of servers",
    "learning/problem.py Problem": "has one attribute for each fact that follows from what workers declare",
    "learning/trainer.py Trainer": "has one method for each thing that a round asks of a training",
    "multicast/receiving.py Reassembly": "keeps rows, what is known of them, and counts, for each piece",
    "net/connection.py Connection": "answers asyncio's protocol, 8 methods, beside its own",
    "net/link.py Link": "has a property for each state of a transport that is asked for",
    "plan/plan.py Plan": "is one immutable value; its loads, bounds and codes are properties of it",
    "protocol/session.py Session": "has one method for each rule of the protocol",
    "relay/sides.py RelaySide": "keeps a round's buffers, which are made once for a plan",
    "server/metrics.py Metrics": "has one attribute for each metric",
    "worker/participation.py Participation": "follows a connection through all that may come on it",
}

FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def attributes(made: ast.ClassDef) -> set[str]:
    """The attributes that `__init__` sets."""
    return {
        node.attr
        for method in made.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def lines(node: ast.AST) -> int:
    """Lines of a class or function."""
    assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return (node.end_lineno or 0) - node.lineno + 1


def is_large(node: ast.ClassDef) -> bool:
    """Whether a class breaks one of the limits."""
    methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
    return lines(node) > MOST_LINES or methods > MOST_METHODS or len(attributes(node)) > MOST_ATTRIBUTES


def test_large_classes_have_a_reason() -> None:
    large = {
        f"{file} {node.name}"
        for file in FILES
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and is_large(node)
    }
    assert large == set(LARGE)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_functions_and_files_are_short(file: Path) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            described = len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert lines(node) - described <= MOST_OF_A_FUNCTION, node.name
