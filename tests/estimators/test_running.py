from __future__ import annotations

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.estimators.running import Launch, is_remote, run_observed, run_on
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
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
