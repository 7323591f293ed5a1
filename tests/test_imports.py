"""Imports go in one direction, without cycles; sockets and clocks are used from `net/` upwards only.

Every import counts: inside functions, under TYPE_CHECKING, in the package's `__init__`, and of the modules
from which `__init__` loads public names lazily.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import asyncdmtl

ROOT = Path(asyncdmtl.__file__).parent

# Packages and modules in layers, the lowest first. A layer may import the layers before it; members of one
# layer never import each other.
FLOORS = [
    ["errors", "_version"],
    ["arrays"],
    ["digests", "documents", "extensions", "html_table"],
    ["arithmetic", "field"],
    ["plan"],
    ["learning"],
    ["data"],
    ["blinding"],
    ["exchange"],
    ["multicast"],
    ["protocol"],
    ["net"],
    ["server", "worker"],
    ["relay"],
    ["launch"],
    ["report"],
    ["dask"],
    ["estimators"],
    ["cli"],
    ["__init__", "__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
CLOCKS_AND_SOCKETS = {"asyncio", "socket", "ssl", "time"}

MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
NAMES = {("asyncdmtl", *path.with_suffix("").parts) for path in MODULES}


def room_of(module: Path) -> str:
    """The room of a module. `__main__` modules belong to the top layer, since nothing imports them."""
    return "__main__" if module.name == "__main__.py" else module.parts[0].removesuffix(".py")


@cache
def imported(module: Path) -> frozenset[str]:
    """Full names of everything that a file imports, lazy public names included."""
    return frozenset(_imported(module))


def _imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    if module.parts == ("__init__.py",):
        yield from asyncdmtl._MODULE_OF.values()


@cache
def modules_imported(module: Path) -> frozenset[Path]:
    """The modules of the package that a file imports, without the package's root."""
    found = set()
    for name in imported(module):
        parts = tuple(name.split("."))
        if parts[0] == "asyncdmtl":
            while parts and parts not in NAMES and (*parts, "__init__") not in NAMES:
                parts = parts[:-1]
            if parts not in NAMES:
                parts = (*parts, "__init__")
            found.add(Path(*parts[1:]).with_suffix(".py"))
    return frozenset(found)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_run_downwards(module: Path) -> None:
    own = room_of(module)
    for other in modules_imported(module):
        room = room_of(other)
        below = FLOOR[room] < FLOOR[own] or (room == own and own != "__main__")
        assert below, f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__main__.py"], ids=str)
def test_no_module_imports_itself_by_way_of_others(module: Path) -> None:
    reached, ahead = set[Path](), set(modules_imported(module))
    while ahead:
        reached |= ahead
        ahead = {further for other in ahead for further in modules_imported(other)} - reached
    assert module not in reached


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_clocks_and_sockets_stay_in_net_and_above(module: Path) -> None:
    if FLOOR[room_of(module)] < FLOOR["net"]:
        assert not CLOCKS_AND_SOCKETS & {name.split(".")[0] for name in imported(module)}


def test_every_module_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_is_pickled(module: Path) -> None:
    assert not {"pickle", "marshal", "shelve"} & {name.split(".")[0] for name in imported(module)}
