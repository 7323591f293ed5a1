from __future__ import annotations

from fractions import Fraction

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.server.events import MeasuredSpeed
from asyncdmtl.server.link_speeds import ROUNDS_MEASURED, LinkSpeeds, speeds_both_ways

PLACEMENT = Placement.cyclic(4, 8, 2)

# Bytes of a vector that takes a second at 8 Mbit/s.
VECTOR = 1_000_000


def measured(*speeds: float, down: float = 1000.0) -> LinkSpeeds:
    """Links of workers w0, w1, … with these speeds up, and one speed down, in Mbit/s."""
    found = LinkSpeeds()
    for k, speed in enumerate(speeds):
        found.note(f"w{k}", 0.5, speed * 1e6, down * 1e6)
    return found


def test_the_median_of_the_last_rounds_counts() -> None:
    found = LinkSpeeds()
    for speed in (1e6, 9e6, 3e6, 3e6, 70e6, 4e6):
        found.note("w0", 1.0, speed, 2e6)
    assert ROUNDS_MEASURED == 5
    assert found.measured()["w0"].up == 4.0
    assert (found.measured()["w0"].computing, found.measured()["w0"].down) == (1.0, 2.0)


def test_a_rate_that_is_not_known_leaves_those_before() -> None:
    found = LinkSpeeds()
    found.note("w0", 1.0, 0.0, 2e6)
    assert found.measured()["w0"] == MeasuredSpeed(1.0, 0.0, 2.0)
    found.note("w0", 1.0, 3e6, 0.0)
    found.note("w0", 4.0, 0.0, 0.0)
    assert found.measured()["w0"] == MeasuredSpeed(1.0, 3.0, 2.0)


def test_a_plan_follows_the_speeds_if_that_saves_time() -> None:
    plan = make_plan(PLACEMENT)
    found = measured(10.04, 20, 100, 100).better(plan, VECTOR, 100, 1.0)
    assert found is not None
    up, down = found
    assert up == {"w0": Fraction(10), "w1": Fraction(20), "w2": Fraction(100), "w3": Fraction(100)}
    assert down == dict.fromkeys(up, 1000)
    # The plan for these speeds stays while they change a little.
    faster = make_plan(PLACEMENT, speeds=list(up.values()), max_overhead=Fraction(1, 10))
    assert measured(10.7, 19, 97, 104).better(faster, VECTOR, 100, 1.0) is None


def test_nothing_is_planned_for_equal_or_unknown_links_or_little_time() -> None:
    plan = make_plan(PLACEMENT)
    assert measured(100, 98, 103, 95).better(plan, VECTOR, 100, 0.0) is None
    assert measured(10, 20, 100).better(plan, VECTOR, 100, 0.0) is None
    assert measured(0, 0, 0, 0).better(plan, VECTOR, 100, 0.0) is None
    unequal = measured(10, 20, 100, 100)
    assert unequal.better(plan, VECTOR, 1, 60.0) is None
    assert unequal.better(make_plan(PLACEMENT, "central"), VECTOR, 100, 0.0) is None


def test_a_plan_that_tolerates_late_workers_follows_the_speeds_as_well() -> None:
    placement = Placement.cyclic(4, 8, 3)
    plan = make_plan(placement, silent=1)
    found = measured(10, 20, 100, 100).better(plan, VECTOR, 100, 0.0)
    assert found is not None
    faster = make_plan(placement, silent=1, speeds=list(found[0].values()), max_overhead=Fraction(1, 10))
    assert measured(10, 20, 100, 100).better(faster, VECTOR, 100, 0.0) is None


def test_nothing_is_planned_where_links_down_take_the_time() -> None:
    plan = make_plan(PLACEMENT)
    assert measured(10, 20, 100, 100, down=1000.0).better(plan, VECTOR, 100, 0.0) is not None
    assert measured(10, 20, 100, 100, down=10.0).better(plan, VECTOR, 100, 0.0) is None


def test_a_link_without_a_measured_speed_counts_as_the_fastest() -> None:
    some = {"a": MeasuredSpeed(0.5, 0.0, 20.0), "b": MeasuredSpeed(0.5, 9.0, 0.0)}
    assert speeds_both_ways(some, ["b", "a"]) == ([9.0, 9.0], [20.0, 20.0])
    assert speeds_both_ways(some, ["a", "c"]) is None
    assert speeds_both_ways({"b": some["b"]}, ["b"]) is None
