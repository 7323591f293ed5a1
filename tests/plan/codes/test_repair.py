from __future__ import annotations

import random

import numpy as np
import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS, random_placement

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError
from asyncdmtl.field import gf256
from asyncdmtl.plan.codes.matrices import ColumnDelivery
from asyncdmtl.plan.codes.repair import MOST_SOLUTIONS, FreshRows, Solver
from asyncdmtl.plan.parameters import Strategy
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

LENGTH = 24


def columns(rows: tuple[int, ...], wanted: tuple[int, ...]) -> ColumnDelivery:
    return ColumnDelivery(rows, np.array(wanted), np.arange(0))


def rows_of(plan: Plan, packets: Bytes) -> Bytes:
    return gf256.matmul(plan.combined, packets)


def known(plan: Plan, worker: int, packets: Bytes) -> list[Bytes]:
    P = plan.subpackets
    if plan.strategy == "personal":
        return []
    wanted = plan.deliveries[worker].wanted
    return [row for i, row in enumerate(packets) if i // P not in wanted]


def test_fresh_rows_are_the_same_at_both_ends_and_none_is_like_another() -> None:
    ours, theirs = FreshRows(5, 3), FreshRows(5, 3)
    numbers = range(5, 40)
    rows = [ours.coefficients(number) for number in numbers]
    assert all(np.array_equal(theirs.coefficients(n), row) for n, row in zip(numbers, rows, strict=True))
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert not np.array_equal(FreshRows(5, 4).coefficients(5), rows[0])
    assert np.array_equal([ours.coefficients(n) for n in range(5)], np.eye(5, dtype=np.uint8))


def test_fresh_rows_combine_the_rows_of_the_broadcast() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (4, LENGTH), dtype=np.uint8)
    fresh = FreshRows(4, 0)
    made = fresh.combine([2, 7], rows)
    assert np.array_equal(made[0], rows[2])
    assert np.array_equal(made[1:], gf256.matmul(fresh.coefficients(7)[None, :], rows))


@pytest.mark.parametrize("strategy", ["relay", "central", "uncoded", "personal"])
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["equal", "unequal"])
def test_any_rows_that_suffice_give_back_those_that_were_lost(
    strategy: Strategy, placement: Placement
) -> None:
    rng, chance = np.random.default_rng(1), random.Random(1)
    tasks = tuple(n // 2 for n in range(len(placement.partitions)))
    plan = make_plan(placement, strategy, tasks=tasks)
    packets = rng.integers(0, 256, (plan.combined.shape[1], LENGTH), dtype=np.uint8)
    down = rows_of(plan, packets)
    fresh = FreshRows(len(down), plan.seed)
    for k, delivery in enumerate(plan.deliveries):
        one = Solver.of(plan, k)
        assert set(one.own) >= set(delivery.rows)
        for _ in range(8):
            count = chance.randint(0, len(one.own))
            places = chance.sample(range(len(one.own)), count)
            others = [n for n in range(len(down)) if n not in one.own and one.useful(n)]
            stand_ins = chance.sample([*others, *range(len(down), len(down) + 40)], count)
            filled = list(zip(places, stand_ins, strict=True))
            if not filled or one.redundant(filled):
                continue
            rows = down[list(one.own)].copy()
            for place, number in filled:
                rows[place] = fresh.combine([number], down)[0]
            one.solve(filled, list(rows), known(plan, k, packets))
            assert np.array_equal(rows, down[list(one.own)])


def test_under_personal_a_group_carries_only_models_that_some_worker_wants() -> None:
    placement = Placement({"a": ["p", "q"], "b": ["r"], "c": ["r", "s"], "d": ["p"]})
    plan = make_plan(placement, "personal", tasks=[0, 1, 2, 3], wants={"a": "none", "c": "none"})
    models = np.random.default_rng(0).integers(0, 256, (4, LENGTH), dtype=np.uint8)
    down = rows_of(plan, models)
    one = Solver.of(plan, 1)
    assert one.own == (0, 1)
    rows = [FreshRows(2, plan.seed).combine([7], down)[0], down[1]]
    one.solve([(0, 7)], rows, [])
    assert np.array_equal(rows, models[[0, 2]])
    with pytest.raises(CodingError, match="all that is combined"):
        Solver(plan.combined, columns((0,), (0,)), plan.seed)


def test_what_the_others_tell_already_is_redundant() -> None:
    plan = make_plan(HOMOGENEOUS, "relay")
    one = Solver.of(plan, 0)
    assert len(one.own) >= 2
    fresh = len(plan.combined)
    # If the same row is in the places of two lost rows, it determines only one of them.
    assert one.redundant([(0, fresh), (1, fresh)]) == (1,)
    assert one.redundant([(0, fresh), (1, fresh + 1)]) == ()
    rows = np.random.default_rng(2).integers(0, 256, (len(one.own), LENGTH), dtype=np.uint8)
    with pytest.raises(CodingError, match="do not make up for"):
        one.solve([(0, fresh), (1, fresh)], list(rows), [])


def test_rows_of_what_a_worker_knows_do_not_serve_it() -> None:
    plan = make_plan(Placement({"w0": ["a"], "w1": ["b"], "w2": ["a", "b"]}), "uncoded")
    one = Solver.of(plan, 0)
    assert [one.useful(number) for number in range(3)] == [False, True, True]


def test_rows_that_do_not_determine_what_is_wanted_are_refused() -> None:
    G = np.array([[1, 2], [2, 4]], dtype=np.uint8)
    with pytest.raises(CodingError, match="singular"):
        Solver(G, columns((0, 1), (0, 1)), 0)
    with pytest.raises(CodingError, match="1 rows cannot be solved for 2 packets"):
        Solver(G, columns((0,), (0, 1)), 0)
    with pytest.raises(CodingError, match="wants or knows all"):
        Solver(G, columns((0,), (0,)), 0)


def test_solutions_do_not_pile_up() -> None:
    one = Solver.of(make_plan(HOMOGENEOUS, "relay"), 0)
    fresh = one.rows
    for number in range(fresh, fresh + 2 * MOST_SOLUTIONS):
        one.redundant([(0, number)])
    assert len(one._solutions) <= MOST_SOLUTIONS
    assert len(one._expressed) <= MOST_SOLUTIONS + 1


def test_random_placements() -> None:
    chance = random.Random(5)
    for _ in range(10):
        plan = make_plan(random_placement(chance), "relay")
        for k in range(len(plan.deliveries)):
            one = Solver.of(plan, k)
            filled = [(place, one.rows + place) for place in range(len(one.own))]
            assert not filled or len(one.redundant(filled)) <= 1
