"""The plan of a run has the smallest load, unless that needs too many packets."""

from __future__ import annotations

from fractions import Fraction

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES, LOAD_OVERHEAD, affordable_overhead, strategy_of
from asyncdmtl.learning.problem import Problem
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


@pytest.mark.parametrize("name", EXCHANGE_STRATEGIES)
def test_a_strategy_is_found_by_the_plan_that_it_made(name: str) -> None:
    strategy = EXCHANGE_STRATEGIES[name]
    settings = make_settings()
    problem = Problem(settings, [part.info(settings) for part in make_partitions(6, "squared")])
    plan = strategy.make_plan(Placement.cyclic(3, 6, 2), problem)
    assert strategy_of(plan) is strategy
    server = strategy.server_side(plan, problem)
    assert (server.trainer is not None) == strategy.server_trains
    assert (server.group_plan is None) == (name == "linear")


@pytest.mark.parametrize("name", ["central", "personal", "linear"])
def test_what_a_server_aggregates_cannot_be_compressed(name: str) -> None:
    with pytest.raises(UsageError, match="--compression int8 is for strategies by which workers aggregate"):
        EXCHANGE_STRATEGIES[name].check(make_settings(compression="int8", dtype="float64"))
    EXCHANGE_STRATEGIES["relay"].check(make_settings(compression="int8", dtype="float64"))


def test_a_linear_plan_needs_a_linear_aggregate() -> None:
    with pytest.raises(UsageError, match="--strategy linear needs --aggregate mean"):
        EXCHANGE_STRATEGIES["linear"].check(make_settings(aggregate="median"))
