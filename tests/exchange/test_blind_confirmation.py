from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.exchange import RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.digests import Digest
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.sides import UnconfirmedError
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

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


def test_a_state_and_a_digest_that_one_worker_tells_are_confirmed_by_others() -> None:
    plan = make_plan(Placement({"a": ["p0", "p1"], "b": ["p1"], "c": ["p2"]}), "relay", tasks=[0, 0, 1])
    groups = BlindGroups(plan, Digest("run"), 4, {k: bytes([k]) * 16 for k in range(3)})
    p1, states = groups.groups.index((1,)), [b"s" * 16] * 3
    sent = []
    for k, (held, stored) in enumerate(zip(groups.held, plan.placement.stored, strict=True)):
        digests, sealed = tuple(bytes([g]) * 16 for g in held), tuple(bytes([n]) * 4 for n in (*stored, 8, 9))
        whole = Upload((), 0, digests, (), 0.0, 0.0, states[k], sealed=sealed)
        sent.append(groups.shortened(k, whole))
    groups.completed("abc", sent, states)
    with pytest.raises(UnconfirmedError, match="did not compute the same values"):
        groups.completed("abc", sent, [*states[:2], bytes(16)])
    (teller,) = (k for k, upload in enumerate(sent) if bytes([p1]) * 16 in upload.digests)
    other = tuple(bytes(16) if digest == bytes([p1]) * 16 else digest for digest in sent[teller].digests)
    sent[teller] = replace(sent[teller], digests=other)
    with pytest.raises(UnconfirmedError, match="did not compute the same values"):
        groups.completed("abc", sent, states)
