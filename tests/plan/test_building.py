from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.plan.building import build_plan, forwarded
from asyncdmtl.plan.codes.matrices import Delivery, random_matrix
from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

# Worker a stores tasks 0 whole, c stores task 1 whole; b stores a part of each.
PLACEMENT = Placement({"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p2", "p3"]})


def built(strategy: str, **changes: Any) -> Plan:
    chosen: dict[str, Any] = {
        "placement": PLACEMENT, "tasks": (0, 0, 1, 1), "strategy": strategy, "subpackets": 1,
        "uplink_rows": (2, 1, 1), "seed": 3, "senders": () if strategy == "relay" else (0, 0, 1, 2),
    }  # fmt: skip
    return build_plan(PlanParameters(**chosen | changes))


def test_under_relay_each_worker_is_sent_as_many_rows_as_it_lacks_packets() -> None:
    plan = built("relay", uplink_rows=(4, 3, 4), subpackets=2)
    assert plan.deliveries == (
        Delivery((0, 1, 2, 3), (2, 3), (0, 1)),
        Delivery((0, 1, 2, 3), (0, 3), (1, 2)),
        Delivery((0, 1, 2, 3), (0, 1), (2, 3)),
    )
    assert plan.uplink_matrix.shape == (11, 8)
    assert (plan.downlink_matrix == random_matrix("downlink", 3, 4, 11)).all()
    # Worker b knows only the packets of p1 and p2.
    assert not plan.uplink_matrix[4:7, [0, 1, 6, 7]].any()
    assert plan.uplink_matrix[4:7, 2:6].all()


def test_uncoded_updates_go_up_once_and_down_as_they_are() -> None:
    plan = built("uncoded")
    assert (plan.uplink_matrix == np.eye(4)).all()
    assert (plan.downlink_matrix == np.eye(4)).all()
    assert plan.deliveries == (
        Delivery((2, 3), (2, 3), ()),
        Delivery((0, 3), (0, 3), ()),
        Delivery((0, 1), (0, 1), ()),
    )


def test_updates_that_only_helpers_lack_do_not_go_down_uncoded() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["x", "z"], "c": ["z"]})
    plan = make_plan(placement, "uncoded", wants={"c": "none"})
    assert [plan.uplink_load, plan.downlink_load, plan.wire_downlink_load] == [3, 2, 2]
    assert forwarded(placement, [2]) == (1, 2)
    assert (forwarded(placement), forwarded(placement, [0])) == ((0, 1, 2), (0, 1))
    V = np.arange(12, dtype=np.uint8).reshape(3, 4)
    down = plan.recombine([plan.encode(k, V[list(own)]) for k, own in enumerate(placement.stored)])
    for k, delivery in enumerate(plan.deliveries[:2]):
        known = V[list(delivery.known)]
        assert np.array_equal(plan.decode(k, down[list(delivery.rows)], known), V[list(delivery.wanted)])
    [uncoded] = [c for c in compare(placement, wants={"c": "none"}) if c.strategy == "uncoded"]
    assert uncoded.downlink_load == uncoded.unicast_load == 2
    assert "all but 1 that nobody needs" in uncoded.limits


def test_rows_of_an_uncoded_uplink_stand_in_the_order_of_their_senders() -> None:
    plan = built("uncoded", senders=(0, 1, 2, 2), uplink_rows=(1, 1, 2))
    assert plan.uplink_matrix.argmax(axis=1).tolist() == [0, 1, 2, 3]
    plan = built("uncoded", senders=(0, 1, 1, 2), uplink_rows=(1, 2, 1))
    V = np.arange(4.0)[:, None]
    up = [plan.encode(k, V[list(held)]) for k, held in enumerate(PLACEMENT.stored)]
    assert [len(rows) for rows in up] == [1, 2, 1]
    assert plan.decode(0, plan.recombine(up)[[2, 3]], V[:0]).tolist() == [[2.0], [3.0]]


def test_under_central_tasks_that_a_worker_stores_whole_are_side_information() -> None:
    plan = built("central")
    assert plan.deliveries == (
        Delivery((0,), (1,), (0,)),
        Delivery((0, 1), (0, 1), ()),
        Delivery((0,), (0,), (1,)),
    )
    assert plan.downlink_matrix.shape == (2, 2)
    assert (plan.uplink_matrix == np.eye(4)).all()


def test_under_personal_each_worker_is_sent_the_models_of_the_tasks_that_it_stores() -> None:
    plan = built("personal")
    assert plan.deliveries == (
        Delivery((0,), (0,), ()),
        Delivery((0, 1), (0, 1), ()),
        Delivery((1,), (1,), ()),
    )
    assert (plan.downlink_matrix == np.eye(2)).all()


def test_under_personal_models_that_nobody_wants_are_not_sent() -> None:
    placement = Placement({"a": ["p", "q"], "b": ["r"], "c": ["r", "s"], "d": ["p"]})
    plan = make_plan(placement, "personal", tasks=[0, 1, 2, 3], wants={"a": "none", "c": "none"})
    assert plan.deliveries == (
        Delivery((), (), ()),
        Delivery((1,), (2,), ()),
        Delivery((), (), ()),
        Delivery((0,), (0,), ()),
    )
    assert plan.downlink_matrix.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert plan.downlink_load == plan.downlink_bound == 2
    (personal,) = (
        c for c in compare(placement, wants={"a": "none", "c": "none"}) if c.strategy == "personal"
    )
    assert [personal.downlink_load, personal.downlink_bound, personal.unicast_load] == [2, 2, 2]
    assert "2 of 4 models are wanted" in personal.limits


def test_silence_is_met_by_coding_the_uplink_of_central() -> None:
    pairs = Placement.cyclic(3, 3, 2)
    plan = built("central", placement=pairs, tasks=(0, 1, 2), silent=1, senders=(), uplink_rows=(2, 2, 2))
    for k, held in enumerate(pairs.stored):
        rows = plan.uplink_matrix[2 * k : 2 * k + 2]
        assert rows[:, list(held)].all()
        assert np.count_nonzero(rows) == 4


def test_the_last_row_may_be_another_one_for_all_or_for_some() -> None:
    plain, redrawn = built("relay"), built("relay", last_row=2)
    assert (redrawn.downlink_matrix[:-1] == plain.downlink_matrix[:-1]).all()
    assert (redrawn.downlink_matrix[-1] == random_matrix("downlink/last/2", 3, 1, 4)).all()
    # A plan in which b lacks a single vector, while others lack two.
    wide = Placement({"a": ["p0", "p1"], "b": ["p0", "p1", "p2"], "c": ["p2", "p3"]})
    replaced = built("relay", placement=wide, uplink_rows=(1, 1, 2), replaced=((1, 1),))
    assert [delivery.rows for delivery in replaced.deliveries] == [(0, 1), (1,), (0, 1)]


def test_a_worker_that_lacks_nothing_has_no_row_to_replace() -> None:
    full = Placement({"a": ["p0", "p1", "p2", "p3"], "b": ["p0"]})
    plan = built("relay", placement=full, uplink_rows=(3, 0), replaced=((0, 2),))
    assert plan.deliveries[0] == Delivery((), (), (0, 1, 2, 3))


def test_blocks_of_merged_units_make_smaller_matrices_and_the_same_loads() -> None:
    pairs = Placement(
        {"a": ["p0", "p1", "p2", "p3"], "b": ["p0", "p1", "p4", "p5"], "c": ["p2", "p3", "p4", "p5"]}
    )
    common: dict[str, Any] = {"placement": pairs, "tasks": tuple(range(6)), "uplink_rows": (1, 1, 1)}
    merged = built("relay", merged=2, **common)
    single = built("relay", **common | {"uplink_rows": (2, 2, 2)})
    assert merged.uplink_matrix.shape == (3, 3)
    assert single.uplink_matrix.shape == (6, 6)
    assert merged.uplink_load == single.uplink_load == 6
    assert merged.downlink_load == single.downlink_load == 2
    V = np.random.default_rng(0).standard_normal((6, 5))
    up = [merged.encode(k, V[list(held)]) for k, held in enumerate(pairs.stored)]
    down = merged.recombine(up)
    for k, delivery in enumerate(merged.deliveries):
        decoded = merged.decode(k, down[list(delivery.rows)], V[list(delivery.known)])
        assert decoded.tobytes() == V[list(delivery.wanted)].tobytes()


@pytest.mark.parametrize("strategy", ["relay", "central", "personal", "uncoded"])
def test_the_plan_keeps_its_parameters(strategy: str) -> None:
    plan = built(strategy)
    assert (plan.strategy, plan.seed, plan.tasks) == (strategy, 3, (0, 0, 1, 1))
    assert built(strategy).digest == plan.digest
