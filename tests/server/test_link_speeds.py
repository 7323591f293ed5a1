from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest

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
    found = measured(10.04, 20, 100, 100).better(plan, VECTOR, 100, 1.0, {})
    assert found is not None
    up, down = found
    assert up == {"w0": Fraction(10), "w1": Fraction(20), "w2": Fraction(100), "w3": Fraction(100)}
    assert down == dict.fromkeys(up, 1000)
    # The plan for these speeds stays while they change a little.
    faster = make_plan(PLACEMENT, speeds=list(up.values()), max_overhead=Fraction(1, 10))
    assert measured(10.7, 19, 97, 104).better(faster, VECTOR, 100, 1.0, {}) is None


# Speeds of links of 100 Mbit/s as a run measured them, as shares of what the link is.
NOISE = np.random.default_rng(18).uniform(0.8, 1.2, (60, 2, 4))


def plans_made(up: Sequence[float], down: float = 1000.0) -> int:
    """The plans that a run of 60 rounds makes for links whose measured speeds vary by a fifth."""
    plan, speeds, made = make_plan(PLACEMENT), LinkSpeeds(), 0
    planned: Mapping[str, Fraction] = {}
    for number, (ups, downs) in enumerate(NOISE, 1):
        for k, speed in enumerate(up):
            speeds.note(f"w{k}", 0.05, 1e6 * speed * ups[k], 1e6 * down * downs[k])
        if number % ROUNDS_MEASURED:
            continue
        found = speeds.better(plan, VECTOR, len(NOISE) - number, 0.1, planned)
        if found is not None:
            made, planned = made + 1, found[0]
            plan = make_plan(PLACEMENT, speeds=list(planned.values()), max_overhead=Fraction(1, 10))
    return made


@pytest.mark.parametrize("down", [1000.0, 100.0])
def test_noise_of_a_fifth_leads_to_no_plan(down: float) -> None:
    assert plans_made([100, 100, 100, 100], down) == 0


@pytest.mark.parametrize("slow", [[0], [2], [0, 3], [0, 1]])
def test_speeds_that_differ_by_a_factor_of_three_lead_to_one_plan(slow: Sequence[int]) -> None:
    assert plans_made([33 if k in slow else 100 for k in range(4)]) == 1


def test_a_link_that_changes_by_a_half_leads_to_another_plan_and_one_that_comes() -> None:
    plan = make_plan(PLACEMENT)
    speeds = measured(10, 20, 100, 100)
    planned = {f"w{k}": Fraction(speed) for k, speed in enumerate((10, 20, 100, 100))}
    assert speeds.better(plan, VECTOR, 100, 0.0, planned) is None
    assert speeds.better(plan, VECTOR, 100, 0.0, planned | {"w3": Fraction(75)}) is None
    assert speeds.better(plan, VECTOR, 100, 0.0, planned | {"w3": Fraction(60)}) is not None
    assert speeds.better(plan, VECTOR, 100, 0.0, planned | {"w3": Fraction(150)}) is not None
    del planned["w3"]
    assert speeds.better(plan, VECTOR, 100, 0.0, planned) is not None


def test_nothing_is_planned_where_computing_takes_the_time() -> None:
    plan, speeds = make_plan(PLACEMENT), LinkSpeeds()
    for k, speed in enumerate((10, 20, 100, 100)):
        speeds.note(f"w{k}", 60.0, speed * 1e6, 1e9)
    assert speeds.better(plan, VECTOR, 1000, 0.0, {}) is None


def test_nothing_is_planned_for_equal_or_unknown_links_or_little_time() -> None:
    plan = make_plan(PLACEMENT)
    assert measured(100, 98, 103, 95).better(plan, VECTOR, 100, 0.0, {}) is None
    assert measured(10, 20, 100).better(plan, VECTOR, 100, 0.0, {}) is None
    assert measured(0, 0, 0, 0).better(plan, VECTOR, 100, 0.0, {}) is None
    unequal = measured(10, 20, 100, 100)
    assert unequal.better(plan, VECTOR, 1, 60.0, {}) is None
    assert unequal.better(make_plan(PLACEMENT, "central"), VECTOR, 100, 0.0, {}) is None


def test_a_plan_that_tolerates_late_workers_follows_the_speeds_as_well() -> None:
    placement = Placement.cyclic(4, 8, 3)
    plan = make_plan(placement, silent=1)
    found = measured(10, 20, 100, 100).better(plan, VECTOR, 100, 0.0, {})
    assert found is not None
    faster = make_plan(placement, silent=1, speeds=list(found[0].values()), max_overhead=Fraction(1, 10))
    assert measured(10, 20, 100, 100).better(faster, VECTOR, 100, 0.0, {}) is None


def test_nothing_is_planned_where_links_down_take_the_time() -> None:
    plan = make_plan(PLACEMENT)
    assert measured(10, 20, 100, 100, down=1000.0).better(plan, VECTOR, 100, 0.0, {}) is not None
    assert measured(10, 20, 100, 100, down=10.0).better(plan, VECTOR, 100, 0.0, {}) is None


def test_a_link_without_a_measured_speed_counts_as_the_fastest() -> None:
    some = {"a": MeasuredSpeed(0.5, 0.0, 20.0), "b": MeasuredSpeed(0.5, 9.0, 0.0)}
    assert speeds_both_ways(some, ["b", "a"]) == ([9.0, 9.0], [20.0, 20.0])
    assert speeds_both_ways(some, ["a", "c"]) is None
    assert speeds_both_ways({"b": some["b"]}, ["b"]) is None
