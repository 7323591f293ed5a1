from __future__ import annotations

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.estimators.running import is_remote, run_on
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement

PARTITIONS = make_partitions(4, "squared")
PLACEMENT = Placement.cyclic(2, 4, 1)


@pytest.mark.parametrize("cluster", ["threads", "processes"])
def test_a_run_on_this_machine_is_the_twin(cluster: str) -> None:
    settings = make_settings(rounds=5)
    record, models = run_on(cluster, settings, "relay", PARTITIONS, PLACEMENT)
    assert record.plan.placement.workers == PLACEMENT.workers
    assert models.coef_.tobytes() == train(PARTITIONS, settings).models.coef_.tobytes()


def test_an_unknown_cluster_is_refused() -> None:
    assert is_remote("localhost:7700")
    assert not is_remote("threads")
    with pytest.raises(UsageError, match="cluster must be threads, processes, a Dask client or HOST:PORT"):
        run_on("cloud", make_settings(), "relay", PARTITIONS, PLACEMENT)
