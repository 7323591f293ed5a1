from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from asyncdmtl.plan.parameters import CHOICES, CODED, RECIPE_VERSION, STRATEGIES, PlanParameters
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement({"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p2", "p0"]})


def parameters(**changes: Any) -> PlanParameters:
    chosen: dict[str, Any] = {
        "placement": PLACEMENT, "tasks": (0, 0, 1), "strategy": "relay", "subpackets": 2,
        "uplink_rows": (1, 1, 1), "seed": 7,
    }  # fmt: skip
    return PlanParameters(**chosen | changes)


def test_a_packet_holds_a_share_of_a_block() -> None:
    assert parameters().packet_load == Fraction(1, 2)
    assert parameters(merged=3, subpackets=4).packet_load == Fraction(3, 4)


def test_units_are_partitions_until_tasks_are_aggregated() -> None:
    assert parameters().units.holders == PLACEMENT.holders == ((0, 2), (0, 1), (1, 2))
    # Worker a alone stores all of task 0.
    assert parameters(aggregated=(0,)).units.holders == ((1, 2), (0,))


def test_a_recipe_holds_every_parameter_in_plain_types() -> None:
    recipe = parameters(replaced=((1, 5),), silent=0, last_row=3, senders=()).recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe == {
        "version": RECIPE_VERSION,
        "strategy": "relay",
        "workers": ["a", "b", "c"],
        "partitions": ["p0", "p1", "p2"],
        "stored": [[0, 1], [1, 2], [0, 2]],
        "tasks": [0, 0, 1],
        "aggregated": [],
        "merged": 1,
        "subpackets": 2,
        "uplink_rows": [1, 1, 1],
        "senders": [],
        "seed": 7,
        "silent": 0,
        "last_row": 3,
        "replaced": [[1, 5]],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"merged": 2},
        {"last_row": 1},
        {"senders": (0, 1, 2)},
        {"tasks": (0, 1, 2)},
        {"silent": 1},
    ],
)
def test_other_parameters_have_another_recipe(change: dict[str, Any]) -> None:
    assert parameters(**change).recipe() != parameters().recipe()


def test_a_run_may_ask_for_every_strategy_and_for_a_choice_among_them() -> None:
    assert set(STRATEGIES) == {"relay", "central", "personal", "uncoded"}
    assert set(CHOICES) == {*STRATEGIES, "auto", "linear"}
    assert set(CODED) < set(STRATEGIES)
