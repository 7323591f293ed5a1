from __future__ import annotations

import pytest
from support.problems import make_partitions, make_settings
from support.trees import PLACEMENT

from asyncdmtl.digests import UNKEYED
from asyncdmtl.errors import PlanError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.parameters import STRATEGIES, Strategy
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.relay.strategies import make_relay_side

SETTINGS = make_settings()
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in make_partitions(6, "squared")])
TOPOLOGY = Topology(PLACEMENT, {"north": ["a", "b"], "south": ["c", "d"]})
STORED = {name: PLACEMENT.as_dict()[name] for name in "ab"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_relays_follow_every_exact_strategy(strategy: Strategy) -> None:
    top = TOPOLOGY.placement_of(TOPOLOGY.top)
    plan = make_plan(top, strategy, tasks=PROBLEM.task_of, units="updates", merge=False)
    side = make_relay_side(plan, "north", STORED, PROBLEM, UNKEYED)
    assert side.below.plan.strategy == strategy
    assert side.below.plan.placement.workers == ("a", "b", "north")
    # Only a strategy whose server takes the steps has models at the relay.
    assert (side.trainer is None) == (strategy != "personal")


def test_a_plan_for_other_tasks_is_refused() -> None:
    plan = make_plan(TOPOLOGY.placement_of(TOPOLOGY.top), tasks=[0] * 6, units="updates")
    with pytest.raises(PlanError, match="plan and tasks do not fit"):
        make_relay_side(plan, "north", STORED, PROBLEM, UNKEYED)
