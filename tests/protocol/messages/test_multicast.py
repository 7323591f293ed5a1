from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.multicast import (
    MAX_JOIN_REASON_LENGTH,
    Fallback,
    JoinedGroup,
    JoinGroup,
    LossQuery,
    LossReport,
)


@pytest.mark.parametrize("cls", [JoinGroup, JoinedGroup, LossQuery, LossReport])
def test_a_message_is_parsed_from_its_fields(cls: type[Any]) -> None:
    message = EXAMPLES[cls.kind]
    assert cls.parse(message.fields(), BODY[:0]).fields() == message.fields()
    assert not cls.has_body


def test_the_rows_of_a_fallback_are_its_body() -> None:
    sent = Fallback(0, 1, 8, (BODY[:3], BODY[3:]))
    received = Fallback.parse(sent.fields(), BODY)
    assert (received.plan, received.round, received.index) == (0, 1, 8)
    assert received.body is BODY
    assert received.parts == ()
    assert [row.tobytes() for row in sent.rows()] == [BODY[:3].tobytes(), BODY[3:].tobytes()]


def test_a_worker_that_receives_the_group_gives_no_reason() -> None:
    assert JoinedGroup.parse([""], BODY[:0]).reason == ""
    assert len(JoinedGroup("x" * 1000).fields()[0]) == MAX_JOIN_REASON_LENGTH


@pytest.mark.parametrize(
    ("kind", "position", "value", "complaint"),
    [
        ("join-group", 1, "", "group"),
        ("join-group", 2, 0, "port"),
        ("join-group", 2, 65536, "port"),
        ("join-group", 3, bytes(31), "key"),
        ("join-group", 4, bytes(17), "nonce"),
        ("join-group", 5, 0, "bytes of a piece"),
        ("joined-group", 1, "a\n", "reason"),
        ("loss-query", 1, -1, "plan number"),
        ("loss-query", 2, 0.5, "round"),
        ("loss-query", 3, 2**21, "range"),
        ("loss-query", 4, 0, "ranges"),
        ("loss-report", 4, "text", "lacking rows"),
        ("loss-report", 5, 2**33, "datagrams"),
        ("fallback", 3, None, "range"),
    ],
)
def test_a_wrong_field_is_named(kind: str, position: int, value: Any, complaint: str) -> None:
    message = EXAMPLES[kind]
    values = [message.number, *message.fields()]
    values[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb(values), BODY if message.has_body else BODY[:0])
