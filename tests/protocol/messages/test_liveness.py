from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.liveness import MAX_REASON_LENGTH, Failure, Heartbeat


def test_a_heartbeat_is_empty() -> None:
    assert Heartbeat().fields() == []
    assert isinstance(Heartbeat.parse([], BODY[:0]), Heartbeat)


def test_a_reason_cannot_steer_a_terminal() -> None:
    failure = Failure.parse([1, "a\x1b]0;b\nc", False], BODY[:0])
    assert failure.reason == "a\N{REPLACEMENT CHARACTER}]0;b\N{REPLACEMENT CHARACTER}c"


def test_a_long_reason_is_cut_where_it_is_sent() -> None:
    failure = Failure(1, "x" * (MAX_REASON_LENGTH + 1))
    assert Failure.parse(failure.fields(), BODY[:0]).reason == "x" * MAX_REASON_LENGTH


def test_a_worker_may_not_return_unless_the_failure_says_so() -> None:
    assert not Failure(1, "why").worker_may_return
    assert Failure.parse([1, "why", True], BODY[:0]).worker_may_return


@pytest.mark.parametrize(
    ("kind", "position", "value", "complaint"),
    [
        ("failure", 1, 0, "exit code"),
        ("failure", 1, 130, "exit code"),
        ("failure", 2, b"why", "reason"),
        ("failure", 2, "x" * 4001, "reason"),
        ("failure", 3, 1, "worker may return"),
    ],
)
def test_a_wrong_field_is_named(kind: str, position: int, value: Any, complaint: str) -> None:
    message = EXAMPLES[kind]
    values = [message.number, *message.fields()]
    values[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb(values), BODY if message.has_body else BODY[:0])
