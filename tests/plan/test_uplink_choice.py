from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support.placements import HOMOGENEOUS

from asyncdmtl.errors import PlacementError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.bounds import cost_bound, time_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.recipe import rebuild_plan
from asyncdmtl.plan.units import Units
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_rates, choose_units


def test_small_plans_are_not_merged() -> None:
    units, rates = choose_rates(Units.of(Placement.cyclic(5, 20, 3), range(20)), "relay", UplinkWishes())
    assert (units.merged, rates.subpackets) == (1, 1)


@pytest.mark.parametrize(("workers", "partitions", "copies"), [(20, 200, 4), (50, 500, 4)])
def test_units_with_equal_holders_are_merged_where_matrices_would_be_large(
    workers: int, partitions: int, copies: int
) -> None:
    placement = Placement.cyclic(workers, partitions, copies)
    plan = make_plan(placement)
    assert plan.merged == partitions // workers
    assert plan.uplink_load == uplink_optimum(placement).load == plan.uplink_bound
    assert plan.downlink_load == plan.downlink_bound
    assert plan.wire_downlink_load == sum(partitions - len(stored) for stored in placement.stored)
    V = np.random.default_rng(0).integers(0, 256, (partitions, 7), dtype=np.uint8)
    down = plan.recombine([plan.encode(k, V[list(own)]) for k, own in enumerate(placement.stored)])
    for k in (0, workers - 1):
        delivery = plan.deliveries[k]
        decoded = plan.decode(k, down[list(delivery.rows)], V[list(delivery.known)])
        assert np.array_equal(decoded, V[list(delivery.wanted)])
    if workers == 20:
        assert rebuild_plan(plan.recipe(), plan.digest).digest == plan.digest


def test_merged_plans_tell_cost_and_time_of_vectors() -> None:
    placement = Placement.cyclic(12, 120, 3)
    weights = [Fraction(2)] * 12
    cheap = make_plan(placement, prices=weights)
    assert cheap.merged > 1
    assert cheap.objective is not None
    spent = sum(c * rows * cheap.packet_load for c, rows in zip(weights, cheap.uplink_rows, strict=True))
    assert spent == cheap.objective.value == cheap.objective.bound
    assert cost_bound(placement, weights, cheap.objective.certificate) == cheap.objective.bound
    weights = [Fraction(k % 3 + 1) for k in range(12)]
    quick = make_plan(placement, speeds=weights, max_overhead=Fraction(1, 50))
    assert quick.objective is not None
    ((cut, _),) = quick.objective.certificate
    assert time_bound(placement, weights, cut) == quick.objective.bound <= quick.objective.value


def test_central_codes_every_task_that_enough_workers_store_whole() -> None:
    tasks = [n // 2 for n in range(6)]
    assert choose_units(HOMOGENEOUS, tasks, "central", UplinkWishes()).aggregated == (0, 1, 2)
    assert choose_units(HOMOGENEOUS, tasks, "uncoded", UplinkWishes()).aggregated == ()
    assert choose_units(HOMOGENEOUS, tasks, "relay", UplinkWishes(units="updates")).aggregated == ()
    with pytest.raises(PlacementError, match="x would be lost"):
        choose_units(Placement({"a": ["x", "y"], "b": ["y"]}), [0, 1], "central", UplinkWishes(silent=1))
