"""What a run plans: exactly the least load, unless that costs more than it saves."""

from __future__ import annotations

from fractions import Fraction

import pytest

from asyncdmtl.exchange.strategies import LOAD_OVERHEAD, affordable_overhead
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan


@pytest.mark.parametrize(("workers", "partitions", "copies"), [(4, 4, 2), (8, 8, 4), (5, 20, 3)])
def test_a_run_of_moderate_size_meets_the_bound(workers: int, partitions: int, copies: int) -> None:
    placement = Placement.cyclic(workers, partitions, copies)
    plan = make_plan(placement, max_overhead=affordable_overhead(placement))
    assert plan.uplink_load == plan.uplink_bound


def test_a_run_of_many_workers_stays_within_a_percent_of_it_in_few_packets() -> None:
    placement = Placement.cyclic(20, 60, 5)
    plan = make_plan(placement, max_overhead=affordable_overhead(placement))
    assert plan.subpackets == 2
    assert plan.uplink_bound < plan.uplink_load <= plan.uplink_bound * (1 + LOAD_OVERHEAD)
    assert plan.uplink_bound == Fraction(60 * 15, 19)
