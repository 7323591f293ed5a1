"""Memory, checkpoints and lateness of long runs are measured."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")


async def test_records_of_a_run_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("measure_records")
    told: list[str] = []
    await tool.measure(3, 40, 20, told.append)
    (line,) = told
    assert line.startswith("3 workers, 40 rounds, 2 checkpoints: memory +")
    larger = re.search(r"state \+ ([0-9.]+) MB", line)
    assert larger is not None
    # Some of the records must be seen, or nothing was measured.
    assert 0.0 < float(larger[1]) < 0.1
