"""Sites that own different files choose λ and the coupling together, in one round, and no row leaves them."""

from __future__ import annotations

import numpy as np
import pytest
from support.clusters import run_cluster
from support.placements import HETEROGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
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


@pytest.mark.parametrize("update", ["newton", "quasi-newton"])
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


async def assert_runs_as_its_twin(strategy: str, settings: Settings, partitions: list[Partition]) -> None:
    options = RunOptions(settings, strategy, len(HETEROGENEOUS.workers))
    record, models = await run_cluster(options, HETEROGENEOUS, partitions)
    twin = train(partitions, settings)
    assert [each.objective for each in record.rounds] == twin.objectives.tolist()
    for own in models:
        rows = [twin.models.tasks.index(task) for task in own.tasks]
        np.testing.assert_array_equal(own.coef_, twin.models.coef_[rows])
