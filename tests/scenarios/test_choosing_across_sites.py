"""Sites that own different files choose λ and the coupling together, in one round, and no row leaves them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support.clusters import Cluster, run_cluster
from support.placements import HETEROGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.statistics import deal
from asyncdmtl.learning.tasks import Partition, whole_tasks
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.records import RunOptions

PARTITIONS = make_partitions(len(HETEROGENEOUS.partitions), "squared", features=3)


@pytest.mark.parametrize("strategy", ["relay", "central", "personal", "uncoded"])
async def test_a_run_on_sockets_chooses_as_its_twin(strategy: str) -> None:
    settings = make_settings(update="auto", coupling="auto", strength=None, folds=3, dtype="float64")
    options = RunOptions(settings, strategy, len(HETEROGENEOUS.workers))
    record, models = await run_cluster(options, HETEROGENEOUS, PARTITIONS)
    twin = train(PARTITIONS, settings)
    assert twin.outcome is not None
    assert record.outcome is not None
    assert len(record.rounds) == 1
    assert record.converged
    assert record.settings.coupling == record.outcome.coupling == twin.outcome.coupling
    assert record.settings.strength == record.outcome.strength == twin.outcome.strength
    assert record.outcome.objective == twin.outcome.objective
    for name, found in twin.outcome.selections.items():
        np.testing.assert_array_equal(record.outcome.selections[name].losses, found.losses)
    for own in models:
        rows = [twin.models.tasks.index(task) for task in own.tasks]
        np.testing.assert_array_equal(own.coef_, twin.models.coef_[rows])


@pytest.mark.parametrize("update", ["newton", "quasi-newton", "model"])
@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
async def test_steps_of_second_order_are_those_of_the_twin(strategy: str, update: str) -> None:
    partitions = make_partitions(len(HETEROGENEOUS.partitions), "logistic", features=3)
    settings = make_settings(loss="logistic", update=update, rounds=4, dtype="float64")
    await assert_runs_as_its_twin(strategy, settings, partitions)


async def test_second_derivatives_of_wild_rows_are_those_of_the_twin_under_personal() -> None:
    rng = np.random.default_rng(0)
    partitions = [
        Partition(p.id, p.task, p.X, 3.0 * p.y + 6.0 * (rng.random(p.rows) < 0.5))
        for p in make_partitions(len(HETEROGENEOUS.partitions), "squared", features=3)
    ]
    settings = make_settings(loss="huber", update="newton", rounds=12, dtype="float64")
    await assert_runs_as_its_twin("personal", settings, partitions)


@pytest.mark.parametrize(("strategy", "strength"), [("personal", 0.05), ("relay", None)])
async def test_counts_are_trained_on_as_by_the_twin(strategy: str, strength: float | None) -> None:
    partitions = [
        Partition(p.id, p.task, 0.3 * p.X, np.floor(2.0 * np.abs(p.y)))
        for p in make_partitions(len(HETEROGENEOUS.partitions), "squared", features=3)
    ]
    settings = make_settings(
        loss="poisson", update="auto", strength=strength, rounds=5, dtype="float64", folds=2
    )
    await assert_runs_as_its_twin(strategy, settings, partitions)


async def assert_runs_as_its_twin(strategy: str, settings: Settings, partitions: list[Partition]) -> None:
    options = RunOptions(settings, strategy, len(HETEROGENEOUS.workers))
    record, models = await run_cluster(options, HETEROGENEOUS, partitions)
    twin = train(partitions, settings)
    assert [each.objective for each in record.rounds] == twin.objectives.tolist()
    for own in models:
        rows = [twin.models.tasks.index(task) for task in own.tasks]
        np.testing.assert_array_equal(own.coef_, twin.models.coef_[rows])


def clinics() -> list[RawPartition]:
    """Rows of three clinics in two files each: numbers with gaps, a category, weights."""
    rng = np.random.default_rng(1)
    made = []
    for n in range(6):
        age, dose = rng.normal(50.0, 10.0, 14), rng.normal(0.1, 0.02, 14)
        ward = rng.choice(["A", "B"], 14).astype(object)
        score = 0.3 * age - 50.0 * dose + (ward == "A") + n // 2 + rng.standard_normal(14)
        dose[rng.random(14) < 0.2] = np.nan
        columns = {"age": age, "dose": dose, "ward": ward}
        made.append(
            RawPartition(f"f{n}/c", f"c{n // 2}", columns, score, rng.integers(1, 4, 14).astype(float))
        )
    return made


def least_squares(tasks: list[Partition], strength: float, intercept: str) -> tuple[float, list[np.ndarray]]:
    """The least objective of mean-regularised tasks, and the scores of their rows, by one linear system."""
    T, X = (
        len(tasks),
        [p.X if intercept != "penalised" else np.column_stack([p.X, np.ones(p.rows)]) for p in tasks],
    )
    weights = [p.weights / p.weights.sum() for p in tasks if p.weights is not None]
    shifts = [
        (w @ x, w @ p.y) if intercept == "free" else (0.0 * x[0], 0.0)
        for x, p, w in zip(X, tasks, weights, strict=True)
    ]
    d = X[0].shape[1]
    M = strength * np.kron(np.eye(T) - 1.0 / T, np.eye(d))
    b = np.zeros(T * d)
    for t, (x, p, w, (m, centre)) in enumerate(zip(X, tasks, weights, shifts, strict=True)):
        own = slice(t * d, (t + 1) * d)
        M[own, own] += (x - m).T @ (w[:, None] * (x - m))
        b[own] = (x - m).T @ (w * (p.y - centre))
    W = np.linalg.lstsq(M, b, rcond=1e-14)[0].reshape(T, d)
    scores = [(x - m) @ w + centre for x, w, (m, centre) in zip(X, W, shifts, strict=True)]
    fit = sum(0.5 * w @ (s - p.y) ** 2 for s, p, w in zip(scores, tasks, weights, strict=True))
    return float(fit + 0.5 * strength * ((W - W.mean(axis=0)) ** 2).sum()), scores


@pytest.mark.parametrize(
    ("intercept", "standardise"), [("free", True), ("free", False), ("penalised", True), ("none", False)]
)
async def test_workers_with_files_of_their_own_reach_what_one_place_would(
    intercept: str, standardise: bool
) -> None:
    settings = make_settings(
        update="statistics", coupling="mean-regularised", strength=None, folds=3, dtype="float64",
        intercept=intercept, standardise=standardise,
    )  # fmt: skip
    stored = clinics()
    placement = Placement.cyclic(3, 6, 2)
    names = {f"p{n}": part for n, part in enumerate(stored)}
    async with asyncio.timeout(60), Cluster(RunOptions(settings, "relay", 3)) as cluster:
        workers = [cluster.join(w, [names[n] for n in own]) for w, own in placement.as_dict().items()]
        record = await cluster.server
        models = (await asyncio.gather(*workers))[0]
    partitions = [part.encoded(record.encoding) for part in stored]
    tasks = [whole_tasks(partitions)[task] for task in models.tasks]
    assert record.outcome is not None
    least, scores = least_squares(tasks, record.outcome.strength, intercept)
    assert record.outcome.objective == pytest.approx(least, rel=1e-9)
    for part, expected in zip(tasks, scores, strict=True):
        np.testing.assert_allclose(models.decision_function(part.X, part.task), expected, atol=1e-6)
    # The choice is that of a cross-validation by rows, with the same folds.
    found = record.outcome.selections["mean-regularised"]
    losses = np.zeros_like(found.losses)
    for fold in range(3):
        held = [deal(part, 3, settings.seed) == fold for part in partitions]
        kept, tests = (
            whole_tasks(
                [p.take(np.flatnonzero(rows ^ out)) for p, rows in zip(partitions, held, strict=True)]
            )
            for out in (True, False)
        )
        for i, strength in enumerate(found.strengths):
            losses[i, fold] = held_out(kept, tests, float(strength), intercept)
    np.testing.assert_allclose(found.losses, losses, rtol=2e-2)
    best = int(np.argmin(losses.mean(axis=1)))
    assert abs(best - found.strengths.tolist().index(found.strength)) <= 1


def held_out(
    kept: dict[str, Partition], tests: dict[str, Partition], strength: float, intercept: str
) -> float:
    """The mean loss of test rows under models that were fitted to the others."""
    joined = []
    for task, part in kept.items():
        # Test rows of no weight are scored, and change nothing.
        test = tests[task]
        assert part.weights is not None
        X, y = np.concatenate([part.X, test.X]), np.concatenate([part.y, test.y])
        joined.append(Partition(task, task, X, y, np.concatenate([part.weights, np.zeros(test.rows)])))
    _, scores = least_squares(joined, strength, intercept)
    losses = []
    for s, test in zip(scores, tests.values(), strict=True):
        assert test.weights is not None
        losses.append(test.weights @ (0.5 * (s[-test.rows :] - test.y) ** 2) / test.weights.sum())
    return float(np.mean(losses))
