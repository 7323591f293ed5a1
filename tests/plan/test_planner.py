from __future__ import annotations

import copy
import random
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.placements import HETEROGENEOUS, HOMOGENEOUS, random_placement

from asyncdmtl.errors import CodingError, PlacementError, PlanError, UsageError
from asyncdmtl.plan import planner
from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.parameters import STRATEGIES, Strategy
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.bounds import certificate_value, downlink_bound, violated_cut
from asyncdmtl.plan.recipe import rebuild_plan

EDGES = [
    HOMOGENEOUS,
    HETEROGENEOUS,
    Placement({"w0": ["p0"]}),
    Placement({"w0": ["p0"], "w1": []}),
    Placement({"w0": ["p0", "p1"], "w1": ["p0", "p1"]}),
    Placement({"w0": ["p0"], "w1": ["p1"]}),
    Placement({"w0": [f"p{n}" for n in range(255)], "w1": ["p0"]}),
    Placement.cyclic(4, 256, 3),
    Placement.cyclic(20, 20, 19),
]


def exchange(plan: Plan, rng: np.random.Generator, d: int, dtype: str) -> None:
    """One round by hand: every worker ends up with every vector that it wants, bit for bit."""

    def draw(count: int) -> NDArray[Any]:
        return rng.integers(0, 256, (count, d * np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype)

    U = draw(len(plan.units.holders))
    up = [plan.encode(k, U[list(held)]) for k, held in enumerate(plan.units.held)]
    assert [len(rows) for rows in up] == list(plan.uplink_rows)
    vectors = U
    if plan.broadcasts != "updates":
        layout = plan.vector_format(d, dtype)
        assert plan.collect(dict(enumerate(up)), d, dtype).tobytes() == U.tobytes()
        vectors = draw(max(plan.tasks) + 1)
        down = plan.recombine([layout.pack(vectors)])
    else:
        down = plan.recombine(up)
    for k, delivery in enumerate(plan.deliveries):
        decoded = plan.decode(k, down[list(delivery.rows)], vectors[list(delivery.known)])
        assert decoded.dtype == np.dtype(dtype)
        assert decoded.tobytes() == vectors[list(delivery.wanted)].tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_edges_meet_the_bounds_and_decode(placement: Placement, strategy: Any) -> None:
    plan = make_plan(placement, strategy)
    exchange(plan, np.random.default_rng(1), 7, "float32")
    if strategy == "relay":
        assert plan.uplink_load == plan.uplink_bound
        assert plan.downlink_load == plan.downlink_bound == downlink_bound(placement)
    wire = sum(len(delivery.wanted) for delivery in plan.deliveries)
    assert plan.wire_downlink_load == wire


@pytest.mark.parametrize("seed", range(60))
def test_random_placements_meet_the_bounds_and_decode(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng)
    tasks = sorted(rng.randrange(len(placement.partitions)) for _ in placement.partitions)
    tasks = [sorted(set(tasks)).index(task) for task in tasks]
    for strategy in STRATEGIES:
        plan = make_plan(placement, strategy, tasks=tasks)
        exchange(
            plan, np.random.default_rng(seed), rng.randint(1, 30), rng.choice(["float32", "float64", "uint8"])
        )
    relay = make_plan(placement)
    assert relay.uplink_load == relay.uplink_bound
    assert relay.downlink_load == downlink_bound(placement)
    if len(placement.workers) > 1:
        assert certificate_value(placement, relay.certificate) == relay.uplink_load
    assert violated_cut(placement, relay.uplink_rows, relay.subpackets) is None


def test_homogeneous_cyclic_placement_has_the_known_loads() -> None:
    relay, uncoded = make_plan(HOMOGENEOUS), make_plan(HOMOGENEOUS, "uncoded")
    assert [relay.uplink_load, relay.downlink_load] == [Fraction(18, 5), 3]
    assert relay.subpackets == 5
    assert relay.uplink_rows == (3,) * 6
    assert [uncoded.uplink_load, uncoded.downlink_load, uncoded.wire_downlink_load] == [6, 6, 18]
    assert relay.wire_downlink_load == 18


def test_central_counts_whole_tasks_as_side_information() -> None:
    placement = Placement({"a": ["p0", "p1", "p2"], "b": ["p2", "p3"], "c": ["p0", "p3", "p4", "p5"]})
    plan = make_plan(placement, "central", tasks=[0, 0, 1, 1, 2, 2])
    assert [delivery.known for delivery in plan.deliveries] == [(0,), (1,), (2,)]
    assert [plan.uplink_load, plan.downlink_load] == [3, 2]
    assert plan.units.aggregated == (0, 1, 2)
    updates = make_plan(placement, "central", tasks=[0, 0, 1, 1, 2, 2], units="updates")
    assert [updates.uplink_load, updates.downlink_load] == [6, 2]


def test_uplink_zeros_follow_from_the_placement() -> None:
    plan = make_plan(HETEROGENEOUS)
    first = 0
    for k, rows in enumerate(plan.uplink_rows):
        foreign = matrices.packets(HETEROGENEOUS.missing(k), plan.subpackets)
        assert not plan.uplink_matrix[first : first + rows, foreign].any()
        first += rows
    assert first == len(plan.uplink_matrix)


def test_senders_of_uncoded_updates_are_balanced() -> None:
    placement = Placement(
        {"a": [f"p{n}" for n in range(8)], "b": ["p0", "p1", "p2", "p3"], "c": ["p0", "p1"]}
    )
    assert sorted(make_plan(placement, "uncoded").uplink_rows) == [2, 2, 4]


def test_no_plan_is_handed_out_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "decodable_plan", lambda parameters: None)
    with pytest.raises(PlanError, match="256 seeds"):
        make_plan(HOMOGENEOUS)


@pytest.mark.parametrize("strategy", ["central", "relay"])
def test_silent_workers_are_tolerated_at_the_least_cost(strategy: Strategy) -> None:
    placement, prices = Placement.cyclic(5, 5, 3), tuple(map(Fraction, (9, 1, 1, 1, 1)))
    plan, few = (make_plan(placement, strategy, silent=1, prices=each) for each in (prices, None))
    assert plan.silent == 1
    # The four others suffice, whichever of them is silent; fewer vectors in all cost more.
    assert plan.uplink_rows[0] == 0 < few.uplink_rows[0]
    assert plan.objective is not None
    assert plan.objective.kind == "cost"
    rates = [rows * plan.packet_load for rows in plan.uplink_rows]
    assert plan.objective.value == sum(price * rate for price, rate in zip(prices, rates, strict=True))
    assert plan.objective.value == plan.objective.bound == (Fraction(20, 3) if strategy == "central" else 4)


@pytest.mark.parametrize("silent", [1, 2])
@pytest.mark.parametrize("placement", [HOMOGENEOUS, Placement.cyclic(5, 7, 4)], ids=repr)
def test_silent_workers_are_done_without(placement: Placement, silent: int) -> None:
    tasks = [n // 2 for n in range(len(placement.partitions))]
    plan = make_plan(placement, "central", tasks=tasks, silent=silent, units="updates")
    exchange(plan, np.random.default_rng(3), 11, "float32")
    single = make_plan(placement, "central", silent=silent)
    assert plan.uplink_load == single.uplink_load == single.uplink_bound > len(placement.partitions)
    whole = make_plan(placement, "central", tasks=tasks, silent=silent)
    assert plan.uplink_bound <= whole.uplink_load <= plan.uplink_load
    exchange(whole, np.random.default_rng(3), 11, "float32")
    V = np.random.default_rng(4).standard_normal((len(placement.partitions), 9))
    up = {k: plan.encode(k, V[list(stored)]) for k, stored in enumerate(placement.stored)}
    for absent in combinations(range(len(placement.workers)), silent):
        present = {k: rows for k, rows in up.items() if k not in absent}
        assert plan.collect(present, 9, "float64").tobytes() == V.tobytes()
    with pytest.raises(CodingError, match="without the rows of w0, w1, w2"):
        plan.collect({k: rows for k, rows in up.items() if k > 2}, 9, "float64")
    same = rebuild_plan(plan.recipe(), plan.digest)
    assert same.silent == silent


def test_rates_by_speed_tolerate_silent_workers() -> None:
    placement, speeds = Placement.cyclic(5, 5, 3), tuple(map(Fraction, (10, 20, 50, 100, 100)))
    plan = make_plan(placement, silent=1, speeds=speeds, max_overhead=Fraction(1, 4))
    assert plan.objective is not None
    rates = [rows * plan.packet_load for rows in plan.uplink_rows]
    assert plan.objective.value == max(rate / b for rate, b in zip(rates, speeds, strict=True))
    assert plan.objective.bound <= plan.objective.value <= Fraction(5, 4) * plan.objective.bound
    assert all(
        rate >= min(plan.objective.bound * b, Fraction(3)) for rate, b in zip(rates, speeds, strict=True)
    )
    # A worker sends no more than it stores, whatever its speed is.
    plan = make_plan(placement, silent=1, speeds=(*speeds[:4], Fraction(10_000)), max_overhead=1000)
    assert plan.uplink_rows[4] == 3 * plan.subpackets
    with pytest.raises(UsageError, match="prices must be more than 0 with silent workers"):
        make_plan(placement, silent=1, prices=(0, *speeds[1:]))
    wants = {"w0": "none"}
    with pytest.raises(UsageError, match="speeds cannot be given with silent where workers want nothing"):
        make_plan(placement, silent=1, speeds=speeds, wants=wants)


@pytest.mark.parametrize("silent", [1, 2])
def test_workers_of_a_relay_decode_without_the_rows_of_silent_ones(silent: int) -> None:
    placement = Placement.cyclic(5, 5, 4)
    plan = make_plan(placement, silent=silent)
    assert plan.uplink_load == plan.uplink_bound > make_plan(placement).uplink_load
    V = np.random.default_rng(4).standard_normal((5, 9))
    up = [plan.encode(k, V[list(stored)]) for k, stored in enumerate(placement.stored)]
    layout = plan.vector_format(9, "float64")
    for absent in combinations(range(5), silent):
        down = plan.coders.recombiner_without(absent)([part for k, part in enumerate(up) if k not in absent])
        whole = np.vstack([np.zeros_like(part) if k in absent else part for k, part in enumerate(up)])
        assert down.tobytes() == plan.coders.recombiner(whole).tobytes()
        for k, delivery in enumerate(plan.deliveries):
            known = layout.pack(V[list(delivery.known)])
            decoded = plan.coders.decoder(k, absent)(down[list(delivery.rows)], known)
            assert layout.vectors(decoded).tobytes() == V[list(delivery.wanted)].tobytes()
    same = rebuild_plan(plan.recipe(), plan.digest)
    assert (same.silent, same.uplink_rows) == (silent, plan.uplink_rows)


def test_a_linear_target_costs_what_the_ranks_demand_with_a_silent_worker() -> None:
    plan = make_linear_plan(Placement.cyclic(4, 4, 3), np.ones((1, 4)), silent=1)
    assert plan.uplink_load == plan.uplink_bound == 2


def test_partitions_that_silence_would_lose_are_named() -> None:
    with pytest.raises(PlacementError, match="p10, p11"):
        make_plan(HETEROGENEOUS, "central", silent=1)


def test_prices_and_speeds_move_the_uplink() -> None:
    expensive = make_plan(HOMOGENEOUS, prices=[9, 1, 1, 1, 1, 1])
    even = make_plan(HOMOGENEOUS)
    assert expensive.uplink_rows[0] / expensive.subpackets < even.uplink_rows[0] / even.subpackets
    slow = make_plan(HOMOGENEOUS, speeds=[1, 10, 10, 10, 10, 10], max_overhead=Fraction(1, 20))
    assert slow.uplink_rows[0] < min(slow.uplink_rows[1:])
    for plan in (expensive, slow):
        assert violated_cut(HOMOGENEOUS, plan.uplink_rows, plan.subpackets) is None
        exchange(plan, np.random.default_rng(2), 30, "float32")
    with pytest.raises(UsageError, match="cannot both"):
        make_plan(HOMOGENEOUS, prices=[1] * 6, speeds=[1] * 6)
    with pytest.raises(UsageError, match="strategy relay"):
        make_plan(HOMOGENEOUS, "central", speeds=[1] * 6)


@pytest.mark.parametrize("strategy", ["central", "personal", "uncoded"])
def test_uncoded_updates_go_up_where_it_is_cheapest(strategy: Any) -> None:
    plan = make_plan(HOMOGENEOUS, strategy, prices=[9, 1, 1, 9, 1, 1])
    assert plan.uplink_rows[0] == plan.uplink_rows[3] == 0
    assert all(sender in HOMOGENEOUS.holders[n] for n, sender in enumerate(plan.senders))
    exchange(plan, np.random.default_rng(5), 8, "float32")
    assert rebuild_plan(plan.recipe(), plan.digest).senders == plan.senders


def test_an_exact_plan_that_would_take_hours_is_refused_at_once() -> None:
    large = Placement.cyclic(251, 1004, 4)
    with pytest.raises(PlanError, match=r"250 packets per vector.*allow some max_overhead"):
        make_plan(large)


def test_fewer_packets_for_a_little_more_load() -> None:
    exact = make_plan(HOMOGENEOUS)
    rounded = make_plan(HOMOGENEOUS, max_overhead=Fraction(1, 5))
    assert (exact.subpackets, rounded.subpackets) == (5, 1)
    assert exact.uplink_load < rounded.uplink_load == 4


def test_bad_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="strategy must be one of relay"):
        make_plan(HOMOGENEOUS, "magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_overhead"):
        make_plan(HOMOGENEOUS, max_overhead=-1)
    with pytest.raises(UsageError, match="tasks"):
        make_plan(HOMOGENEOUS, tasks=[0, 2, 2, 2, 2, 2])
    plan = make_plan(HOMOGENEOUS)
    with pytest.raises(UsageError, match=r"updates must have the shape \(3, d\)"):
        plan.encode(0, np.zeros((2, 4)))
    with pytest.raises(UsageError, match="rows must have the shape"):
        plan.decode(0, np.zeros((1, 4), np.uint8), np.zeros((3, 5)))


def test_a_copy_of_a_plan_in_use_codes_as_the_plan_does() -> None:
    placement = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]})
    plan = make_plan(placement)
    updates = np.random.default_rng(0).standard_normal((3, 8))
    stored = [updates[list(own)] for own in placement.stored]
    uplink = [plan.encode(k, own) for k, own in enumerate(stored)]
    copied = copy.deepcopy(plan)
    assert copied.recombine(uplink).tobytes() == plan.recombine(uplink).tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_workers_that_want_nothing_are_sent_nothing(strategy: Any) -> None:
    placement = Placement({"a": ["p", "q"], "b": ["p", "q"], "c": ["r", "s"], "d": ["r", "s"]})
    plan = make_plan(placement, strategy, wants={"c": "none", "d": "none"})
    assert plan.helpers == (2, 3)
    assert all(not plan.deliveries[k].rows and not plan.deliveries[k].wanted for k in plan.helpers)
    if strategy == "relay":
        assert [plan.uplink_load, plan.uplink_bound] == [2, 2]
        assert [plan.downlink_load, plan.downlink_bound, plan.wire_downlink_load] == [2, 2, 4]
        full = make_plan(placement)
        assert [full.uplink_load, full.uplink_bound] == [4, 4]
    assert rebuild_plan(plan.recipe(), plan.digest).digest == plan.digest
    if strategy in ("relay", "uncoded"):
        V = np.arange(20, dtype=np.uint8).reshape(4, 5)
        rows = plan.recombine([plan.encode(k, V[list(plan.units.held[k])]) for k in range(4)])
        for k in (0, 1):
            sent = plan.deliveries[k]
            known = V[list(sent.known)] if sent.known else np.zeros((0, 5), np.uint8)
            np.testing.assert_array_equal(plan.decode(k, rows[list(sent.rows)], known), V[list(sent.wanted)])


@pytest.mark.parametrize(
    "wants", [{"e": "none"}, ["none"] * 4, ["all"] * 3, {"a": "some"}, "none", {"a": 1}, 7]
)
def test_wishes_that_make_no_sense_are_named(wants: Any) -> None:
    placement = Placement({"a": ["p", "q"], "b": ["p", "q"], "c": ["r", "s"], "d": ["r", "s"]})
    with pytest.raises(UsageError, match="wants"):
        make_plan(placement, wants=wants)


def test_recipes_with_bad_helpers_are_refused() -> None:
    plan = make_plan(Placement.cyclic(3, 3, 2), wants=["all", "all", "none"])
    for helpers in ([3], [0, 1, 2], [2, 1], [-1], ["a"], None):
        with pytest.raises(PlanError):
            rebuild_plan({**plan.recipe(), "helpers": helpers}, plan.digest)


@pytest.mark.parametrize("weights", [{"prices": [1, 5, 2, 0]}, {"speeds": [1, Fraction(1, 3), 4, 2]}])
def test_prices_and_speeds_count_the_wants(weights: dict[str, Any]) -> None:
    placement = Placement.cyclic(4, 5, 2)
    plan = make_plan(placement, wants=["all", "none", "all", "none"], **weights)
    full = make_plan(placement, **weights)
    assert plan.objective is not None
    assert full.objective is not None
    assert plan.objective.bound == plan.objective.value <= full.objective.value
