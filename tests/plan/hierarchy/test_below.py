from __future__ import annotations

import random

import numpy as np
import pytest
from support.placements import random_placement

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.hierarchy.below import plan_below
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipe import rebuild_plan

PLACEMENT = Placement({"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p2", "p3"], "d": ["p3", "p0"]})
TOPOLOGY = Topology(PLACEMENT, {"r": ["a", "b"]})
ABOVE = make_plan(TOPOLOGY.placement_of(TOPOLOGY.top), units="updates", merge=False)
STORED = {"a": ["p0", "p1"], "b": ["p1", "p2"]}


@pytest.mark.parametrize("seed", range(20))
def test_updates_pass_two_levels(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng, most_workers=5)
    workers = list(placement.workers)
    sites = {f"r{h}": own for h in range(2) if (own := workers[h::2])}
    topology = Topology(placement, sites)
    top = topology.placement_of(topology.top)
    above = make_plan(top, units="updates", merge=False)
    updates = np.random.default_rng(seed).standard_normal((len(placement.partitions), 12))
    uplink = [above.encode(h, updates[list(held)]) for h, held in enumerate(top.stored)]
    downlink = above.recombine(uplink)
    stored = placement.as_dict()
    for h, relay in enumerate(top.workers):
        lacked = above.decode(h, downlink[list(above.deliveries[h].rows)], updates[list(top.stored[h])])
        below = plan_below(above, relay, {name: stored[name] for name in sites[relay]})
        assert rebuild_plan(below.recipe(), below.digest).recipe() == below.recipe()
        *nodes, last = range(len(below.placement.workers))
        sent = [below.encode(k, updates[list(below.placement.stored[k])]) for k in nodes]
        assert sum(map(len, sent)) == below.subpackets * len(top.stored[h])
        assert len(below.downlink_matrix) == below.subpackets * max(
            len(placement.partitions) - len(below.placement.stored[k]) for k in nodes
        )
        rows = below.recombine([*sent, below.encode(last, lacked)])
        for k in nodes:
            delivery = below.deliveries[k]
            found = below.decode(k, rows[list(delivery.rows)], updates[list(delivery.known)])
            assert found.tobytes() == updates[list(delivery.wanted)].tobytes()
        assert below.deliveries[last].rows == ()


@pytest.mark.parametrize("strategy", ["uncoded", "central", "personal"])
def test_other_strategies_go_on_below(strategy: str) -> None:
    tasks = [0, 0, 1, 1]
    top = TOPOLOGY.placement_of(TOPOLOGY.top)
    above = make_plan(top, strategy, tasks=tasks, units="updates")  # type: ignore[arg-type]
    below = plan_below(above, "r", STORED, helpers=["a"])
    assert (below.strategy, below.tasks, below.helpers) == (strategy, (0, 0, 1, 1), (0, 2))
    assert rebuild_plan(below.recipe(), below.digest).digest == below.digest


def test_what_a_relay_cannot_follow_is_refused() -> None:
    with pytest.raises(PlanError, match="a worker behind the relay 'r' has its name"):
        plan_below(ABOVE, "r", {"r": ["p0", "p1", "p2"]})
    with pytest.raises(PlanError, match="the plan says that relay 'r' stores"):
        plan_below(ABOVE, "r", {"a": ["p0"]})
    summed = make_plan(TOPOLOGY.placement_of(TOPOLOGY.top), tasks=[0, 0, 0, 1], units="sums")
    with pytest.raises(PlanError, match="codes more than updates"):
        plan_below(summed, "r", STORED)


def test_a_forged_plan_below_a_relay_is_refused() -> None:
    below = plan_below(ABOVE, "r", STORED)
    for key, value in (("senders", [0, 0, 0, 0]), ("uplink_rows", [9, 9, 9]), ("redrawn", [[0, 1]])):
        with pytest.raises(PlanError):
            rebuild_plan({**below.recipe(), key: value}, below.digest)
