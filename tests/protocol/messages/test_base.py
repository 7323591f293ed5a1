from __future__ import annotations

from typing import Any

import pytest
from support.messages import BODY, DECLARATION, EXAMPLES, INFO

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages.base import (
    MAX_PARTITIONS,
    NO_BODY,
    Message,
    pack_declaration,
    pack_info,
    parse_declaration,
    parse_each,
    parse_info,
)
from asyncdmtl.protocol.messages.joining import Hello


def test_a_message_without_fields_or_rows() -> None:
    heartbeat = EXAMPLES["heartbeat"]
    assert heartbeat.fields() == []
    assert heartbeat.rows() == ()
    assert heartbeat.event == "heartbeat"
    assert type(type(heartbeat).parse([], NO_BODY)) is type(heartbeat)
    with pytest.raises(RemoteProtocolError, match="heartbeat has 1 fields instead of 0"):
        type(heartbeat).parse([1], NO_BODY)


def test_messages_are_immutable() -> None:
    hello = EXAMPLES["hello"]
    assert isinstance(hello, Hello)
    with pytest.raises(AttributeError):
        hello.name = "w1"  # type: ignore[misc]


def test_partitions_are_read_as_they_were_written() -> None:
    assert parse_info(pack_info(INFO)) == INFO
    assert parse_declaration(pack_declaration(DECLARATION)) == DECLARATION
    assert parse_each([pack_info(INFO)], parse_info) == (INFO,)


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (0, "", "partition name"),
        (1, "a\nb", "task name"),
        (2, bytes(15), "partition digest"),
        (3, 0, "rows"),
        (3, 2**48 + 1, "rows"),
        (4, 0.0, "weight must be a finite float, more than 0"),
        (5, 2**40, "features"),
        (5, 0, "features"),
        (6, float("nan"), "smoothness"),
        (6, -1.0, "smoothness"),
        (7, "10", "classes must be one of"),
    ],
)
def test_a_wrong_field_of_a_partition_is_named(position: int, value: Any, complaint: str) -> None:
    packed = pack_info(INFO)
    packed[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        parse_info(packed)


def test_a_survey_is_a_map() -> None:
    packed = pack_declaration(DECLARATION)
    packed[4] = [1]
    with pytest.raises(RemoteProtocolError, match="survey must be a map"):
        parse_declaration(packed)


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ("text", "partitions must be a list"),
        (["p0"], "partition must be a list"),
        ([["p0"]], "partition has 1 fields instead of 6"),
        ([pack_declaration(DECLARATION)] * 2, "a partition is declared twice"),
        ([[]] * (MAX_PARTITIONS + 1), "partitions must be at most 16384, not 16385"),
    ],
    ids=["no list", "no partition", "one field", "twice", "too many"],
)
def test_lists_of_partitions_are_checked(items: Any, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        parse_each(items, parse_declaration)


def test_the_base_has_no_kind_of_its_own() -> None:
    assert not hasattr(Message, "number")
    assert len(NO_BODY) == 0
    assert len(BODY) == 6
