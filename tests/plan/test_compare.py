from __future__ import annotations

import random
from fractions import Fraction

import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS, random_placement

from asyncdmtl.errors import PlacementError, PlanError, UsageError
from asyncdmtl.plan.compare import certificate_in_words, cheapest, compare
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan


@pytest.mark.parametrize("seed", range(40))
def test_candidates_have_the_loads_of_their_plans(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng)
    drawn = sorted(rng.randrange(3) for _ in placement.partitions)
    tasks = [sorted(set(drawn)).index(task) for task in drawn]
    for candidate in compare(placement, tasks):
        plan = make_plan(placement, candidate.strategy, tasks=tasks)  # type: ignore[arg-type]
        assert [candidate.uplink_load, candidate.uplink_bound] == [plan.uplink_load, plan.uplink_bound]
        assert [candidate.downlink_load, candidate.downlink_bound] == [
            plan.downlink_load,
            plan.downlink_bound,
        ]
        assert candidate.unicast_load == plan.wire_downlink_load
        assert candidate.subpackets == plan.subpackets


@pytest.mark.parametrize("silent", [1, 2])
def test_only_tolerant_strategies_are_left_where_workers_may_be_silent(silent: int) -> None:
    tasks = [0, 0, 1, 1, 2, 2]
    relay, central = compare(HOMOGENEOUS, tasks, silent=silent)
    assert (relay.strategy, central.strategy) == ("relay", "central")
    for candidate in (relay, central):
        plan = make_plan(HOMOGENEOUS, candidate.strategy, tasks=tasks, silent=silent)  # type: ignore[arg-type]
        assert [candidate.uplink_load, candidate.downlink_load] == [plan.uplink_load, plan.downlink_load]
        assert (candidate.uplink_bound, candidate.subpackets) == (plan.uplink_bound, plan.subpackets)
    with pytest.raises(PlacementError, match="p10, p11"):
        compare(HETEROGENEOUS, [0] * 12, silent=1)


def test_the_network_decides_what_is_cheapest() -> None:
    # With few tasks of many partitions each, multicast favours `relay`, and unicast `personal`.
    sites = {
        f"{site}{k}": [f"p{6 * t + (2 * k + i) % 6}" for i in range(4)]
        for t, site in enumerate("ab")
        for k in range(3)
    }
    placement = Placement(sites)
    tasks = [n // 6 for n in range(12)]
    candidates = compare(placement, tasks)
    assert cheapest(candidates, "multicast").strategy == "central"
    assert cheapest(candidates, "unicast").strategy == "personal"
    assert cheapest(compare(HOMOGENEOUS, range(6)), "unicast").strategy == "relay"
    with pytest.raises(UsageError, match="network must be one of"):
        cheapest(candidates, "carrier pigeon")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="no strategy"):
        cheapest([], "unicast")


def test_certificates_are_told_in_words() -> None:
    plan = make_plan(HOMOGENEOUS)
    words = certificate_in_words(HOMOGENEOUS, plan.certificate)
    assert "w0 lacks 3" in words
    assert "lack 18 vectors in sum" in words
    assert "18/5 vectors are the least uplink" in words
    halves = Placement({"a": ["x"], "b": ["x"], "c": ["y", "z"]})
    assert "a lacks 2" in certificate_in_words(halves, [[0], [1, 2]])
    assert "the other, so 2/1 = 2" in certificate_in_words(halves, [[0], [1, 2]])
    assert certificate_in_words(Placement({"a": ["x"]}), [[0]]) == "a single worker lacks nothing"


def test_prices_are_what_vectors_cost_on_each_link() -> None:
    prices = [Fraction(c) for c in ("9", "1", "1", "9", "1", "1/2")]
    for candidate in compare(HOMOGENEOUS, range(6), prices=prices):
        plan = make_plan(HOMOGENEOUS, candidate.strategy, prices=prices)  # type: ignore[arg-type]
        up = sum(
            c * Fraction(rows, plan.subpackets) for c, rows in zip(prices, plan.uplink_rows, strict=True)
        )
        down = sum(
            c * Fraction(len(delivery.rows), plan.subpackets)
            for c, delivery in zip(prices, plan.deliveries, strict=True)
        )
        assert candidate.cost("unicast") == up + down
        assert candidate.cost("multicast") == up + plan.downlink_load
    with pytest.raises(UsageError, match="prices"):
        compare(HOMOGENEOUS, range(6), prices=[1, 2])


def test_costs_add_both_ways() -> None:
    relay = compare(HOMOGENEOUS, range(6))[0]
    assert relay.cost("multicast") == Fraction(18, 5) + 3
    assert relay.cost("unicast") == Fraction(18, 5) + 18


@pytest.mark.parametrize("seed", range(30))
def test_any_speeds_can_be_compared(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng)
    speeds = [Fraction(rng.randint(1, 997), rng.randint(1, 97)) for _ in placement.workers]
    relay = compare(placement, speeds=speeds)[0]
    assert relay.strategy == "relay"
    assert relay.uplink_load >= relay.uplink_bound
