from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.linear_oracle import (
    fractional_minimum,
    integer_minimum,
    linear_demands,
    met,
    restricted_rank,
)
from support.linear_targets import PLACEMENTS, TARGETS, end_to_end_error, everyone, random_placement

from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.plan.linear import targets
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_everyone_obtains_the_target(placement: str, target: str) -> None:
    A = TARGETS[target](len(PLACEMENTS[placement].partitions))
    plan = make_linear_plan(PLACEMENTS[placement], A, subpackets=1)
    assert end_to_end_error(plan) < 1e-9
    assert plan.condition < 1e3
    assert plan.uplink_load >= plan.uplink_bound >= plan.fractional_bound
    for R, W, stored in zip(plan.dimensions, plan.uplink_matrices, plan.placement.stored, strict=True):
        P = plan.subpackets
        assert W.shape == (R * P, len(stored) * P)


@pytest.mark.parametrize("target", ["generic", "sum", "low rank", "laplacian", "zero columns"])
@pytest.mark.parametrize(
    ("placement", "silent"),
    [
        (Placement.cyclic(6, 12, 3), 1),
        (Placement.cyclic(6, 12, 3), 2),
        (Placement.cyclic(5, 11, 4), 3),
        (everyone(4, 9), 3),
        (Placement({"a": ["x", "y", "z", "u"], "b": ["x", "y"], "c": ["y", "z", "u"], "d": ["x", "u"]}), 1),
    ],
)
def test_silent_workers_are_tolerated(placement: Placement, silent: int, target: str) -> None:
    A = TARGETS[target](len(placement.partitions))
    plan = make_linear_plan(placement, A, silent=silent, subpackets=1)
    assert end_to_end_error(plan) < 1e-9
    assert plan.condition < 1e3
    assert plan.uplink_load >= plan.uplink_bound


@st.composite
def instances(draw: st.DrawFn) -> tuple[Placement, list[list[int]], int]:
    """Small placements, targets of small whole numbers (also with dependent columns), and silent workers."""
    workers = draw(st.integers(1, 4))
    silent = draw(st.integers(0, min(1, workers - 1)))
    partitions = draw(st.integers(1, 5))
    holders = draw(
        st.lists(
            st.sets(st.integers(0, workers - 1), min_size=silent + 1),
            min_size=partitions,
            max_size=partitions,
        )
    )
    stored = {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(workers)}
    row = st.lists(st.integers(-2, 2), min_size=partitions, max_size=partitions)
    target = draw(st.lists(row, min_size=1, max_size=4))
    return Placement(stored, [f"p{n}" for n in range(partitions)]), target, silent


@settings(max_examples=50, deadline=None)
@given(instances(), st.integers(1, 2))
@example((Placement.cyclic(3, 3, 2), [[1, 1, 1]], 0), 2)
@example((Placement.cyclic(4, 4, 2), [[1, 1, 1, 1]], 1), 1)
@example((everyone(3, 1), [[0]], 1), 1)
def test_bounds_are_exact_and_plans_decode(
    instance: tuple[Placement, list[list[int]], int], subpackets: int
) -> None:
    placement, target, silent = instance
    workers = len(placement.workers)
    plan = make_linear_plan(placement, np.array(target, dtype=float), silent=silent, subpackets=subpackets)
    demands = linear_demands(placement.holders, workers, target, silent)
    assert plan.bound_complete
    assert plan.uplink_bound == Fraction(integer_minimum(workers, demands, subpackets), subpackets)
    assert plan.fractional_bound == fractional_minimum(workers, demands)
    assert met(plan.dimensions, demands)
    assert plan.gap == plan.uplink_load - plan.fractional_bound >= 0
    assert plan.uplink_load >= plan.uplink_bound
    missing = [restricted_rank(target, placement.missing(k)) for k in range(workers)]
    assert plan.missing_ranks == tuple(missing)
    assert plan.downlink_load == plan.downlink_bound == max(missing)
    assert end_to_end_error(plan) < 1e-9


def test_generic_targets_meet_the_integer_bound_but_for_a_few() -> None:
    rng = np.random.default_rng(2026)
    gaps = Counter[Fraction]()
    for _ in range(150):
        workers, partitions, C = (int(rng.integers(*span)) for span in ((2, 6), (2, 9), (1, 6)))
        placement = random_placement(rng, workers, partitions, 4)
        target = rng.integers(-1000, 1000, (C, partitions))
        plan = make_linear_plan(placement, target.astype(np.float64), subpackets=1)
        demands = linear_demands(placement.holders, workers, target.tolist(), 0)
        assert plan.uplink_bound == integer_minimum(workers, demands)
        gaps[plan.uplink_load - plan.uplink_bound] += 1
    assert gaps[Fraction(0)] >= 145
    assert set(gaps) <= {Fraction(0), Fraction(1)}


@pytest.mark.parametrize("silent", [0, 1])
def test_searching_for_constraints_finds_the_bound_of_listing_them(
    monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    rng = np.random.default_rng(7)
    for _ in range(15):
        placement = Placement.cyclic(
            int(rng.integers(4, 8)), int(rng.integers(4, 12)), int(rng.integers(2, 4))
        )
        target = Target(placement, rng.standard_normal((int(rng.integers(1, 6)), len(placement.partitions))))
        monkeypatch.undo()
        listed = cut_bound(target, silent=silent)
        monkeypatch.setattr(targets, "MAX_UNIONS", 0)
        searched = cut_bound(target, silent=silent)
        assert searched.complete is (silent == 0)
        assert searched.packets == listed.packets if searched.complete else searched.packets <= listed.packets
        assert all(listed.demands.get(S, rank) == rank for S, rank in searched.demands.items())


@pytest.mark.parametrize(
    ("placement", "packets", "load"),
    [
        (Placement.cyclic(3, 3, 2), 2, Fraction(3, 2)),
        (Placement.cyclic(5, 5, 3), 3, Fraction(5, 3)),
        (Placement.cyclic(7, 14, 4), 4, Fraction(7, 4)),
        (everyone(4, 5), 1, Fraction(1)),
        (Placement.cyclic(4, 9, 1), 1, Fraction(4)),
    ],
)
def test_packets_reach_the_fractional_cover(placement: Placement, packets: int, load: Fraction) -> None:
    N = len(placement.partitions)
    plan = make_linear_plan(placement, np.linspace(1.0, 2.0, N)[None], max_overhead=0)
    assert (plan.subpackets, plan.uplink_load, plan.uplink_bound) == (packets, load, load)
    assert plan.fractional_bound == load
    assert end_to_end_error(plan) < 1e-9


def test_max_overhead_buys_fewer_packets() -> None:
    placement, sum_of_all = Placement.cyclic(7, 7, 4), np.ones((1, 7))
    loose = make_linear_plan(placement, sum_of_all, max_overhead=Fraction(1, 7))
    tight = make_linear_plan(placement, sum_of_all, max_overhead=0.0)
    assert loose.uplink_load == 2
    assert loose.subpackets == 1
    assert tight.uplink_load == Fraction(7, 4)
    with pytest.raises(UsageError, match="max_overhead"):
        make_linear_plan(placement, sum_of_all, max_overhead=-0.1)


def test_gradient_coding_is_found() -> None:
    # C = 1, K = N, s + 1 copies in a cycle: one vector per worker suffices (Tandon et al., 2017).
    plan = make_linear_plan(Placement.cyclic(6, 6, 3), np.ones((1, 6)), silent=2)
    assert plan.uplink_load == plan.uplink_bound == 6
    assert end_to_end_error(plan) < 1e-9


def test_columns_within_a_worker_that_depend_on_each_other_cost_their_rank() -> None:
    placement = Placement({"a": ["x", "y", "z"], "b": ["u"]})
    plan = make_linear_plan(placement, np.array([[1.0, 1.0, 2.0, 5.0], [0.0, 1.0, 1.0, 5.0]]))
    assert plan.dimensions == (Fraction(2), Fraction(1))
    assert plan.gap == 0


def test_fewer_than_the_tolerated_responders_are_refused_by_name() -> None:
    placement = Placement.cyclic(4, 8, 2)
    plan = make_linear_plan(placement, np.ones((1, 8)), silent=1)
    V = np.ones((8, 5))
    rows = {k: plan.encode(k, V[list(placement.stored[k])]) for k in (0, 1)}
    with pytest.raises(CodingError, match="w2, w3"):
        plan.aggregate(rows)
    with pytest.raises(UsageError, match="at least one worker"):
        plan.aggregate({})


def test_decoding_matrix_is_computed_once() -> None:
    plan = make_linear_plan(Placement.cyclic(4, 8, 2), np.ones((1, 8)), silent=1)
    first = plan.decoding_matrix([3, 0, 1])
    assert plan.decoding_matrix((0, 1, 3)) is first
    assert first.shape == (1, sum(plan.dimensions[k] for k in (0, 1, 3)))
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1.0


def test_single_precision_stays_single() -> None:
    placement = PLACEMENTS["cyclic"]
    plan = make_linear_plan(placement, TARGETS["generic"](12))
    V = np.random.default_rng(0).standard_normal((12, 30)).astype(np.float32)
    local = [V[list(stored)] for stored in placement.stored]
    rows = {k: plan.encode(k, local[k]) for k in range(6)}
    combined = plan.aggregate(rows)
    downlink = plan.broadcast(combined)
    wanted = plan.target @ V.astype(np.float64)
    for found in (combined, *(plan.recover(k, downlink, local[k]) for k in range(6))):
        assert found.dtype == np.float32
        assert np.max(np.abs(found - wanted)) < 1e-6 * plan.condition * np.max(np.abs(wanted))


def test_wrong_rows_are_refused() -> None:
    plan = make_linear_plan(Placement.cyclic(3, 6, 2), np.ones((1, 6)))
    good = np.ones((4, 3))
    for call in (
        lambda: plan.encode(3, good),
        lambda: plan.encode(-1, good),
        lambda: plan.encode(0, np.ones((5, 3))),
        lambda: plan.encode(0, np.ones(4)),
        lambda: plan.encode(0, np.ones((4, 3), dtype=np.float16)),  # type: ignore[type-var]
        lambda: plan.aggregate({0: np.ones((9, 3))}),
        lambda: plan.aggregate({k: np.ones((int(plan.dimensions[k]), 3 + k)) for k in range(3)}),
        lambda: plan.broadcast(np.ones((2, 3))),
        lambda: plan.recover(0, np.ones((0, 3)), good),
        lambda: plan.recover(0, np.ones((1, 2)), good),
    ):
        with pytest.raises(UsageError, match="must"):
            call()
