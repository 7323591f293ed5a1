"""A worker follows a plan that suits it, and refuses another one before any expensive work."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import sealed_info
from asyncdmtl.errors import PlanError, RemoteProtocolError
from asyncdmtl.exchange.blind_worker import BlindWorkerSide
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import Assign, StateTransfer
from asyncdmtl.worker.plan_check import check_contents, make_worker_side

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings()
RECIPE, DIGEST = recipe_and_digest(make_plan(Placement.cyclic(3, 6, 2), tasks=(0, 0, 1, 1, 2, 2)))
INFOS = tuple(part.info(SETTINGS) for part in PARTITIONS)


def prepared(recipe: dict[str, Any]) -> Any:
    stored = {PARTITIONS[n].id: PARTITIONS[n] for n in RECIPE["stored"][0]}
    assign = Assign(0, 0, False, StateTransfer.KEEP, recipe, DIGEST, INFOS)
    return make_worker_side(assign, "w0", SETTINGS, stored)


def test_a_plan_for_this_worker_is_followed() -> None:
    assert prepared(RECIPE).trainer.own == tuple(RECIPE["stored"][0])


def test_a_plan_for_speeds_may_have_more_packets_than_workers() -> None:
    speeds, overhead = [10, 47, 100], Fraction(1, 100)
    plan = make_plan(
        Placement.cyclic(3, 6, 2), tasks=(0, 0, 1, 1, 2, 2), speeds=speeds, max_overhead=overhead
    )
    assert plan.subpackets == 17
    recipe, digest = recipe_and_digest(plan)
    stored = {PARTITIONS[n].id: PARTITIONS[n] for n in recipe["stored"][0]}
    assign = Assign(0, 0, False, StateTransfer.KEEP, recipe, digest, INFOS)
    assert make_worker_side(assign, "w0", SETTINGS, stored).plan.subpackets == plan.subpackets


def coarse(packets: int) -> dict[str, Any]:
    rows = [packets * len(stored) for stored in RECIPE["stored"]]
    return {"subpackets": packets, "uplink_rows": rows}


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"workers": ["v0", "w1", "w2"]}, PlanError, "no worker 'w0'"),
        ({"workers": "w0"}, PlanError, "no worker 'w0'"),
        ({"partitions": RECIPE["partitions"][::-1]}, RemoteProtocolError, "do not fit each other"),
        ({"partitions": None}, RemoteProtocolError, "do not fit each other"),
        (coarse(43), PlanError, "into 43 packets for 3 workers"),
        (coarse(256), PlanError, "into 256 packets for 3 workers"),
        ({"subpackets": "many"}, PlanError, "'many' packets"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_it_costs_anything(
    change: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=complaint):
            prepared(RECIPE | change)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        ("central", "of a strategy whose server is not blind"),
        ("silent relay", "waits for all workers, and this plan tolerates late ones"),
        ("relay", ""),
    ],
)
def test_a_blind_run_has_no_plan_by_which_others_read_rows(strategy: Any, complaint: str) -> None:
    group = GroupKey(b"a secret of sixteen bytes", "run")
    wishes: dict[str, Any] = {"silent": 1, "max_overhead": 3} if strategy.startswith("silent") else {}
    plan = make_plan(Placement.cyclic(3, 6, 2), strategy.split()[-1], tasks=(0, 0, 1, 1, 2, 2), **wishes)
    recipe, digest = recipe_and_digest(plan)
    infos = tuple(sealed_info(group, info) for info in INFOS)
    assign = Assign(0, 0, False, StateTransfer.KEEP, recipe, digest, infos)
    stored = {PARTITIONS[n].id: PARTITIONS[n] for n in recipe["stored"][0]}
    if not complaint:
        assert isinstance(
            make_worker_side(assign, "w0", SETTINGS, stored, group.digest, group), BlindWorkerSide
        )
        return
    with pytest.raises(RemoteProtocolError, match=complaint):
        make_worker_side(assign, "w0", SETTINGS, stored, group.digest, group)


def test_a_plan_with_other_contents_of_the_workers_own_partitions_is_refused() -> None:
    group = GroupKey(b"a secret of sixteen bytes", "run")
    infos = tuple(sealed_info(group, info) for info in INFOS)
    assign = Assign(0, 0, False, StateTransfer.KEEP, RECIPE, DIGEST, infos)
    stored = {PARTITIONS[n].id: PARTITIONS[n] for n in RECIPE["stored"][0]}
    side = make_worker_side(assign, "w0", SETTINGS, stored, group.digest, group)
    check_contents(side, INFOS[:2], group)
    changed = make_partitions(6, "squared", seed=1)[1].info(SETTINGS)
    with pytest.raises(RemoteProtocolError, match=r"the plan has other contents of \['p1'\] than"):
        check_contents(side, (INFOS[0], changed), group)
