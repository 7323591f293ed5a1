from __future__ import annotations

import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.worker.options import WorkerOptions


def test_a_relay_has_the_options_of_a_server_towards_its_workers() -> None:
    options = RelayOptions(WorkerOptions("r", round_timeout=7.0, silence_timeout=3.0), 2)
    downward = options.downward(make_settings(), "central", 2, 5.0)
    assert (downward.workers, downward.join_timeout, downward.rejoin_timeout) == (2, 5.0, 5.0)
    assert (downward.round_timeout, downward.silence_timeout, downward.strategy) == (7.0, 3.0, "central")


def test_a_relay_waits_for_one_worker_at_least() -> None:
    with pytest.raises(UsageError, match="--workers must be at least 1, got 0"):
        RelayOptions(WorkerOptions("r"), 0)
