"""Every module of the package has a test file of its own name at the mirrored path."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asyncdmtl"

# Modules without a test file of their own, with the reason.
WITHOUT = {
    "_version.py": "holds one constant",
    "arrays.py": "holds names of types, which mypy checks",
}

MODULES = sorted(
    module.relative_to(PACKAGE)
    for module in PACKAGE.rglob("*.py")
    if module.name not in ("__init__.py", "__main__.py")
)


def mirrored(module: Path) -> Path:
    """The path of a module's tests: tests/a/test_b.py for a/b.py, and for a/_b.py."""
    return Path("tests") / module.with_name(f"test_{module.stem.lstrip('_')}.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_a_test_file_of_its_own_name(module: Path) -> None:
    assert (ROOT / mirrored(module)).is_file() or str(module) in WITHOUT, f"write {mirrored(module)}"


def test_paths_are_mirrored() -> None:
    assert mirrored(Path("plan/rates/cost.py")) == Path("tests/plan/rates/test_cost.py")
    assert mirrored(Path("_hidden.py")) == Path("tests/test_hidden.py")
    assert len(MODULES) > 100
