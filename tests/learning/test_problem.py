from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError
from asyncdmtl.learning.problem import LOCAL_MODELS, SIZES, Problem
from asyncdmtl.learning.statistics import StatisticsWire, statistics
from asyncdmtl.learning.tasks import Partition, PartitionInfo
from asyncdmtl.plan.spans import Span


def make_problem(partitions: list[Partition], **changes: Any) -> Problem:
    settings = make_settings(**changes)
    return Problem(settings, [p.info(settings) for p in partitions])


def info(name: str, task: str, weight: float, smoothness: float = 1.0, classes: str = "") -> PartitionInfo:
    return PartitionInfo(name, task, bytes(16), max(1, int(weight)), weight, 2, smoothness, classes)


def test_problem_derives_tasks_sets_and_step() -> None:
    X, y = np.eye(2), np.zeros(2)
    partitions = [
        Partition("p0", "t10", X, y),
        Partition("p1", "t2", 3 * X, y),
        Partition("p2", "t10", np.ones((6, 2)), np.zeros(6)),
    ]
    problem = make_problem(partitions, intercept="none")
    assert problem.tasks == ("t2", "t10")
    assert problem.task_of == (1, 0, 1)
    assert problem.partitions_of == ((1,), (0, 2))
    assert (problem.features, problem.d) == (2, 2)
    # λ_max / rows: 9/2 for t2; for t10 (2·½ + 6·2)/8 < 9/2.
    assert problem.step_lengths[0] == pytest.approx(2 / 9, rel=2**-10)
    assert problem.data_loss([1.0, 10.0, 2.0]) == pytest.approx(10 + (2 * 1 + 6 * 2) / 8)


def test_problem_refuses_declarations_that_do_not_fit() -> None:
    infos = [p.info(make_settings()) for p in make_partitions(3, "squared")]
    settings = make_settings()
    with pytest.raises(DataError, match="at least one"):
        Problem(settings, [])
    with pytest.raises(DataError, match="features of partition 'p2' must be as many as in 'p0'"):
        Problem(settings, [*infos[:2], replace(infos[2], features=4)])
    with pytest.raises(DataError, match="once each"):
        Problem(settings, [infos[0], infos[0]])
    with pytest.raises(DataError, match="at least one row"):
        Problem(settings, [replace(infos[0], rows=0)])
    with pytest.raises(DataError, match="smoothness of partition 'p0'"):
        Problem(settings, [replace(infos[0], smoothness=float("nan"))])


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", [2.75, 5.5]), ("median", [2.0, 4.0])])
def test_updates_are_aggregated_as_the_settings_say(aggregate: str, expected: list[float]) -> None:
    infos = [info("p0", "t", 1), info("p1", "t", 2), info("p2", "t", 1)]
    problem = Problem(make_settings(aggregate=aggregate, intercept="none"), infos)
    updates = np.array([[1.0, 2.0], [2.0, 4.0], [6.0, 12.0]], np.float32)
    aggregated = problem.aggregate(0, updates)
    assert aggregated.tolist() == expected
    assert aggregated.dtype == np.float32


def test_the_aggregate_of_one_update_is_that_update() -> None:
    problem = Problem(make_settings(), [info("p0", "t", 3)])
    updates = np.ones((1, 3), np.float32)
    assert np.shares_memory(problem.aggregate(0, updates), updates)


@pytest.mark.parametrize("update", ["gradient", "newton", "statistics"])
def test_sums_take_the_place_of_updates_without_changing_a_bit(update: str) -> None:
    partitions = [replace(p, task="t") for p in make_partitions(5, "squared", features=3)]
    problem = make_problem(partitions, update=update, dtype="float64")
    layout = problem.wire.layout if isinstance(problem.wire, StatisticsWire) else None
    rng = np.random.default_rng(0)
    vectors = [
        rng.standard_normal(problem.wire.length) if layout is None else statistics(p, layout, 0)
        for p in partitions
    ]
    first, second = Span(0, 3), Span(3, 5)
    sums = [problem.partial_sum(0, first, vectors[:3]), problem.partial_sum(0, second, vectors[3:])]
    assert [s.dtype for s in sums] == [problem.wire.dtype] * 2
    expected = problem.aggregate(0, np.stack(vectors)).tobytes()
    assert problem.aggregate(0, np.stack(sums), [first, second]).tobytes() == expected
    mixed = [sums[0], *vectors[3:]]
    assert problem.aggregate(0, mixed, [first, Span(3, 4), Span(4, 5)]).tobytes() == expected


def test_the_linear_target_holds_the_shares_of_partitions_in_their_tasks() -> None:
    infos = [info("p0", "a", 1), info("p1", "b", 2), info("p2", "a", 3)]
    tasks = Problem(make_settings(), infos).linear_target
    assert tasks.tolist() == [[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]]
    # Under the coupling "mean" without an intercept, only the mean over tasks matters.
    mean = Problem(make_settings(coupling="mean", intercept="none"), infos).linear_target
    assert mean.tolist() == [[0.125, 0.5, 0.375]]
    # Free intercepts differ between tasks.
    assert len(Problem(make_settings(coupling="mean"), infos).linear_target) == 2


def test_a_step_cannot_tell_spread_aggregates_from_the_true_ones() -> None:
    infos = [info(f"p{n}", f"t{n}", 1) for n in range(3)]
    problem = Problem(make_settings(coupling="mean", intercept="none", dtype="float64"), infos)
    Z = np.random.default_rng(0).standard_normal((3, 2))
    spread = np.asarray(problem.spread(problem.linear_target @ Z), np.float64)
    assert spread.shape == Z.shape
    assert problem.coupling.prox(spread, 1.0) == pytest.approx(problem.coupling.prox(Z, 1.0))
    every = Problem(make_settings(), infos)
    assert every.spread(Z) is Z


def test_tasks_of_one_class_get_the_intercept_of_the_rule_of_succession() -> None:
    infos = [
        info("p0", "ones", 2, classes="1"),
        info("p1", "ones", 1, classes="1"),
        info("p2", "zeros", 4, classes="0"),
        info("p3", "both", 1, classes="0"),
        info("p4", "both", 1, classes="1"),
        info("p5", "mixed", 2, classes="01"),
    ]
    fixed = Problem(make_settings(loss="logistic"), infos).fixed
    names = Problem(make_settings(loss="logistic"), infos).tasks
    assert {names[t]: value for t, value in fixed.items()} == pytest.approx(
        {"ones": math.log(4), "zeros": -math.log(5)}
    )
    for changes in ({"loss": "squared"}, {"loss": "logistic", "intercept": "penalised"}):
        assert Problem(make_settings(**changes), infos).fixed == {}


def test_step_lengths_leave_room_for_a_free_intercept() -> None:
    infos = [info("p0", "t", 1, smoothness=2.0), info("p1", "t", 3, smoothness=6.0)]
    # L = (1·2 + 3·6) / 4 = 5; the curvature of the squared loss is 1.
    lengths = {
        intercept: Problem(make_settings(intercept=intercept), infos).step_lengths
        for intercept in ("none", "penalised", "free")
    }
    assert lengths["none"][0] == lengths["penalised"][0] == pytest.approx(1 / 5)
    assert lengths["free"] == pytest.approx((1 / 6.25, 1 / 5))
    flat = Problem(make_settings(intercept="none"), [info("p0", "t", 1, smoothness=0.0)])
    assert flat.step_lengths[0] == 1.0


@given(st.lists(st.floats(0.0, 1e300), min_size=3, max_size=3))
def test_the_data_loss_is_the_sum_of_the_tasks_weighted_means(losses: list[float]) -> None:
    infos = [info("p0", "a", 1), info("p1", "a", 3), info("p2", "b", 2)]
    expected = (losses[0] + 3 * losses[1]) / 4 + losses[2]
    problem = Problem(make_settings(dtype="float64"), infos)
    assert problem.data_loss(losses) == pytest.approx(expected, rel=1e-12)


def test_numbers_are_told_in_the_dtype_of_the_run() -> None:
    infos = [info("p0", "a", 1)]
    narrow, wide = (Problem(make_settings(dtype=dtype), infos) for dtype in ("float32", "float64"))
    numbers = [0.1, 0.0, math.inf, -math.inf, 1e300, 2.0]
    assert wide.rounded(numbers) == tuple(numbers)
    most = float(np.finfo(np.float32).max)
    assert narrow.rounded(numbers) == (float(np.float32(0.1)), 0.0, math.inf, -math.inf, most, 2.0)
    assert math.isnan(narrow.rounded([math.nan])[0])
    # What is told twice is rounded once.
    assert narrow.rounded(narrow.rounded(numbers)) == narrow.rounded(numbers)
    assert narrow.objective([0.1], 0.3) == narrow.objective(narrow.rounded([0.1]), *narrow.rounded([0.3]))


def test_a_data_loss_that_is_no_number_is_infinite() -> None:
    problem = Problem(make_settings(dtype="float64"), [info("p0", "a", 1), info("p1", "b", 1)])
    assert problem.data_loss([math.inf, 1.0]) == math.inf
    assert problem.data_loss([math.inf, -math.inf]) == math.inf
    assert problem.data_loss([1.7e308, 1.7e308]) == math.inf


def test_a_run_converges_within_a_share_of_its_objective() -> None:
    infos = [info("p0", "a", 1)]
    within = Problem(make_settings(tolerance=0.01), infos)
    assert within.converged(200.0, 2.0)
    assert not within.converged(200.0, 2.1)
    assert not Problem(make_settings(tolerance=0.0), infos).converged(200.0, 0.0)


@pytest.mark.parametrize(
    ("coupling", "strength", "loss", "ends"),
    [
        ("none", 0.0, "logistic", True),
        ("mean", 0.5, "logistic", True),
        ("nuclear", 0.5, "logistic", False),
        ("none", 0.0, "squared", False),
    ],
)
def test_classes_that_are_separated_end_a_run(coupling: str, strength: float, loss: str, ends: bool) -> None:
    infos = [info("p0", "a", 1), info("p1", "b", 1)]
    settings = make_settings(coupling=coupling, strength=strength, loss=loss, tolerance=1e-6)
    problem = Problem(settings, infos)
    assert problem.converged(1e-3, 0.1) is ends
    assert not problem.converged(2e-3, 0.1)


def test_sizes_follow_from_features_intercept_and_dtype() -> None:
    infos = [info("p0", "a", 1), info("p1", "b", 1)]
    free, penalised, none = (
        Problem(make_settings(intercept=name), infos) for name in ("free", "penalised", "none")
    )
    assert [(p.d, p.coupled) for p in (free, penalised, none)] == [(3, 2), (3, 3), (2, 2)]
    # Two matrices of 2 tasks × 3 float32, and four float64.
    assert free.state_bytes == 2 * 2 * 3 * 4 + 32
    plain = Problem(make_settings(accelerated=False, dtype="float64"), infos)
    assert plain.state_bytes == 2 * 3 * 8 + 32


@pytest.mark.parametrize(
    ("changes", "columnwise"),
    [({}, True), ({"aggregate": "krum"}, False), ({"compression": "int8"}, False)],
)
def test_updates_are_aggregated_by_columns_where_columns_are_what_travels(
    changes: dict[str, Any], columnwise: bool
) -> None:
    assert Problem(make_settings(**changes), [info("p0", "a", 1)]).columnwise == columnwise


def test_weights_must_be_positive() -> None:
    with pytest.raises(DataError, match=r"weight of partition 'p0' must be a finite number, more than 0"):
        Problem(make_settings(), [replace(info("p0", "a", 1), weight=0.0)])


@pytest.mark.parametrize("update", ["gradient", "newton", "quasi-newton", "model", "statistics"])
def test_a_server_that_trains_tells_models_whatever_it_is_told(update: str) -> None:
    infos = [info(f"p{n}", f"t{n}", 5) for n in range(2)]
    settings = make_settings(update=update, standardise=update == "quasi-newton")
    told = Problem(settings, infos).told
    assert told == ((3 * 4 + 24, np.dtype(np.uint8)) if update == "model" else (3, np.dtype(np.float32)))


def test_two_more_models_are_told_where_sites_keep_rows_for_tests() -> None:
    infos = [info("p0", "a", 5), replace(info("p1", "b", 5), held=1)]
    compared = Problem(make_settings(update="statistics"), infos)
    assert (compared.tests, compared.compares) == (True, True)
    assert compared.told == (3 * 4 + 2 * 3 * 8, np.dtype(np.uint8))
    stepped = Problem(make_settings(), infos)
    assert (stepped.tests, stepped.compares) == (True, False)


def test_progress_is_told_where_second_derivatives_depend_on_it() -> None:
    wild = Problem(make_settings(update="newton", loss="huber"), [info("p0", "a", 5)])
    assert wild.told == (3 * 4 + 24, np.dtype(np.uint8))
    assert not Problem(make_settings(update="newton"), [info("p0", "a", 5)]).tells_progress


@pytest.mark.parametrize("standardise", [True, False])
def test_methods_that_learn_their_metric_are_told_sizes_of_raw_columns(standardise: bool) -> None:
    for update, more in (("gradient", ()), ("newton", ()), ("quasi-newton", ()), ("model", (LOCAL_MODELS,))):
        problem = Problem(make_settings(update=update, standardise=standardise), [info("p0", "a", 5)])
        told = (SIZES,) if update == "quasi-newton" and not standardise else ()
        assert problem.openings == told + more
        assert problem.tells_progress == bool(problem.openings)
    settings = make_settings(update="model", standardise=standardise, least_rows=6)
    few = Problem(settings, [info("p0", "a", 5)])
    assert few.openings == ((LOCAL_MODELS,) if standardise else (SIZES, LOCAL_MODELS))


def test_statistics_take_one_round_and_gradients_as_many_as_allowed() -> None:
    infos = [info("p0", "a", 5)]
    solved = Problem(make_settings(update="statistics", rounds=9), infos)
    assert (solved.exact, solved.rounds, solved.accelerated) == (True, 1, False)
    stepped = Problem(make_settings(rounds=9), infos)
    assert (stepped.exact, stepped.rounds, stepped.accelerated) == (False, 9, True)


@pytest.mark.parametrize(
    ("update", "numbers"),
    [("newton", 2 * 6 + 2 + 3), ("quasi-newton", 2 * 6 + 2 + 366 + 3), ("model", 2 * 6 + 2 + 3)],
)
def test_methods_of_second_order_keep_more_than_models(update: str, numbers: int) -> None:
    # Two tasks of 3 numbers: points, gradients and losses; for quasi-Newton scales, and 30 pairs of steps and
    # changes.
    infos = [info("p0", "a", 1), info("p1", "b", 1)]
    problem = Problem(make_settings(update=update, dtype="float64"), infos)
    assert problem.iterate_bytes == 2 * 3 * 8 + 32
    assert problem.state_bytes == problem.iterate_bytes + 8 * numbers


def test_a_coupling_that_is_not_chosen_yet_is_none() -> None:
    settings = make_settings(coupling="auto", strength=None, update="auto")
    problem = Problem(settings, [info("p0", "a", 20), info("p1", "b", 20)])
    assert problem.coupling.penalty(np.ones((2, 2))) == 0.0
    assert problem.make_coupling("l21", 2.0).penalty(np.array([[3.0, 0.0], [4.0, 0.0]])) == pytest.approx(
        10.0
    )


def test_statistics_of_partitions_are_pooled_to_those_of_the_task() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((9, 2)), rng.standard_normal(9)
    parts = [
        Partition(f"p{i}", "a", rows[0][cut], rows[1][cut]) for i, cut in enumerate((slice(4), slice(4, 9)))
    ]
    problem = make_problem(parts, update="statistics")
    whole = Partition("p", "a", *rows)
    assert isinstance(problem.wire, StatisticsWire)
    layout = problem.wire.layout
    pooled = problem.aggregate(0, np.stack([statistics(part, layout, 0) for part in parts]))
    assert layout.unpack(pooled)[0] == pytest.approx(layout.unpack(statistics(whole, layout, 0))[0])


def test_second_order_vectors_stay_in_double_precision() -> None:
    problem = Problem(make_settings(update="newton"), [info("p0", "a", 1), info("p1", "a", 3)])
    vectors = np.array([[1.0], [2.0]]) * np.ones((2, problem.wire.length)) / 3.0
    aggregated = problem.aggregate(0, vectors)
    assert aggregated.dtype == np.float64
    assert aggregated == pytest.approx(np.full(problem.wire.length, 7 / 12))


def test_only_means_of_gradients_lead_to_the_minimum() -> None:
    partitions = make_partitions(3, "squared")
    assert make_problem(partitions).minimises
    assert make_problem(partitions, update="statistics").minimises
    assert not make_problem(partitions, aggregate="median").minimises
    assert make_problem(partitions, update="model").minimises


@pytest.mark.parametrize("parts", [2, 5])
def test_one_steep_partition_does_not_shorten_the_steps_of_robust_runs(parts: int) -> None:
    plain = [replace(p, task=f"t{n // parts}") for n, p in enumerate(make_partitions(4 * parts, "squared"))]
    bent = [replace(plain[0], X=1e3 * plain[0].X), *plain[1:]]
    for aggregate in ("median", "trimmed-mean", "geometric-median", "krum"):
        before, after = (make_problem(case, aggregate=aggregate) for case in (plain, bent))
        assert after.step_lengths[0] > 0.1 * before.step_lengths[0]
        assert before.damping == (1.0,) * 4
        assert after.damping[1:] == (1.0,) * 3
        # A mean of two partitions leaves none out: that task is slow, and no other. Of two partitions the
        # geometric median is the heavier one.
        assert (after.damping[0] < 1e-3) == (parts == 2 and aggregate != "geometric-median")
    mean = make_problem(bent)
    assert mean.step_lengths[0] < 1e-4 * make_problem(plain).step_lengths[0]
    assert mean.damping == (1.0,) * 4
