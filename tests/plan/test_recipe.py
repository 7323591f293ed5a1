from __future__ import annotations

import json
from typing import Any

import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS

from asyncdmtl.errors import PlacementError, PlanError
from asyncdmtl.plan.limits import MOST_NAMES
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipe import rebuild_plan, recipe_placement, whole

PLAN = make_plan(HOMOGENEOUS)
UNCODED = make_plan(HOMOGENEOUS, "uncoded")
CENTRAL = make_plan(HOMOGENEOUS, "central", silent=1)
SUMS = make_plan(Placement.cyclic(4, 8, 2), tasks=[n // 4 for n in range(8)], units="sums")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_recipes_rebuild_the_same_plan(strategy: Any) -> None:
    plan = make_plan(HETEROGENEOUS, strategy, tasks=[n // 2 for n in range(12)], seed=5)
    same = rebuild_plan(plan.recipe(), plan.digest)
    assert same.digest == plan.digest
    assert (same.uplink_matrix == plan.uplink_matrix).all()
    assert (same.downlink_matrix == plan.downlink_matrix).all()
    assert same.deliveries == plan.deliveries
    assert make_plan(HETEROGENEOUS, strategy, seed=6).digest != plan.digest


def test_sums_are_in_recipes_that_have_some() -> None:
    assert SUMS.recipe()["sums"] == [[0, 0, 2], [0, 2, 4], [1, 0, 2], [1, 2, 4]]
    assert rebuild_plan(SUMS.recipe(), SUMS.digest).units == SUMS.units
    assert "sums" not in PLAN.recipe()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 99}, "version 99"),
        ({"strategy": "magic"}, "magic"),
        ({"seed": 1}, "digest"),
        ({"stored": [[99]] * 6}, "malformed"),
        ({"uplink_rows": "x"}, "malformed"),
        ({"tasks": [0]}, "malformed"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(change: dict[str, Any], complaint: str) -> None:
    plan = make_plan(HOMOGENEOUS)
    with pytest.raises(PlanError, match=complaint):
        rebuild_plan(plan.recipe() | change, plan.digest)


@pytest.mark.parametrize(
    "change",
    [
        {"subpackets": 10**9},
        {"subpackets": 0},
        {"uplink_rows": [2**31] * 6},
        {"uplink_rows": [float("inf")] * 6},
        {"stored": [[-1]] * 6},
        {"workers": {"w0": 1}},
        {"seed": -1},
        {"silent": 99},
        {"senders": [99]},
        {"tasks": [2**60] * 6},
    ],
    ids=str,
)
def test_hostile_recipes_are_refused_at_once(change: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="malformed"):
        rebuild_plan(PLAN.recipe() | change, PLAN.digest)


@pytest.mark.parametrize("plan", [PLAN, UNCODED, CENTRAL], ids=["relay", "uncoded", "central"])
def test_a_recipe_that_went_through_json_gives_the_same_plan(plan: Any) -> None:
    same = rebuild_plan(json.loads(json.dumps(plan.recipe())), plan.digest)
    assert same.recipe() == plan.recipe()
    assert (same.uplink_matrix == plan.uplink_matrix).all()


def test_errors_name_versions_strategies_and_digests() -> None:
    with pytest.raises(PlanError, match=r"^plan recipe of version 99, this is version \d+$"):
        rebuild_plan(PLAN.recipe() | {"version": 99}, PLAN.digest)
    with pytest.raises(PlanError, match=r"^plan recipe with the unknown strategy 'magic'$"):
        rebuild_plan(PLAN.recipe() | {"strategy": "magic"}, PLAN.digest)
    with pytest.raises(PlanError, match=f"^the plan built has digest {PLAN.digest.hex()}, not the one"):
        rebuild_plan(PLAN.recipe(), bytes(16))


@pytest.mark.parametrize("key", list(PLAN.recipe()))
def test_a_recipe_lacks_nothing(key: str) -> None:
    recipe = {name: value for name, value in PLAN.recipe().items() if name != key}
    with pytest.raises(PlanError, match="malformed plan recipe"):
        rebuild_plan(recipe, PLAN.digest)


@pytest.mark.parametrize(
    ("plan", "change", "reason"),
    [
        (PLAN, {"uplink_rows": [2] * 6}, "12 coded rows for 15 packets"),
        (PLAN, {"uplink_rows": [16] * 6}, "16 is no whole number from 0 to 15"),
        (PLAN, {"senders": [0] * 6}, "a sender must hold the vector that it sends"),
        (PLAN, {"merged": 2}, "blocks of 2 units do not fill"),
        (PLAN, {"aggregated": [0, 0]}, "aggregated tasks \\[0, 0\\] that are stored nowhere whole, or named"),
        (PLAN, {"replaced": [[9, 1]]}, "9 is no whole number from 0 to 5"),
        (PLAN, {"replaced": [[0, 0]]}, "0 is no whole number from 1 to 30"),
        (PLAN, {"redrawn": [[9, 1]]}, "9 is no whole number from 0 to 5"),
        (PLAN, {"redrawn": [[0, 0]]}, "0 is no whole number from 1 to 4096"),
        (CENTRAL, {"redrawn": [[0, 1]]}, "worker 0 has no coded row to draw again"),
        (PLAN, {"last_row": 5000}, "5000 is no whole number from 0 to 4096"),
        (PLAN, {"silent": True}, "True is no whole number from 0 to 5"),
        (UNCODED, {"silent": 1}, "silent is for the strategies central and relay"),
        (CENTRAL, {"uplink_rows": [0] * 6}, "0 coded rows for"),
        (UNCODED, {"subpackets": 2}, "2 packets where units go up uncoded"),
        (UNCODED, {"senders": [3, 3, 3, 3, 3, 3]}, "a sender must hold the vector that it sends"),
        (UNCODED, {"uplink_rows": [0, 2, 1, 1, 1, 1]}, "a sender must hold the vector that it sends"),
        (UNCODED, {"replaced": [[0, 1]]}, "worker 0 has no row to replace"),
        (UNCODED, {"aggregated": [0]}, "aggregated tasks or sums under uncoded"),
        (SUMS, {"sums": [[0, 1, 3]]}, "\\[0, 1, 3\\] is no sum of a task of 4 partitions"),
        (SUMS, {"sums": [[0, 0, 4]]}, "\\[0, 0, 4\\] is no sum of a task of 4 partitions"),
        (SUMS, {"sums": [[0, 2, 3]]}, "3 is no whole number from 4 to 4"),
        (SUMS, {"sums": [[2, 0, 2]]}, "2 is no whole number from 0 to 1"),
        (SUMS, {"sums": [[0, 0, 2], [0, 0, 2]]}, "sums and aggregates have partitions in common"),
        (SUMS, {"sums": [0]}, "cannot unpack"),
    ],
)
def test_recipes_of_plans_that_are_never_made_say_why(plan: Any, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(PlanError, match=f"malformed plan recipe: .*{reason}"):
        rebuild_plan(plan.recipe() | change, plan.digest)


def test_a_placement_is_read_from_its_names_and_numbers() -> None:
    recipe = {"workers": ["a", "b"], "partitions": ["x", "y"], "stored": [[0, 1], [1]]}
    assert recipe_placement(recipe).as_dict() == {"a": ["x", "y"], "b": ["y"]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"partitions": "xy"}, ValueError, "partitions and workers must be lists"),
        ({"workers": {"a": 1, "b": 2}}, ValueError, "partitions and workers must be lists"),
        ({"stored": [[0, 2], [1]]}, ValueError, "2 is no whole number from 0 to 1"),
        ({"stored": [[0, 1]]}, ValueError, "argument"),
        ({"workers": ["a", "a"], "stored": [[0], [0]]}, PlacementError, "holder"),
        ({"partitions": ["x"] * (MOST_NAMES + 1)}, ValueError, f"{MOST_NAMES + 1} partitions and 2 workers"),
    ],
)
def test_what_is_no_placement_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    recipe = {"workers": ["a", "b"], "partitions": ["x", "y"], "stored": [[0, 1], [1]]}
    with pytest.raises(error, match=message):
        recipe_placement(recipe | change)


def test_whole_numbers_lie_between_their_limits() -> None:
    assert [whole(n, 2, 4) for n in (2, 3, 4)] == [2, 3, 4]
    for value in (1, 5, True, 3.0, "3", None):
        with pytest.raises(ValueError, match=f"{value!r} is no whole number from 2 to 4"):
            whole(value, 2, 4)
