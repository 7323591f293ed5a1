from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.worker.options import LONGEST_WORKER_NAME, WorkerOptions


def test_a_name_alone_is_enough() -> None:
    options = WorkerOptions("w0")
    assert (options.max_wait, options.interface) == (60.0, "")


def test_a_worker_waits_longer_than_a_server_with_the_same_timeout_for_a_silent_one() -> None:
    assert WorkerOptions("w0", round_timeout=8.0).reply_limit == (12.0, "--round-timeout")


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"name": ""}, "--name"),
        ({"name": "w" * (LONGEST_WORKER_NAME + 1)}, "--name"),
        ({"name": "two\nlines"}, "--name"),
        ({"max_wait": -1.0}, "--max-wait"),
        ({"max_wait": float("inf")}, "--max-wait"),
        ({"start_timeout": 0.0}, "--start-timeout"),
        ({"round_timeout": float("nan")}, "--round-timeout"),
        ({"silence_timeout": -2.0}, "--silence-timeout"),
        ({"wants": "some"}, "--wants"),
    ],
)
def test_an_option_that_breaks_a_rule_is_named(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        WorkerOptions(**{"name": "w0", **changes})
