from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from math import floor

import pytest
from support.oracle import ex, feasible, placement_of, proper_subsets, shortest_time
from support.placements import HOMOGENEOUS, random_placement

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import rounding
from asyncdmtl.plan.rates.bounds import cost_bound, time_bound, violated_cut
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.rounding import plan_rates


def whole_rates(placement: Placement, packets: int) -> Iterator[tuple[int, ...]]:
    """Every vector of packets that violates no cut and has no rate above the largest useful one."""
    most = [packets * len(stored) for stored in placement.stored]
    for rates in product(*(range(limit + 1) for limit in most)):
        if feasible(placement, rates, packets):
            yield rates


def small(seed: int) -> Placement:
    rng = random.Random(seed)
    while True:
        placement = random_placement(rng, most_workers=4, most_partitions=4)
        if len(placement.workers) > 1 and sum(map(len, placement.stored)) <= 8:
            return placement


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("overhead", [Fraction(0), Fraction(1, 20)])
def test_prices_take_the_smallest_number_of_packets(seed: int, overhead: Fraction) -> None:
    placement, rng = small(seed), random.Random(seed)
    prices = [Fraction(rng.randint(0, 6), rng.randint(1, 3)) for _ in placement.workers]
    found = plan_rates(placement, "relay", prices=prices, max_overhead=overhead)
    assert violated_cut(placement, found.rows, found.subpackets) is None
    objective = found.objective
    assert objective is not None
    assert objective.kind == "cost"
    assert objective.bound == cheapest_rates(placement, prices).cost
    assert cost_bound(placement, prices, objective.certificate) == objective.bound
    assert objective.value <= (1 + overhead) * objective.bound
    for P in range(1, min(found.subpackets, 3) + 1):
        least = min(
            sum(c * r for c, r in zip(prices, rates, strict=True)) for rates in whole_rates(placement, P)
        )
        assert (Fraction(least, P) <= (1 + overhead) * objective.bound) == (found.subpackets == P)


@pytest.mark.parametrize("seed", range(60))
def test_speeds_take_the_smallest_number_of_packets(seed: int) -> None:
    placement, rng = small(seed), random.Random(seed)
    speeds = [Fraction(rng.randint(1, 9), rng.randint(1, 4)) for _ in placement.workers]
    overhead = Fraction(rng.choice([0, 1, 5]), 20)
    time = shortest_time(placement, speeds)
    found = plan_rates(placement, "relay", speeds=speeds, max_overhead=overhead)
    P = found.subpackets
    assert violated_cut(placement, found.rows, P) is None
    assert found.objective is not None
    assert found.objective.bound == time
    ((cut, _),) = found.objective.certificate
    assert time_bound(placement, speeds, cut) == time
    assert found.objective.value <= (1 + overhead) * time
    for fewer in range(1, P):
        limits = [floor(fewer * (1 + overhead) * time * b) for b in speeds]
        assert not feasible(placement, limits, fewer)


def test_rates_within_a_time_have_the_least_sum() -> None:
    placement, speeds = Placement.cyclic(4, 4, 2), [Fraction(1), Fraction(1), Fraction(8), Fraction(8)]
    found = plan_rates(placement, "relay", speeds=speeds, max_overhead=1)
    limits = [floor(found.subpackets * 2 * shortest_time(placement, speeds) * b) for b in speeds]
    sums = [
        sum(rates)
        for rates in whole_rates(placement, found.subpackets)
        if all(r <= limit for r, limit in zip(rates, limits, strict=True))
    ]
    assert sum(found.rows) == min(sums)


def test_a_plan_is_not_refused_that_takes_one_packet() -> None:
    placement = placement_of([[0, 1], [0, 1], [0, 1], [1, 2], [2, 3], [2, 3]], 4)
    speeds = [Fraction(100), Fraction(1, 10), Fraction(100), Fraction(10)]
    found = plan_rates(placement, "relay", speeds=speeds, max_overhead=Fraction(1, 20))
    assert found.subpackets == 1
    for cut in proper_subsets(4):
        assert sum(found.rows[k] for k in cut) >= found.subpackets * ex(placement, cut)


def test_too_many_packets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "MOST_SUBPACKETS", 2)
    with pytest.raises(PlanError, match="least time need more than 2 packets"):
        plan_rates(HOMOGENEOUS, "relay", speeds=[1, 2, 3, 5, 7, 11])
    with pytest.raises(PlanError, match="least cost need more than 2 packets"):
        plan_rates(HOMOGENEOUS, "relay", prices=[1] * 6)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="cannot both"):
        plan_rates(HOMOGENEOUS, "relay", prices=[1] * 6, speeds=[1] * 6)
    assert plan_rates(HOMOGENEOUS, "central").objective is None
    central = plan_rates(HOMOGENEOUS, "central", prices=[9, 1, 1, 9, 1, 1]).objective
    assert central is not None
    assert central.value == central.bound == 6
