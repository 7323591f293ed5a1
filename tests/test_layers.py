"""Imports run one way: from the roof down to the ground, and only `runtime/` knows sockets and clocks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncdmtl

ROOT = Path(asyncdmtl.__file__).parent

FLOORS = [
    ["errors"],
    ["field"],
    ["plan"],
    ["learning"],
    ["data", "files", "exchange"],
    ["tables", "linear_exchange"],
    ["loading"],
    ["protocol"],
    ["runtime"],
    ["command", "options", "broadcasts"],
    ["report", "plots", "evaluation"],
    ["progress"],
    ["run", "server", "worker", "explain", "place", "predict", "estimators"],
    ["cli"],
    ["__main__", "__init__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
CLOCKS_AND_SOCKETS = {"asyncio", "socket", "ssl", "time"}

MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported(module: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_run_downwards(module: Path) -> None:
    own = FLOOR[room_of(module)]
    for name in imported(module):
        parts = name.split(".")
        if parts[0] != "asyncdmtl" or len(parts) == 1 or parts[1] not in FLOOR:
            continue
        below = FLOOR[parts[1]] < own or parts[1] == room_of(module)
        assert below, f"{module} imports {name}, which is not below it"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_clocks_and_sockets_stay_in_the_runtime(module: Path) -> None:
    if FLOOR[room_of(module)] < FLOOR["runtime"]:
        assert not CLOCKS_AND_SOCKETS & {name.split(".")[0] for name in imported(module)}


def test_every_module_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_is_pickled(module: Path) -> None:
    assert not {"pickle", "marshal", "shelve"} & {name.split(".")[0] for name in imported(module)}
