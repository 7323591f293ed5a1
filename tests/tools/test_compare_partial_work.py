"""The least times of rounds with partial work are those that can be told by hand."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from asyncdmtl.plan.placement import Placement

TOOLS = Path(__file__).parents[2] / "tools"


def test_times_of_two_workers_with_one_partition_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("compare_partial_work")
    placement = Placement({"w0": ["a", "b"], "w1": ["b", "c"]})
    # Each sends one vector, the slow one after 6 units of computing.
    assert tool.least_time(placement, tool.whole(placement, [1.0, 3.0])) == pytest.approx(7.0)
    # It may begin with the partition that only it has.
    assert tool.best_partial(placement, [1.0, 3.0], 1) == pytest.approx(4.0)
    # Nobody else has that one.
    assert tool.least_time(placement, tool.whole(placement, [1.0, 3.0], without=1)) == float("inf")
