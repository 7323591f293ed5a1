from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.linear_oracle import (
    fractional_minimum,
    integer_minimum,
    linear_demands,
    met,
    restricted_rank,
)

from asyncdmtl.errors import CodingError, PlanError, UsageError
from asyncdmtl.plan.linear import targets
from asyncdmtl.plan.linear.plan import LinearPlan, make_linear_plan, redrawn_plan
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement

Array = NDArray[np.float64]


def random_placement(rng: np.random.Generator, workers: int, partitions: int, copies: int) -> Placement:
    """A placement with one to `copies` holders per partition, in which some workers may store nothing."""
    stored: dict[str, list[str]] = {f"w{k}": [] for k in range(workers)}
    for n in range(partitions):
        for k in rng.choice(workers, size=rng.integers(1, min(workers, copies) + 1), replace=False):
            stored[f"w{k}"].append(f"p{n}")
    return Placement(stored, [f"p{n}" for n in range(partitions)])


def everyone(workers: int, partitions: int) -> Placement:
    return Placement.cyclic(workers, partitions, workers)


def end_to_end_error(plan: LinearPlan, seed: int = 0, length: int = 17) -> float:
    """Largest relative error (per combination) at the server for all responders, and at every worker."""
    placement, K = plan.placement, len(plan.placement.workers)
    V = np.random.default_rng(seed).standard_normal((len(placement.partitions), length))
    wanted = plan.target @ V
    size = np.linalg.norm(np.abs(plan.target) @ np.abs(V), axis=1, keepdims=True)
    local = [V[list(stored)] for stored in placement.stored]
    rows = {k: plan.encode(k, local[k]) for k in range(K)}
    assert sum(len(sent) for sent in rows.values()) == plan.uplink_load * plan.subpackets
    found = [
        plan.aggregate({k: rows[k] for k in A}, length=length)
        for A in combinations(range(K), K - plan.silent)
    ]
    downlink = plan.broadcast(found[0])
    assert len(downlink) == plan.downlink_load
    for k in range(K):
        found.append(plan.recover(k, downlink, local[k]))
        np.testing.assert_array_equal(found[-1], plan.recover(k, downlink[: plan.missing_ranks[k]], local[k]))
    return max(float(np.max(np.abs(one - wanted) / np.where(size > 0, size, 1.0))) for one in found)


def laplacian(tasks: int, partitions: int) -> Array:
    """The target of a graph-Laplacian coupling on a path, with rank T and parallel columns of a task."""
    L = np.eye(tasks) + 0.5 * (2 * np.eye(tasks) - np.eye(tasks, k=1) - np.eye(tasks, k=-1))
    mean = np.zeros((tasks, partitions))
    mean[np.arange(partitions) % tasks, np.arange(partitions)] = tasks / partitions
    return np.asarray(np.linalg.solve(L, mean), dtype=np.float64)


RNG = np.random.default_rng(5)
PLACEMENTS = {
    "cyclic": Placement.cyclic(6, 12, 3),
    "random": random_placement(RNG, 7, 15, 4),
    "everyone stores all": everyone(4, 9),
    "one holder each": Placement.cyclic(4, 9, 1),
    "one worker stores all": Placement({"a": [f"p{n}" for n in range(8)], "b": ["p1"], "c": []}),
    "a single worker": everyone(1, 6),
    "twelve workers": random_placement(RNG, 12, 24, 5),
}
TARGETS: dict[str, Callable[[int], Array]] = {
    "generic": lambda N: np.random.default_rng(1).standard_normal((4, N)),
    "sum": lambda N: np.ones((1, N)),
    "more rows than columns": lambda N: np.random.default_rng(2).standard_normal((N + 2, N)),
    "low rank": lambda N: np.random.default_rng(3).standard_normal((5, 2)) @ np.arange(2.0 * N).reshape(2, N),
    "laplacian": lambda N: laplacian(3, N),
    "badly scaled": lambda N: (
        np.random.default_rng(4).standard_normal((3, N)) * 10.0 ** np.array([[-9.0], [0.0], [9.0]])
    ),
    "zero columns": lambda N: (
        np.vander(np.arange(N) % 3 / 2.0, 3, increasing=True).T * (np.arange(N) % 4 > 0)
    ),
    "zero": lambda N: np.zeros((2, N)),
}


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


def test_a_seed_fixes_the_plan() -> None:
    def make(seed: int, silent: int) -> LinearPlan:
        return make_linear_plan(PLACEMENTS["cyclic"], TARGETS["generic"](12), seed=seed, silent=silent)

    for silent in (0, 1):
        one, same, other = make(1, silent), make(1, silent), make(2, silent)
        for a, b in zip(one.uplink_matrices, same.uplink_matrices, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.downlink_matrix, same.downlink_matrix)
        assert any(
            a.shape != b.shape or not np.allclose(a, b)
            for a, b in zip(one.uplink_matrices, other.uplink_matrices, strict=True)
        )


@pytest.mark.parametrize(
    "target",
    [np.ones((1, 3)), np.ones(4), np.ones((0, 4)), np.full((1, 4), np.nan), np.full((1, 4), "a")],
)
def test_malformed_targets(target: Array) -> None:
    with pytest.raises(UsageError, match="target must"):
        make_linear_plan(Placement.cyclic(2, 4, 1), target)


def test_infeasible_wishes() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["y"]})
    with pytest.raises(PlanError, match=r"x$"):
        make_linear_plan(placement, np.ones((1, 2)), silent=1)
    with pytest.raises(UsageError, match="silent"):
        make_linear_plan(placement, np.ones((1, 2)), silent=2)
    with pytest.raises(UsageError, match="subpackets"):
        make_linear_plan(placement, np.ones((1, 2)), subpackets=0)


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


@pytest.mark.parametrize(("silent", "load"), [(0, Fraction(4, 3)), (1, Fraction(2))])
def test_packets_are_chosen_where_they_lower_the_load(silent: int, load: Fraction) -> None:
    plan = make_linear_plan(Placement.cyclic(4, 4, 3), np.ones((1, 4)), silent=silent)
    assert plan.uplink_load == plan.fractional_bound == load
    assert plan.gap == 0
    assert end_to_end_error(plan) < 1e-9
    whole = make_linear_plan(Placement.cyclic(4, 4, 3), np.ones((1, 4)), silent=silent, subpackets=1)
    assert whole.gap == whole.uplink_load - load > 0


def recovered(plan: LinearPlan, V: Array, workers: list[int]) -> list[Array]:
    """The target at these workers, from the rows that each of them needs."""
    stored = plan.placement.stored
    rows = {k: plan.encode(k, V[list(M)]) for k, M in enumerate(stored)}
    down = plan.broadcast(plan.aggregate(rows, length=V.shape[1]))
    assert len(down) == plan.downlink_load
    return [plan.recover(k, down[: plan.missing_ranks[k]], V[list(stored[k])]) for k in workers]


@pytest.mark.parametrize(
    ("placement", "combinations", "load"),
    [
        # For all combinations, a workers-only target is the exchange of all updates: K(N − m)/(K − 1).
        (Placement.cyclic(4, 4, 3), 4, Fraction(4, 3)),
        (Placement.cyclic(3, 3, 2), 2, Fraction(3, 2)),
        (Placement.cyclic(4, 4, 2), 3, Fraction(8, 3)),
        # A single combination takes as much as at the server; where all store everything, nothing is sent.
        (Placement.cyclic(4, 4, 2), 1, Fraction(2)),
        (everyone(3, 4), 2, Fraction(0)),
    ],
)
def test_a_target_that_only_workers_need(placement: Placement, combinations: int, load: Fraction) -> None:
    rng = np.random.default_rng(combinations)
    A = rng.standard_normal((combinations, len(placement.partitions)))
    plan = make_linear_plan(placement, A, at_server=False)
    assert plan.uplink_load == plan.fractional_bound == load
    assert plan.condition < 1e3
    assert len(plan.solved) == plan.downlink_load == plan.downlink_bound
    V = rng.standard_normal((len(placement.partitions), 12))
    for found in recovered(plan, V, list(range(len(placement.workers)))):
        np.testing.assert_allclose(found, A @ V, atol=1e-9)
    assert make_linear_plan(placement, A, subpackets=1).uplink_load >= load


@pytest.mark.parametrize("at_server", [True, False])
@pytest.mark.parametrize("silent", [0, 1])
def test_another_seed_gives_another_plan_with_the_same_loads(silent: int, at_server: bool) -> None:
    target = np.random.default_rng(3).standard_normal((2, 6))
    plan = make_linear_plan(Placement.cyclic(4, 6, 3), target, silent=silent, at_server=at_server)
    other = redrawn_plan(plan, 1)
    assert other is not None
    V = np.random.default_rng(1).standard_normal((6, 9))
    for found in recovered(other, V, list(range(4))):
        np.testing.assert_allclose(found, target @ V, atol=1e-9)
    for name in ("uplink_load", "downlink_load", "uplink_bound", "fractional_bound", "subpackets", "silent"):
        assert getattr(other, name) == getattr(plan, name)
    assert not np.array_equal(other.solved, plan.solved) or any(
        not np.array_equal(a, b) for a, b in zip(other.uplink_matrices, plan.uplink_matrices, strict=True)
    )
    again = redrawn_plan(plan, 0)
    assert again is not None
    assert again.condition == plan.condition


@pytest.mark.parametrize("at_server", [True, False])
def test_workers_that_only_help_lower_the_loads_of_a_linear_target(at_server: bool) -> None:
    # The first two lack x and y, or z and u; each other worker helps.
    placement = Placement({"a": ["z", "u"], "b": ["z", "u"], "c": ["x", "y"], "d": ["x", "y"]})
    A = np.random.default_rng(0).standard_normal((4, 4))
    wants = {"c": "none", "d": "none"}
    plan = make_linear_plan(placement, A, wants=wants, at_server=at_server)
    assert plan.missing_ranks == (2, 2, 0, 0)
    # The server needs all four; a and b need two of them.
    assert plan.uplink_load == plan.uplink_bound == plan.fractional_bound == (4 if at_server else 2)
    V = np.random.default_rng(1).standard_normal((4, 9))
    for found in recovered(plan, V, [0, 1]):
        np.testing.assert_allclose(found, A @ V, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "argument"), [({"at_server": 1}, "at_server"), ({"wants": ["own", "all"]}, "wants")]
)
def test_those_who_need_a_target_are_checked(wrong: dict[str, object], argument: str) -> None:
    with pytest.raises(UsageError, match=f"^{argument} must be "):
        make_linear_plan(Placement({"a": ["x"], "b": ["x"]}), np.ones((1, 1)), **wrong)  # type: ignore[arg-type]
