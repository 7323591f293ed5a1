"""The lowest versions follow from the requirements."""

from __future__ import annotations

import tomllib

import pytest
from lowest_versions import ROOT, TESTS, lowest


def test_tests_may_ask_for_a_later_version() -> None:
    found = lowest(["click>=8.1", "uvloop>=0.19; platform_system != 'Windows'"], ["click>=8.2", "ruff>=0.9"])
    assert found == ["click==8.2", "uvloop==0.19; platform_system != 'Windows'"]
    assert lowest(["numpy>=1.9"], ["numpy>=1.10"]) == ["numpy==1.10"]


def test_every_dependency_has_a_lower_bound() -> None:
    with pytest.raises(ValueError, match="'numpy' has no lower bound"):
        lowest(["numpy"], [])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(lowest(project["dependencies"], [])) == len(project["dependencies"])


def test_the_tests_exist() -> None:
    assert all((ROOT / name).exists() for name in TESTS)
