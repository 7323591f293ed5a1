from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.members import make_member
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import PlacementError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.protocol.messages.peers import Listens
from asyncdmtl.server import assignment
from asyncdmtl.server.assignment import Assignment, choose_exchanging, choose_listeners, make_assignment
from asyncdmtl.server.ending import Ending
from asyncdmtl.server.member import Member, Place
from asyncdmtl.server.training_progress import TrainingProgress

# Each partition is a task.
PARTITIONS = [replace(part, task=part.id) for part in make_partitions(6, "squared")]


def members(hearing: int = 0) -> list[Member]:
    """Six workers that store three of six partitions each; the first `hearing` of them receive the group."""
    stored = [[PARTITIONS[n] for n in own] for own in HOMOGENEOUS.stored]
    return [make_member(f"w{k}", own, hears=k < hearing) for k, own in enumerate(stored)]


def progress(strategy: str = "relay", **changes: Any) -> TrainingProgress:
    settings = make_settings(**changes)
    problem = Problem(settings, [part.info(settings) for part in PARTITIONS])
    return TrainingProgress("run7", problem, strategy, lambda event: None)


async def test_a_plan_is_for_the_members_and_what_they_store() -> None:
    workers = members()
    made = make_assignment(4, workers, progress())
    assert isinstance(made.plan, Plan)
    assert made.plan.placement == HOMOGENEOUS
    assert (made.number, made.members, made.strategy.name) == (4, tuple(workers), "relay")
    assert [made.position(worker) for worker in workers] == list(range(6))
    assert (made.listeners, made.network) == ((), "")
    assert {candidate.strategy for candidate in made.candidates} >= {"relay", "central", "uncoded"}


async def test_workers_are_planned_without_partitions_that_they_are_distrusted_of() -> None:
    stands = progress()
    stands.distrusted = {("w0", "p0"), ("w5", "p1")}
    plan = make_assignment(0, members(), stands).plan
    assert plan.placement.as_dict()["w0"] == ["p4", "p5"]
    assert plan.placement.as_dict()["w5"] == HOMOGENEOUS.as_dict()["w5"]


@pytest.mark.parametrize("strategy", ["relay", "central", "personal", "uncoded", "linear"])
async def test_the_strategy_that_was_asked_for_is_planned(strategy: str) -> None:
    made = make_assignment(0, members(), progress(strategy))
    assert made.strategy.name == strategy
    assert isinstance(made.plan, LinearPlan) == (strategy == "linear")
    assert made.side.plan is made.plan


async def test_auto_takes_the_cheapest_strategy_that_can_serve_the_settings() -> None:
    made = make_assignment(0, members(), progress("auto"))
    exact = {c.strategy: c.mixed_cost([]) for c in made.candidates if c.strategy != "linear"}
    assert exact[made.strategy.name] == min(exact.values())
    compressed = make_assignment(0, members(), progress("auto", compression="int8"))
    assert compressed.strategy.name in ("relay", "uncoded")


@pytest.mark.parametrize(
    ("stores", "chosen"),
    [
        # With three of six partitions, a worker would be sent three models, and all updates would go up.
        (HOMOGENEOUS.stored, "relay"),
        # With one partition, a worker would need five updates, but only one model.
        ([(n,) for n in range(6)], "personal"),
    ],
    ids=["many copies", "one copy"],
)
async def test_auto_takes_personal_only_where_it_costs_least(
    stores: Sequence[Sequence[int]], chosen: str
) -> None:
    workers = [make_member(f"w{k}", [PARTITIONS[n] for n in own]) for k, own in enumerate(stores)]
    made = make_assignment(0, workers, progress("auto"))
    costs = {candidate.strategy: candidate.cost("unicast") for candidate in made.candidates}
    assert made.strategy.name == chosen
    assert (costs["personal"] > costs["relay"]) == (chosen == "relay")


async def test_plans_for_relays_are_of_single_updates_that_are_told_in_detail() -> None:
    workers = [make_member(f"w{n}", [part]) for n, part in enumerate(PARTITIONS)]
    workers[0].behind = ("a", "b")
    made = make_assignment(0, workers, progress("auto"))
    # As without the relay, it costs least.
    assert made.strategy.name == "personal"
    assert isinstance(made.plan, Plan)
    assert (made.plan.aggregated, made.plan.sums, made.plan.merged) == ((), (), 1)
    assert made.detailed
    assert made.exchanging == frozenset()


async def test_a_plan_after_the_end_suits_a_relay_that_comes_back_to_it() -> None:
    """The relay is away when the plan is made, which has its partitions from the end of the run."""
    at_end = progress()
    workers = {f"w{n}": ((part.id,), "") for n, part in enumerate(PARTITIONS)}
    at_end.ending = Ending(b"", None, None, {}, workers)
    at_end.over = True
    made = make_assignment(0, [make_member("w0", PARTITIONS[:1])], at_end)
    assert made.suits([make_member("w1", PARTITIONS[1:2], behind=("a", "b"))])
    assert made.detailed
    assert isinstance(made.plan, Plan)
    assert (made.plan.aggregated, made.plan.sums, made.plan.merged) == ((), (), 1)


async def test_an_assignment_suits_members_that_its_plan_has() -> None:
    workers = members()
    made = make_assignment(0, workers, progress())
    assert made.suits(workers[:2])
    assert not made.suits([*workers, make_member("w6")])
    # A worker or relay that comes back with less cannot follow it.
    assert not made.suits([make_member("w0", PARTITIONS[:1])])


async def test_a_plan_after_the_last_round_needs_no_holder_of_any_partition() -> None:
    """A relay comes back for the models with fewer workers than it had."""
    at_end = progress()
    at_end.over = True
    at_end.ending = Ending(b"", None, None, {}, {"r": (tuple(part.id for part in PARTITIONS), "")})
    made = make_assignment(0, [make_member("r", PARTITIONS[:2], behind=("a",))], at_end)
    stored = {"r": ["p0", "p1"], "gone0": ["p2", "p3", "p4", "p5"]}
    assert made.plan.placement.as_dict() == stored
    with pytest.raises(PlacementError, match="without holder"):
        make_assignment(0, [make_member("r", PARTITIONS[:2])], progress())


async def test_members_that_hear_the_group_share_rows() -> None:
    made = make_assignment(0, members(hearing=4), progress())
    assert isinstance(made, Assignment)
    assert made.listeners == ("w0", "w1", "w2", "w3")
    # Each worker lacks three vectors, and the same three combinations serve all of them.
    assert made.network == "3 vectors to the group instead of 12 over TCP"


def test_nobody_listens_where_the_group_saves_nothing() -> None:
    plan = make_plan(HOMOGENEOUS)
    assert choose_listeners(plan, []) == ((), "")
    assert choose_listeners(plan, [2]) == ((), "3 vectors to the group are no less than 3 over TCP")
    names, _ = choose_listeners(plan, [2, 5])
    assert names == ("w2", "w5")
    apart = make_plan(Placement({"a": ["p0"], "b": ["p1"]}), "uncoded")
    rows = [multicast_delivery(apart, k).rows for k in range(2)]
    assert set(rows[0]).isdisjoint(rows[1])
    assert choose_listeners(apart, [0, 1]) == ((), "2 vectors to the group are no less than 2 over TCP")


def reachable(*silent: str) -> list[Member]:
    """Six workers that exchange rows; those that are `silent` accept no connections."""
    workers = members()
    for worker in workers:
        worker.exchanges = True
        if worker.name not in silent:
            worker.place = Place(Listens("10.0.0.1", 7702), bytes(32))
    return workers


async def test_workers_take_rows_from_those_that_hold_them() -> None:
    made = make_assignment(0, workers := reachable("w1"), progress("auto"))
    assert made.strategy.name == "relay"
    assert made.exchanging == {f"w{k}" for k in range(6)}
    assert not made.carried
    assert [made.side.uplink_bytes(k) for k in range(6)] == [0] * 6
    # Partitions 3, 4 and 5, which w0 lacks, are at w1 to w5, of which w1 accepts no connections.
    assert [peer.name for peer in made.peers_of(workers[0])] == ["w2", "w3", "w4", "w5"]
    assert make_assignment(0, members(), progress()).peers_of(members()[0]) == ()


async def test_the_server_serves_those_to_whom_no_other_worker_gives_some_vector() -> None:
    workers = reachable("w0", "w4", "w5")
    workers[3].exchanges = False
    made = make_assignment(0, workers, progress())
    # Partition 0 is at w0, w4 and w5 alone.
    assert made.exchanging == {"w0", "w4", "w5"}
    assert made.carried
    assert all(made.side.uplink_bytes(k) for k in range(6))
    assert choose_exchanging(make_plan(HOMOGENEOUS, "central"), workers) == frozenset()


def test_rows_of_a_linear_plan_never_go_to_the_group() -> None:
    assert choose_listeners(make_linear_plan(HOMOGENEOUS, np.ones((1, 6))), [0, 1, 2]) == ((), "")


def test_more_rows_than_datagrams_can_number_go_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(HOMOGENEOUS)
    monkeypatch.setattr(assignment, "MAX_ROW_NUMBERS", 2 * len(plan.combined) - 1)
    reason = f"{len(plan.combined)} rows are more than datagrams can number"
    assert choose_listeners(plan, [0, 1, 2]) == ((), reason)


@pytest.mark.parametrize(
    ("strategy", "checking"),
    [("relay", "central"), ("uncoded", "central"), ("central", "central"), ("personal", "personal")],
)
async def test_a_server_that_must_find_wrong_rows_decodes_all_updates(strategy: str, checking: str) -> None:
    members = [make_member("w0", PARTITIONS), make_member("w1", PARTITIONS[:2])]
    training = progress(strategy)
    assert make_assignment(0, members, training).strategy.name == strategy
    training.checked = True
    assert make_assignment(0, members, training).strategy.name == checking
