from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import sweep_planner


@pytest.mark.parametrize("sweep", [sweep_planner.linear, sweep_planner.wants, sweep_planner.designs])
def test_plans_stand_comparison_with_brute_force(sweep: object) -> None:
    assert callable(sweep)
    for number in range(4):
        assert sweep(number)


def test_a_wrong_plan_ends_the_sweep() -> None:
    with pytest.raises(SystemExit, match="wrong: 7"):
        sweep_planner.require(False, 7)
