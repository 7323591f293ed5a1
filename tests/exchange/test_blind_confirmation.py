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
    assert [len(u.sealed) for u in sent] == [groups.numbers(k, detailed=False) for k in range(len(sent))]
    stored = len(HOMOGENEOUS.stored[0])
    assert groups.numbers(0, detailed=True) == stored + 2
    whole = [upload for upload in run.server.completed(sent) if upload is not None]
    assert [len(u.sealed) for u in whole] == [stored + 2] * len(sent)
    assert [u.sealed[-2] == b"" for u in whole] == [k >= 3 for k in range(len(sent))]


@pytest.mark.parametrize("worker", [0, 4])
@pytest.mark.parametrize(
    "lie",
    [
        lambda sent: {"sealed": (bytes(8), *sent.sealed[1:])},
        lambda sent: {"digests": (bytes(16), *sent.digests[1:])},
        lambda sent: {"confirmation": bytes(16)},
        lambda sent: {"confirmation": b""},
    ],
    ids=["number", "digest", "confirmation", "no confirmation"],
)
def test_a_value_that_others_computed_differently_is_noticed(worker: int, lie: Any) -> None:
    run = exchange()
    sent = run.up()
    sent[worker] = replace(sent[worker], **lie(sent[worker]))
    with pytest.raises(UnconfirmedError, match="did not compute the values"):
        run.server.completed(sent)
