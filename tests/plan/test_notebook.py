from __future__ import annotations

import numpy as np

from asyncdmtl.plan.design.search import design_placement
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

PLACEMENT = Placement({"w0": ["a", "<b>"], "w1": ["<b>", "c"], "w2": ["c", "a"]})


def test_plans_and_designs_are_tables_with_escaped_names() -> None:
    plan = make_plan(PLACEMENT)._repr_html_()
    assert "<td>uplink</td><td>3/2</td><td>3/2</td>" in plan
    assert "<td>downlink, as a broadcast</td><td>1</td><td>1</td>" in plan
    assert "<td>w0</td><td>&lt;b&gt;, a</td><td>1/2</td>" in plan
    linear = make_linear_plan(PLACEMENT, np.ones((1, 3)))._repr_html_()
    assert "Plan, strategy linear" in linear
    assert "3 workers, 3 partitions" in linear
    design = design_placement(partitions=4, capacities=[2, 2, 2])._repr_html_()
    assert "Design, " in design
    assert "3 workers, 4 partitions" in design


def test_long_lists_of_partitions_are_cut() -> None:
    many = Placement({"w": [f"partition {n}" for n in range(50)]})
    made = make_plan(many)._repr_html_()
    assert "… (50)" in made
    assert "partition 20" not in made
