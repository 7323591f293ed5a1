from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest
from distributed import Client
from support.clusters import stored_at
from support.dask_clusters import dask_client
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl import CodedMultiTaskRegressor
from asyncdmtl.dask.cluster import addresses, run_on_workers, run_with_partitions
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import ServerEvent
from asyncdmtl.server.records import RoundRecord

PARTITIONS = make_partitions(6, "squared")
STORED = dict(stored_at(Placement.cyclic(3, 6, 2), PARTITIONS))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask_client(3) as made:
        yield made


def test_models_are_those_of_the_twin(client: Client) -> None:
    record, models = run_with_partitions(client, run_options(workers=3), STORED)
    assert models.coef_.tobytes() == train(PARTITIONS, make_settings()).models.coef_.tobytes()
    assert record.plan.placement.workers == tuple(addresses(client))
    assert str(record.plan.uplink_load) == "3"


def test_a_server_beyond_this_machine_is_encrypted(client: Client) -> None:
    held = {
        address: client.scatter(own, hash=False)
        for address, own in zip(addresses(client), STORED.values(), strict=True)
    }
    # Each host has an address of its own in 127.0.0.0/8, but "0.0.0.0" is none of the loopback interface.
    record, models = run_on_workers(client, run_options(workers=3), held, tuple, host="0.0.0.0")
    assert "tls" in {entry.kind for entry in record.ledger.entries()}
    assert models.coef_.tobytes() == train(PARTITIONS, make_settings()).models.coef_.tobytes()


def test_an_estimator_trains_on_dask_workers(client: Client) -> None:
    from sklearn.base import clone

    X, y = PARTITIONS[0].X, PARTITIONS[0].y
    there = CodedMultiTaskRegressor(strength=0.1, cluster=client)
    here = CodedMultiTaskRegressor(strength=0.1)
    tasks = [0, 1] * (len(y) // 2)
    same = clone(there).fit(X, y, tasks).coef_.tobytes() == here.fit(X, y, tasks).coef_.tobytes()
    assert same
    with pytest.raises(UsageError, match="workers must be at most the number of Dask workers, 3, got 4"):
        CodedMultiTaskRegressor(strength=0.1, cluster=client, workers=4).fit(X, y, tasks)


def test_runs_on_the_same_workers_wait_for_each_other(client: Client) -> None:
    served: list[str] = []

    def go(name: str) -> None:
        held = dict(
            zip(addresses(client), (client.scatter(own, hash=False) for own in STORED.values()), strict=True)
        )
        run_on_workers(client, run_options(workers=3), held, tuple, lambda event: served.append(name))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(go, "abc"))
    # Events of one run never come between those of another.
    assert len([name for name, _ in groupby(served)]) == 3


def test_a_worker_that_is_killed_changes_nothing() -> None:
    settings = make_settings(rounds=40)
    with dask_client(3) as client:
        processes = client.run(os.getpid)
        victim = processes[addresses(client)[0]]

        def watch(event: ServerEvent) -> None:
            if isinstance(event, RoundRecord) and event.round == 5:
                os.kill(victim, signal.SIGKILL)

        held = {
            a: client.scatter(own, hash=False)
            for a, own in zip(addresses(client), STORED.values(), strict=True)
        }
        options = run_options(settings=settings, workers=3)
        record, models = run_on_workers(client, options, held, tuple, watch)
    assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()
    assert len(record.plan.placement.workers) == 2
