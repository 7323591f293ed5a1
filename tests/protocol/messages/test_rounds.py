from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.rounds import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    MoreRows,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)

WITH_BODY = (Snapshot, Restore, Uplink, Downlink, MoreRows)


@pytest.mark.parametrize("cls", [Assign, AwaitRestore, Done, Finish, *WITH_BODY])
def test_a_message_is_parsed_from_its_fields(cls: type[Any]) -> None:
    message = EXAMPLES[cls.kind]
    received = cls.parse(message.fields(), BODY)
    assert received.fields() == message.fields()
    assert cls.has_body == (cls in WITH_BODY)
    if cls in WITH_BODY:
        assert received.body is BODY
        assert b"".join(row.tobytes() for row in message.rows()) == BODY.tobytes()


@pytest.mark.parametrize("order", StateTransfer)
def test_the_event_of_a_plan_names_what_becomes_of_the_state(order: StateTransfer) -> None:
    by_word, by_member = (Assign(0, 0, False, first, {}, bytes(16), ()) for first in (order.value, order))
    assert by_word.event == by_member.event == f"assign, {order.value}"
    assert registry.pack(by_word) == registry.pack(by_member)
    assert registry.unpack(registry.pack(by_member), BODY[:0]).event == by_word.event


@pytest.mark.parametrize("order", AfterRound)
def test_the_event_of_a_downlink_names_what_comes_after_it(order: AfterRound) -> None:
    downlink = Downlink(0, 0, order, bytes(16))
    assert downlink.event == f"downlink, {order.value}"
    assert registry.unpack(registry.pack(downlink), BODY[:0]).event == downlink.event


@pytest.mark.parametrize(
    ("kind", "position", "value", "complaint"),
    [
        ("assign", 1, -1, "plan number"),
        ("done", 5, -1.0, "critical strength"),
        ("finish", 1, float("inf"), "critical strength"),
        ("assign", 4, "take it", "what to do first must be one of keep, give, take"),
        ("assign", 5, 1, "plan recipe"),
        ("assign", 6, bytes(3), "plan digest"),
        ("assign", 8, 1, "flag"),
        ("snapshot", 3, bytes(9), "state digest"),
        ("await-restore", 1, 1.0, "plan number"),
        ("restore", 1, b"", "state digest"),
        ("uplink", 2, 2.0, "round"),
        ("uplink", 3, "text", "digests and numbers"),
        ("downlink", 7, "text", "what others told"),
        ("downlink", 3, True, "what to do then must be one of go on, give, end"),
        ("downlink", 4, bytes(7), "downlink digest"),
        ("downlink", 6, "no", "grouped"),
        ("more-rows", 2, True, "round"),
        ("done", 2, bytes(8), "state check"),
    ],
)
def test_a_wrong_field_is_named(kind: str, position: int, value: Any, complaint: str) -> None:
    message = EXAMPLES[kind]
    values = [message.number, *message.fields()]
    values[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb(values), BODY if message.has_body else BODY[:0])


def test_an_uplink_of_one_range_has_three_fields() -> None:
    short, ranges, timed = (
        Uplink(0, 0, b"told"),
        Uplink(0, 0, b"told", rest=7),
        Uplink(0, 0, b"told", timing=(0.5, 8e6)),
    )
    assert [len(message.fields()) for message in (short, ranges, timed)] == [3, 4, 5]
    with pytest.raises(RemoteProtocolError, match="rest of the rows"):
        registry.unpack(msgpack.packb([10, 0, 0, b"told", 0]), BODY)
    for message in (short, ranges, timed):
        read = registry.unpack(registry.pack(message), BODY)
        assert isinstance(read, Uplink)
        assert (read.told, read.rest, read.timing) == (message.told, message.rest, message.timing)
