"""Rows that sites keep for tests: the report has their scores, and none of them leaves its site."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.clusters import Cluster, run_cluster
from support.placements import HETEROGENEOUS
from support.problems import make_settings

from asyncdmtl.data.held_back import hold_back
from asyncdmtl.errors import DataError
from asyncdmtl.learning.metrics import score
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import make_trainer, train
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import Refused
from asyncdmtl.server.records import RunOptions

COUNT = len(HETEROGENEOUS.partitions)


def partitions_of(loss: str) -> list[Partition]:
    rng = np.random.default_rng(3)
    made = []
    for n in range(COUNT):
        X = rng.standard_normal((12, 3))
        y = X @ [1.0, -1.0, 0.5] + rng.standard_normal(12)
        target = {"squared": y, "huber": y, "poisson": np.floor(np.exp(0.5 * y))}.get(loss)
        target = (y > 0).astype(np.float64) if target is None else target
        made.append(Partition(f"p{n}", f"t{n // 2}", X, target))
    return made


def split(partitions: list[Partition], share: float) -> tuple[list[Any], list[Any]]:
    pairs = [hold_back(partition, share, 0) for partition in partitions]
    return [train_ for train_, _ in pairs], [test for _, test in pairs if test is not None]


def trained_beside(partitions: list[Partition], settings: Settings) -> dict[str, TaskModels]:
    """The models to compare with, of the one-process twin of a run with rows for tests."""
    problem = Problem(settings, [replace(p.info(settings), held=1) for p in partitions])
    trainer = make_trainer(problem, dict(enumerate(partitions)))
    packed = np.empty((len(partitions), problem.wire.length))
    for _ in range(settings.rounds):
        trainer.packed_updates(packed)
        trainer.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    return trainer.baselines()


@pytest.mark.parametrize(
    ("strategy", "loss", "update"),
    [
        ("relay", "squared", "auto"),
        ("central", "squared", "statistics"),
        ("personal", "squared", "statistics"),
        ("uncoded", "squared", "gradient"),
        ("relay", "logistic", "newton"),
        ("central", "huber", "newton"),
        ("uncoded", "squared_hinge", "newton"),
        ("relay", "poisson", "newton"),
        ("personal", "logistic", "newton"),
        ("personal", "logistic", "gradient"),
        ("relay", "logistic", "choice"),
        ("central", "huber", "choice"),
        ("linear", "squared", "gradient"),
    ],
)
async def test_scores_are_those_of_all_test_rows_in_one_place(strategy: str, loss: str, update: str) -> None:
    chooses = update in ("auto", "choice")
    settings = make_settings(
        loss=loss, update="auto" if chooses else update, dtype="float64", test_fraction=0.3,
        accelerated=strategy != "linear", strength=None if chooses else 0.1, folds=3,
        rounds=3, coupling="mean-regularised" if update == "choice" else "nuclear",
    )  # fmt: skip
    partitions = partitions_of(loss)
    options = RunOptions(settings, strategy, len(HETEROGENEOUS.workers))
    record, _ = await run_cluster(options, HETEROGENEOUS, partitions)
    kept, tests = split(partitions, 0.3)
    twin = train(kept, settings)
    rows: dict[str, Any] = {}
    for test in tests:
        X, y = rows.get(test.task, (np.empty((0, 3)), np.empty(0)))
        rows[test.task] = np.concatenate([X, test.X]), np.concatenate([y, test.y])
    metrics = report_run(record)["metrics"]
    for told in (metrics, metrics["also"]):
        expected = score(twin.models, rows, told["name"])
        # A histogram knows areas but for pairs that share a bin.
        near = 0.01 if told["name"] == "ROC AUC" else 1e-9
        assert told["mean"]["coupled"] == pytest.approx(expected.mean, abs=near)
        assert told["all_rows"]["coupled"] == pytest.approx(expected.all_rows, abs=near)
    assert {task: each["test_rows"] for task, each in metrics["tasks"].items()} == {
        task: len(y) for task, (_, y) in rows.items()
    }
    assert sum(each["rows"] + each["test_rows"] for each in metrics["tasks"].values()) == 12 * COUNT
    compared = {"coupled"} if update == "gradient" else {"coupled", "single_task", "pooled"}
    assert set(metrics["mean"]) == compared
    if update == "newton":
        for kind, models in trained_beside(kept, settings).items():
            expected = score(models, rows, metrics["name"])
            assert metrics["mean"][kind] == pytest.approx(expected.mean, abs=0.01)
            expected = score(models, rows, metrics["also"]["name"])
            assert metrics["also"]["mean"][kind] == pytest.approx(expected.mean, abs=1e-9)
    assert not record.incidents


async def test_a_worker_that_permits_no_small_partition_tells_nothing_of_its_rows() -> None:
    settings = make_settings(update="statistics")
    async with Cluster(RunOptions(settings, "relay", 1)) as cluster:
        refused = cluster.join("w0", partitions_of("squared"), least_rows=13)
        with pytest.raises(DataError, match=r"partition 'p0' has fewer rows .* --least-rows 13, got 12"):
            await refused
        # The server is told neither which partition it is nor how many rows it has.
        left = await cluster.event(Refused)
        assert left.reason.endswith(" ended it: --least-rows permits this worker no part in the run, got 13")
        assert cluster.instance.ledger.total(lambda entry: entry.kind == "declare") == (0, 0)
