from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import rebuild, recipe_and_digest

TARGET = np.random.default_rng(0).standard_normal((3, 12))


def over_the_wire(recipe: dict[str, Any]) -> dict[str, Any]:
    back: dict[str, Any] = msgpack.unpackb(msgpack.packb(recipe))
    return back


@pytest.mark.parametrize("at_server", [True, False])
def test_linear_plans_survive_the_wire(at_server: bool) -> None:
    plan = make_linear_plan(HETEROGENEOUS, TARGET, at_server=at_server)
    recipe, digest = recipe_and_digest(plan)
    same = rebuild(over_the_wire(recipe), digest)
    assert isinstance(same, LinearPlan)
    assert recipe_and_digest(same)[1] == digest
    V = np.random.default_rng(1).standard_normal((12, 5))
    rows = {k: plan.encode(k, V[list(stored)]) for k, stored in enumerate(HETEROGENEOUS.stored)}
    down = plan.broadcast(plan.aggregate(rows))
    for k, stored in enumerate(HETEROGENEOUS.stored):
        assert np.array_equal(same.encode(k, V[list(stored)]), rows[k])
        assert np.array_equal(same.recover(k, down, V[list(stored)]), plan.recover(k, down, V[list(stored)]))


def test_plans_over_bytes_survive_the_wire() -> None:
    plan = make_plan(HOMOGENEOUS)
    recipe, digest = recipe_and_digest(plan)
    assert recipe_and_digest(rebuild(over_the_wire(recipe), digest))[1] == digest


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"subpackets": 2},
        {"target": [3, b"short"]},
        {"missing_ranks": [1]},
        {"missing_ranks": [99] * 6},
        {"downlink": [1, np.full(3, np.nan).tobytes()]},
        {"bounds": ["1/0", "1"]},
        {"uplink": None},
    ],
    ids=str,
)
def test_recipes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    recipe, digest = recipe_and_digest(make_linear_plan(HETEROGENEOUS, TARGET))
    with pytest.raises(PlanError):
        rebuild(recipe | change, digest)
    from asyncdmtl.plan import serialization

    with pytest.raises(PlanError):
        rebuild(recipe | change, serialization._digest(recipe | change))


RELAY = make_plan(Placement.cyclic(4, 8, 2), "relay").recipe()
CENTRAL = make_plan(Placement.cyclic(4, 8, 2), "central").recipe()
TOLERANT = make_plan(Placement.cyclic(4, 8, 2), "central", silent=1).recipe()


def wide(partitions: int, workers: int, packets: int) -> dict[str, Any]:
    """A short recipe of a plan that no planner would make."""
    names, K = [f"p{n}" for n in range(partitions)], range(workers)
    everything = list(range(partitions))
    return RELAY | {
        "workers": [f"w{k}" for k in K],
        "partitions": names,
        "stored": [everything] + [[] for _ in K[1:]],
        "tasks": [0] * partitions,
        "subpackets": packets,
        "uplink_rows": [partitions * packets] + [0 for _ in K[1:]],
    }


@pytest.mark.parametrize(
    "recipe",
    [
        wide(3, 2, 4096),
        wide(200, 3, 256),
        wide(5000, 15_000, 1),
        wide(1, 20_000, 1),
        wide(20_000, 1, 1),
        RELAY | {"uplink_rows": [0] * 4},
        RELAY | {"senders": [0] * 8},
        RELAY | {"silent": 4},
        RELAY | {"stored": [[0] * 200_000, *RELAY["stored"][1:]]},
        CENTRAL | {"subpackets": 256},
        CENTRAL | {"senders": CENTRAL["senders"][::-1]},
        CENTRAL | {"senders": CENTRAL["senders"][:-1]},
        CENTRAL | {"uplink_rows": CENTRAL["uplink_rows"][::-1], "senders": [3] * 8},
        TOLERANT | {"uplink_rows": [1] * 4},
        TOLERANT | {"silent": 4},
    ],
    ids=range(15),
)
def test_a_plan_that_nobody_would_make_is_refused_before_it_costs_anything(recipe: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PlanError, match=r"malformed|too many"):
            rebuild(recipe, bytes(16))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
