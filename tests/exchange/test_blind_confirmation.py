from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.exchange import RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.sides import UnconfirmedError

GROUP = GroupKey(b"a secret of the group", "run")
PARTITIONS = make_partitions(6, "squared")


def exchange() -> RoundExchange:
    return RoundExchange(HOMOGENEOUS, PARTITIONS, make_settings(), "relay", detailed=False, group=GROUP)


def test_each_number_travels_once() -> None:
    run = exchange()
    sent = run.up()
    groups = run.server._groups  # type: ignore[attr-defined]
    assert isinstance(groups, BlindGroups)
    # All losses, and the penalty and the residual of the first worker.
    assert sum(len(upload.sealed) for upload in sent) == len(PARTITIONS) + 2
    assert [len(u.sealed) for u in sent] == [run.server.layout(k).sealed for k in range(len(sent))]
    stored = len(HOMOGENEOUS.stored[0])
    assert groups.layout(0, run.problem.dtype, detailed=True).sealed == stored + 2
    whole = [upload for upload in run.server.completed(sent) if upload is not None]
    assert [len(u.sealed) for u in whole] == [stored + 2] * len(sent)
    assert [u.sealed[-2] == b"" for u in whole] == [k >= 3 for k in range(len(sent))]


@pytest.mark.parametrize("worker", [0, 4])
@pytest.mark.parametrize(
    "lie",
    [
        lambda sent: {"sealed": (bytes(4), *sent.sealed[1:])},
        lambda sent: {"confirmation": bytes(16)},
        lambda sent: {"confirmation": b""},
    ],
    ids=["number", "confirmation", "no confirmation"],
)
def test_a_value_that_others_computed_differently_is_noticed(worker: int, lie: Any) -> None:
    run = exchange()
    sent = run.up()
    sent[worker] = replace(sent[worker], **lie(sent[worker]))
    with pytest.raises(UnconfirmedError, match="did not compute the same values"):
        run.server.completed(sent)


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("worker", range(6))
def test_what_a_worker_tells_is_as_long_as_in_a_run_that_is_not_blind(strategy: str, worker: int) -> None:
    for dtype in ("float32", "float64"):
        settings = make_settings(dtype=dtype)
        sizes = [
            RoundExchange(HOMOGENEOUS, PARTITIONS, settings, strategy, detailed=False, group=group)
            .workers[worker]
            .layout.size
            for group in (GROUP, None)
        ]
        assert sizes[0] == sizes[1] > 0
