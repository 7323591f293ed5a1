"""Workers whose rows do not match their digests are found, and excluded if this happens often."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.clusters import Cluster, stored_at
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import PeerError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.linear import LinearWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import Planned

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(dtype="float64", rounds=12)


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first worker that sends rows flip one bit of them in every round, with correct digests."""
    names: list[str] = []
    lock = threading.Lock()
    side: Any
    for side in (CodedWorkerSide, LinearWorkerSide):
        compute = side.compute

        def flipped(side: Any, compute: Any = compute) -> Upload:
            upload: Upload = compute(side)
            name = side.plan.placement.workers[side.worker]
            with lock:
                if not names and upload.size:
                    names.append(name)
            if name not in names or not upload.size:
                return upload
            rows = upload.rows[0].copy()
            rows.reshape(-1)[5] ^= 1
            return replace(upload, rows=(rows, *upload.rows[1:]))

        monkeypatch.setattr(side, "compute", flipped)
    return names


@pytest.mark.parametrize(
    ("strategy", "blind"),
    [
        *((strategy, False) for strategy in ("relay", "uncoded", "central", "personal", "linear")),
        ("relay", True),
        ("uncoded", True),
    ],
)
async def test_a_worker_that_sends_bad_rows_is_excluded_and_the_others_end_as_the_twin(
    bad: list[str], strategy: str, blind: bool
) -> None:
    options = run_options(strategy=strategy, settings=SETTINGS, workers=3, blind=blind)
    secret = b"a secret that the server does not have" if blind else None
    async with Cluster(options) as cluster:
        own = stored_at(Placement.cyclic(3, 6, 2), PARTITIONS)
        workers = {name: cluster.join(name, parts, group_secret=secret) for name, parts in own.items()}
        record = await cluster.server
        with pytest.raises(PeerError):
            await workers.pop(bad[0])
        models = await asyncio.gather(*workers.values())
    if strategy in ("relay", "uncoded"):
        # Workers that decoded wrong vectors lost their connections; nobody blames them.
        what = "the server was sent other masked updates" if blind else "the server decoded other updates"
        named = [i.worker for i in record.incidents if what in i.reason]
        assert set(named) == set(bad)
    else:
        assert {incident.worker for incident in record.incidents} == set(bad)
    assert set(cluster.instance._membership.excluded) == set(bad)
    assert bad[0] not in record.plan.placement.workers
    assert sum(isinstance(event, Planned) for event in cluster.events) <= 5
    twin = train(PARTITIONS, SETTINGS).models
    for found in models:
        expected = twin.of([twin.tasks.index(task) for task in found.tasks])
        if strategy == "linear":
            assert np.allclose(found.coef_, expected.coef_, rtol=1e-9)
        else:
            assert found.coef_.tobytes() == expected.coef_.tobytes()
