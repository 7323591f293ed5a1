from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import sweep_planner
from sweep_trees import random_tree


@pytest.mark.parametrize("sweep", ["linear", "wants", "job", "sums", "silent", "speeds", "designs"])
def test_plans_stand_comparison_with_brute_force(sweep: str) -> None:
    for number in range(4):
        assert getattr(sweep_planner, sweep)(number)


def test_trees_have_the_loads_of_an_own_walk_and_linear_program() -> None:
    # The linear program over all cuts between three nodes is quick.
    small = [number for number in range(100) if len(random_tree(number).top) <= 3][:20]
    assert len(small) == 20
    assert len(set(map(sweep_planner.relays, small))) > 1


def test_a_wrong_plan_ends_the_sweep() -> None:
    with pytest.raises(SystemExit, match="wrong: 7"):
        sweep_planner.require(False, 7)
