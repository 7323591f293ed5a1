from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support.placements import HETEROGENEOUS

from asyncdmtl.field import linalg
from asyncdmtl.plan.codes.decodability import undecodable
from asyncdmtl.plan.codes.matrices import coded_uplink
from asyncdmtl.plan.mending import decodable_plan
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.rounding import plan_rates
from asyncdmtl.plan.recipe import rebuild_plan


def parameters(placement: Placement, seed: int) -> PlanParameters:
    rates = plan_rates(placement, "relay", max_overhead=Fraction(1, 2))
    tasks = tuple(range(len(placement.partitions)))
    return PlanParameters(placement, tasks, "relay", rates.subpackets, rates.rows, seed)


def check(plan: Plan) -> None:
    """Check that every worker's own system has full rank, and that the recipe gives the same plan."""
    for delivery in map(plan.in_columns, plan.deliveries):
        assert linalg.rank(plan.combined[list(delivery.rows)][:, delivery.wanted]) == len(delivery.wanted)
    assert undecodable(plan.combined, list(map(plan.in_columns, plan.deliveries))) == []
    assert rebuild_plan(plan.recipe(), plan.digest).deliveries == plan.deliveries


def test_the_last_row_is_drawn_again_for_workers_that_are_sent_all_rows() -> None:
    placement = Placement.cyclic(300, 300, 2)
    plan = decodable_plan(parameters(placement, 0))
    assert plan is not None
    assert plan.last_row > 0
    check(plan)


def test_a_later_row_is_sent_to_a_worker_that_is_not_sent_all_rows() -> None:
    # One worker stores a single partition, so that no other is sent all rows. About one in 255 of the others
    # needs mending.
    stored = {f"w{k}": [f"p{k}", f"p{(k + 1) % 200}"] for k in range(200)} | {"poor": ["p0"]}
    placement = Placement(stored)
    mended = [plan for seed in range(6) if (plan := decodable_plan(parameters(placement, seed)))]
    assert any(plan.replaced for plan in mended)
    for plan in mended[:2]:
        check(plan)


@pytest.mark.parametrize(("seed", "helpers"), [(35000, 0), (27007, 3)])
def test_an_uplink_row_is_drawn_again_where_all_rows_do_not_suffice(seed: int, helpers: int) -> None:
    placement = Placement.cyclic(12, 12, 3)
    plan = make_plan(placement, seed=seed, wants=["none"] * helpers + ["all"] * (12 - helpers))
    [(worker, number)] = plan.redrawn
    assert (plan.seed, number) == (seed, 1)
    plain = coded_uplink(plan.units.blocks, plan.uplink_rows, plan.subpackets, seed)
    [row] = np.flatnonzero((plain != plan.uplink_matrix).any(axis=1))
    assert row == sum(plan.uplink_rows[: worker + 1]) - 1
    wanting = [plan.in_columns(delivery).wanted for delivery in plan.deliveries if delivery.wanted]
    short = [len(wanted) - linalg.rank(np.ascontiguousarray(plain[:, wanted])) for wanted in wanting]
    assert max(short) == 1
    check(plan)


@pytest.mark.parametrize("seed", range(5))
def test_rates_that_are_too_small_cannot_be_mended(seed: int) -> None:
    given = parameters(HETEROGENEOUS, seed)
    fewer = PlanParameters(HETEROGENEOUS, given.tasks, "relay", given.subpackets, (1,) * 6, seed)
    assert decodable_plan(fewer) is None


def test_more_rows_than_the_field_has_elements() -> None:
    plan = decodable_plan(parameters(Placement.cyclic(4, 601, 2), 0))
    assert plan is not None
    assert len(plan.downlink_matrix) > 255
    check(plan)
    V = np.random.default_rng(0).integers(0, 256, (601, 3), dtype=np.uint8)
    down = plan.recombine([plan.encode(k, V[list(own)]) for k, own in enumerate(plan.placement.stored)])
    for k, delivery in enumerate(plan.deliveries):
        decoded = plan.decode(k, down[list(delivery.rows)], V[list(delivery.known)])
        assert np.array_equal(decoded, V[list(delivery.wanted)])
