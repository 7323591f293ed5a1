from __future__ import annotations

import asyncio

import numpy as np
import pytest
from sklearn.base import clone
from support.clusters import LIMIT
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.errors import UsageError
from asyncdmtl.estimators.models import CodedMultiTaskRegressor, CodedMultiTaskRegressorCV
from asyncdmtl.estimators.running import Launch, is_remote, run_observed, run_on
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.brought_jobs import brought_job
from asyncdmtl.server.events import Finished, Joined, ServerEvent, Started
from asyncdmtl.server.records import RoundRecord

PARTITIONS = make_partitions(4, "squared")
PLACEMENT = Placement.cyclic(2, 4, 1)


@pytest.mark.parametrize("cluster", ["threads", "processes"])
def test_a_run_on_this_machine_is_the_twin(cluster: str) -> None:
    settings = make_settings(rounds=5)
    record, models = run_on(Launch(cluster, "relay"), settings, PARTITIONS, PLACEMENT)
    assert record.plan.placement.workers == PLACEMENT.workers
    assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()


def test_an_unknown_cluster_is_refused() -> None:
    assert is_remote("localhost:7700")
    assert not is_remote("threads")
    with pytest.raises(UsageError, match="cluster must be threads, processes, a Dask client or HOST:PORT"):
        run_on(Launch("cloud", "relay"), make_settings(), PARTITIONS, PLACEMENT)


def test_a_callback_gets_the_events_of_a_run() -> None:
    seen: list[ServerEvent] = []
    run_observed(Launch("threads", "relay", (), seen.append), make_settings(rounds=3), PARTITIONS, PLACEMENT)
    assert isinstance(seen[0], Started)
    assert seen[0].parameters["workers"] == 2
    assert sum(isinstance(event, Joined) for event in seen) == 2
    assert [event.round for event in seen if isinstance(event, RoundRecord)] == [0, 1, 2]
    assert isinstance(seen[-1], Finished)
    assert seen[-1].report["training"]["rounds"] == 3


def test_a_callback_that_fails_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: ServerEvent) -> None:
        raise OSError("no route to host")

    settings = make_settings(rounds=2)
    launch = Launch("threads", "relay", (), broken)
    record, _ = run_observed(launch, settings, PARTITIONS, PLACEMENT, verbose=True)
    assert len(record.rounds) == 2
    assert caplog.text.count("no route to host") == 1


@pytest.mark.parametrize(
    "estimator",
    [
        CodedMultiTaskRegressor(coupling="nuclear", workers=2),
        CodedMultiTaskRegressor(coupling="l21", strength=0.25, strategy="central", workers=2),
        CodedMultiTaskRegressorCV(coupling="l21", cv=3, workers=2),
    ],
    ids=["default strength", "given", "chosen"],
)
async def test_a_fit_with_a_stream_is_a_job_with_the_settings_of_the_estimator(
    estimator: CodedMultiTaskRegressor | CodedMultiTaskRegressorCV,
) -> None:
    rng = np.random.default_rng(3)
    X, tasks = rng.standard_normal((60, 4)), np.repeat(["a", "b", "c"], 20)
    y = X @ rng.standard_normal(4) + 0.1 * rng.standard_normal(60)
    # The server's own settings suit none of the estimators.
    options = run_options(settings=make_settings(strength=9.0), workers=7)
    alone = clone(estimator).fit(X, y, tasks)
    async with asyncio.timeout(LIMIT), JobCluster(read_job=lambda job: brought_job(job, options)) as cluster:
        host, port = cluster.address
        away = clone(estimator).set_params(cluster=f"{host}:{port}")
        await asyncio.to_thread(away.fit, X, y, tasks)
    assert [outcome.error for outcome in cluster.outcomes] == [None]
    assert away.strength_ == pytest.approx(alone.strength_, rel=1e-9)
    assert away.traffic_["strategy"] == alone.traffic_["strategy"]
    # Away, rows are not centred first.
    np.testing.assert_allclose(away.coef_, alone.coef_, atol=1e-6)
