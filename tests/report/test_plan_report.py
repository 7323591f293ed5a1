from __future__ import annotations

import json
from fractions import Fraction

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.compare import Candidate, compare
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.report.plan_report import linear_candidate, report_plan, report_strategies

PLACEMENT = Placement({"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p2", "p0"]})


def request() -> PlanRequest:
    """Three partitions of two tasks."""
    return PlanRequest(PLACEMENT, ("task 0", "task 1"), (0, 1, 1), None, None)


def candidate(strategy: str, load: int) -> Candidate:
    """A strategy whose loads and costs are all the same number."""
    same = Fraction(load)
    return Candidate(strategy, same, same, same, same, same, 1, "because", same, same)


def test_strategies_are_ranked_by_cost_on_the_network() -> None:
    relay = Candidate(
        "relay", Fraction(3, 2), Fraction(3, 2), Fraction(1), Fraction(1), Fraction(3), 2, "in words",
        Fraction(3, 2), Fraction(3),
    )  # fmt: skip
    report = report_strategies(request(), [candidate("uncoded", 3), relay], "multicast", "relay", {})
    assert json.loads(json.dumps(report)) == report
    assert report["cheapest"] == ["relay", "uncoded"]
    assert list(report["strategies"]) == ["uncoded", "relay"]
    told = report["strategies"]["relay"]
    assert (told["uplink_load"], told["downlink_load"], told["unicast_load"]) == ("3/2", "1", "3")
    assert (told["subpackets"], told["limits"], told["cost"]) == (2, "in words", "5/2")
    by_unicast = report_strategies(request(), [relay], "unicast", "relay", {})
    assert by_unicast["strategies"]["relay"]["cost"] == "9/2"


def test_the_placement_its_tasks_and_the_proof_of_its_bound() -> None:
    report = report_strategies(request(), [candidate("relay", 1)], "unicast", "relay", {})
    assert report["placement"] == {"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p0", "p2"]}
    assert report["tasks"] == {"task 0": ["p0"], "task 1": ["p1", "p2"]}
    assert sorted(map(tuple, report["certificate"])) == [("a",), ("b",), ("c",)]
    # Each worker lacks one of three vectors: (1 + 1 + 1) / (3 − 1).
    assert report["certificate_value"] == "3/2"
    assert "3/2" in report["certificate_in_words"]
    assert (report["priced"], "cost_bound" in report, "time_bound" in report) == (False, False, False)


def test_prices_have_a_bound_on_the_cost_that_its_multipliers_prove() -> None:
    prices = (Fraction(1), Fraction(1), Fraction(9))
    weights = {"prices": prices}
    report = report_strategies(request(), [candidate("relay", 1)], "unicast", "relay", weights)
    assert report["priced"]
    # a and b send one vector each: p0 from a serves b, p2 from b serves a, and c combines.
    assert report["cost_bound"] == "2"
    proof = report["cost_certificate"]
    assert all(set(cut["workers"]) < {"a", "b", "c"} for cut in proof)
    exclusive = {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 1}
    value = sum(Fraction(cut["multiplier"]) * exclusive.get(tuple(cut["workers"]), 0) for cut in proof)
    assert value == 2


def test_speeds_have_a_bound_on_the_time_and_the_workers_that_cause_it() -> None:
    speeds = (Fraction(1), Fraction(1), Fraction(1))
    report = report_strategies(request(), [candidate("relay", 1)], "unicast", "relay", {"speeds": speeds})
    assert report["time_bound"] == "1/2"
    assert len(report["time_certificate"]) == 2


def test_a_single_worker_has_nothing_to_send() -> None:
    alone = PlanRequest(Placement({"a": ["p0"]}), ("t",), (0,), None, None)
    report = report_strategies(alone, [candidate("relay", 0)], "unicast", "relay", {})
    assert report["certificate_value"] == "0"


def test_a_plan_tells_its_loads_its_seed_and_its_digest() -> None:
    plan = make_plan(PLACEMENT, seed=4)
    report = report_plan(plan)
    assert report["digest"] == plan.digest.hex()
    assert (report["seed"], report["subpackets"]) == (plan.seed, 2)
    assert report["uplink_loads"] == {"a": "1/2", "b": "1/2", "c": "1/2"}
    assert (report["uplink_load"], report["uplink_bound"]) == ("3/2", "3/2")
    assert (report["downlink_load"], report["downlink_bound"], report["unicast_load"]) == ("1", "1", "3")


def test_linear_candidates_want_the_mean_of_each_task_or_some_combinations() -> None:
    means = linear_candidate(request())
    assert means.strategy == "linear"
    assert "wanted by workers only: the mean update of each task" in means.limits
    # Two combinations are wanted, so that the downlink has at most two vectors.
    assert means.downlink_load <= 2
    two = linear_candidate(request(), combinations=2)
    assert "wanted by workers only: 2 generic combinations of the updates" in two.limits
    assert two.uplink_load >= two.uplink_bound
    with pytest.raises(UsageError, match="--combinations must be at least 1, got 0"):
        linear_candidate(request(), combinations=0)


def test_prices_weigh_the_links_of_linear_candidates() -> None:
    plain, priced = linear_candidate(request()), linear_candidate(request(), prices=[Fraction(3)] * 3)
    assert plain.uplink_cost == plain.uplink_load
    assert priced.uplink_cost == 3 * plain.uplink_load
    assert priced.unicast_cost == 3 * plain.unicast_load


def test_helpers_have_no_part_in_the_proof() -> None:
    asked = PlanRequest(PLACEMENT, ("task 0", "task 1"), (0, 1, 1), None, None, ("none", "all", "all"))
    wants = asked.wants
    candidates = list(compare(PLACEMENT, asked.tasks, wants=wants))
    told = report_strategies(asked, candidates, "unicast", "relay", {})
    assert told["helpers"] == [PLACEMENT.workers[0]]
    assert told["certificate"] == []
    assert "want nothing" in told["certificate_in_words"]
    assert told["job_bound"]["uplink"] == told["strategies"]["relay"]["uplink_bound"]
    linear = linear_candidate(asked)
    everyone = linear_candidate(PlanRequest(PLACEMENT, ("task 0", "task 1"), (0, 1, 1), None, None))
    assert linear.unicast_load < everyone.unicast_load
    assert linear.downlink_load == linear.downlink_bound <= everyone.downlink_load


def test_where_workers_want_their_own_models_the_bound_is_that_of_a_server_with_all_aggregates() -> None:
    asked = PlanRequest(PLACEMENT, ("task 0", "task 1"), (0, 1, 1), None, None, ("own", "all", "none"))
    candidates = list(compare(PLACEMENT, asked.tasks, wants=asked.wants))
    told = report_strategies(asked, candidates, "unicast", "personal", {})
    assert told["strategies"].keys() == {"personal"}
    assert told["certificate"] == []
    assert told["job_bound"]["uplink"] == told["strategies"]["personal"]["uplink_bound"]
    assert str(told["job_bound"]["downlink"]) == told["strategies"]["personal"]["downlink_bound"]
    assert "models" in told["certificate_in_words"]
