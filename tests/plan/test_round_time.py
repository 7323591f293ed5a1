from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.plan.links import Links
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.round_time import RoundTime, count_ranges, seconds_of_round, sends_ahead, time_of_round

UP = tuple(map(Fraction, (10, 20, 50, 100, 100)))
DOWN = (Fraction(100),) * 5


def test_both_directions_count() -> None:
    plan = make_plan(Placement.cyclic(5, 5, 3))
    times = time_of_round(plan, UP, DOWN, 4)
    # Every worker sends half a vector, and lacks two.
    assert times == RoundTime(Fraction(1, 20), Fraction(1, 50), 0, 4)
    assert times.total == Fraction(1, 20) + Fraction(1, 200)
    assert time_of_round(plan, UP, UP).total == Fraction(1, 20) + Fraction(1, 5)


def test_rates_by_speed_shorten_the_uplink_alone() -> None:
    placement = Placement.cyclic(5, 5, 3)
    plan, equal = make_plan(placement, speeds=UP), make_plan(placement)
    fast, slow = (time_of_round(each, UP, DOWN) for each in (plan, equal))
    assert plan.objective is not None
    assert fast.uplink == plan.objective.value < slow.uplink
    assert (fast.downlink, fast.slowest) == (slow.downlink, slow.slowest)


def test_a_simulated_flow_shop_takes_the_same_time() -> None:
    for up, down, ranges in (
        (Fraction(3), Fraction(5), 4),
        (Fraction(5), Fraction(3), 7),
        (Fraction(2), Fraction(2), 1),
    ):
        sent, received = Fraction(0), Fraction(0)
        for _ in range(ranges):
            sent += up / ranges
            received = max(received, sent) + down / ranges
        assert RoundTime(up, down, 0, ranges).total == received


def test_the_link_of_the_server_carries_all_rows() -> None:
    plan = make_plan(Placement.cyclic(5, 5, 3))
    # All workers together send 5/2 vectors, and are sent 10.
    assert time_of_round(plan, UP, DOWN, 4, Fraction(1000)) == time_of_round(plan, UP, DOWN, 4)
    assert time_of_round(plan, UP, DOWN, 4, Fraction(200)) == RoundTime(
        Fraction(1, 20), Fraction(1, 20), None, 4
    )
    assert time_of_round(plan, UP, DOWN, 4, Fraction(25)).uplink == Fraction(1, 10)


@given(
    st.lists(st.tuples(*[st.floats(0.01, 9)] * 3), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_many_simulated_rounds_with_computing_take_the_same_time(
    workers: list[tuple[float, float, float]], ranges: int
) -> None:
    ends, ended = [0.0] * len(workers), []
    for _ in range(120):
        begun, ends = ends, [0.0] * len(workers)
        for n in range(1, ranges + 1):
            sent = max(
                begin + own + n * up / ranges for begin, (own, up, _) in zip(begun, workers, strict=True)
            )
            ends = [max(end, sent) + down / ranges for end, (_, _, down) in zip(ends, workers, strict=True)]
        ended.append(max(ends))
    # After a while, all rounds of a cycle of at most five workers take the same time together.
    computing, uplinks, downlinks = zip(*workers, strict=True)
    found = seconds_of_round(computing, uplinks, downlinks, ranges)
    assert (ended[119] - ended[59]) / 60 == pytest.approx(found, rel=0.02)


def test_nobody_is_the_slowest_where_nothing_comes_down() -> None:
    plan = make_plan(Placement({"a": ["x"], "b": ["x"]}))
    assert time_of_round(plan, UP[:2], DOWN[:2]) == RoundTime(Fraction(0), Fraction(0), None, 1)


def test_the_longer_direction_limits_rounds() -> None:
    placement = Placement.cyclic(5, 5, 3)
    up, down = (dict(zip(placement.workers, each, strict=True)) for each in (UP, DOWN))
    plan = make_plan(placement)
    assert sends_ahead(plan, Links(speeds=up, down_speeds=down))
    assert not sends_ahead(plan, Links(speeds=up))
    assert not sends_ahead(plan, Links())
    # To measure links, they are used.
    assert sends_ahead(plan, Links(learned=True))
    assert sends_ahead(plan, Links(learned=True, speeds=up))
    assert not sends_ahead(make_plan(placement, "central"), Links(speeds=up, down_speeds=down))


def test_long_vectors_travel_in_ranges() -> None:
    plan = make_plan(Placement.cyclic(5, 5, 3))
    assert count_ranges(plan, 1000) == 1
    assert count_ranges(plan, 4_000_000) > 4
