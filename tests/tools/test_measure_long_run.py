"""A long run of real workers is measured; its parts are those of other tools, which have their own tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def test_only_lateness_of_rounds_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("measure_long_run")
    file = tmp_path / "late"
    file.write_text("1.0 9.0 8.0\n2.0 0.5 0.1\n3.0 0.25 0.2\n")
    assert tool.lateness(file, 2.0) == (0.5, 0.2)
    assert tool.lateness(file, 4.0) == (0.0, 0.0)
