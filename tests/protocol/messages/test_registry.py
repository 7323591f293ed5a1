from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import (
    KINDS,
    MOST_CONTAINERS,
    VERSION,
    Assign,
    AwaitRestore,
    Challenge,
    Declare,
    Done,
    Downlink,
    Failure,
    Fallback,
    Finish,
    Heartbeat,
    Hello,
    JoinedGroup,
    JoinGroup,
    LossQuery,
    LossReport,
    Message,
    MoreRows,
    Prepare,
    Proof,
    Ready,
    Restore,
    Snapshot,
    Uplink,
    Welcome,
)
from asyncdmtl.protocol.session import WORKER_HEAD_LIMIT

EMPTY = np.empty(0, np.uint8)
BODY = np.arange(6, dtype=np.uint8)
INFO = PartitionInfo("p0", "task", bytes(16), 3, 3.0, 4, 0.5)
DECLARED = Declaration("p0", "task", bytes(16), 3, {"age": [1.5, "x"]})

EXAMPLES: list[Message] = [
    Hello(VERSION, "w0"),
    Welcome("run", {"rounds": 3, "loss": "squared"}),
    Declare((DECLARED,), 2, False, bytes(8)),
    Prepare({"columns": {}}),
    Ready((INFO,)),
    Assign(0, 0, False, "keep", {"version": 1}, bytes(16), (INFO,), True),
    Snapshot(0, 2, bytes(8), BODY),
    AwaitRestore(0),
    Restore(bytes(8), BODY),
    Uplink(0, 2, bytes(16), (0.5, 1.0), 0.25, 0.125, BODY, 7),
    Downlink(0, 2, "end", bytes(8), (BODY[:3], BODY[3:]), rest=7),
    Done(0, bytes(8)),
    Finish(),
    Heartbeat(),
    Failure(3, "why", True),
    Challenge("run", bytes(32)),
    Proof(bytes(32), bytes(32)),
    MoreRows(0, 2, (BODY[:3], BODY[3:])),
    JoinGroup("239.1.2.3", 7701, bytes(32), bytes(16), 1444),
    JoinedGroup("nothing was heard"),
    LossQuery(0, 1, 8, 4),
    LossReport(0, 1, 8, b"\0\2", 40),
    Fallback(0, 1, 8, (BODY[:3], BODY[3:])),
]


def body_of(message: Message) -> Any:
    return np.concatenate([EMPTY, *message.rows()])


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(message) for message in EXAMPLES} == set(KINDS.values())


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
def test_messages_survive_the_wire(message: Message) -> None:
    back = registry.unpack(registry.pack(message), body_of(message))
    assert type(back) is type(message)
    assert back.fields() == message.fields()
    if isinstance(back, Uplink | Downlink | Snapshot | Restore):
        assert back.body.tobytes() == BODY.tobytes()


def test_reasons_cannot_steer_a_terminal() -> None:
    failure = registry.unpack(msgpack.packb([Failure.number, 1, "a\x1b]0;b\nc", False]), EMPTY)
    assert isinstance(failure, Failure)
    assert failure.reason == "a\N{REPLACEMENT CHARACTER}]0;b\N{REPLACEMENT CHARACTER}c"


def test_another_version_is_named_whatever_follows_it() -> None:
    with pytest.raises(RemoteProtocolError, match=f"version 99, this server {VERSION}"):
        registry.unpack(msgpack.packb([Hello.number, 99, "w0", "and", "more"]), EMPTY)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(KINDS)), st.lists(PLAIN, max_size=7))
def test_any_fields_give_a_message_or_a_protocol_error(number: int, values: list[Any]) -> None:
    try:
        message = registry.unpack(msgpack.packb([number, *values]), EMPTY)
    except RemoteProtocolError:
        return
    assert message.number == number


@given(st.binary(max_size=64))
def test_any_bytes_give_a_message_or_a_protocol_error(head: bytes) -> None:
    try:
        registry.unpack(head, EMPTY)
    except RemoteProtocolError:
        return


def fields_of(message: Message) -> list[Any]:
    return [message.number, *message.fields()]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
def test_a_field_too_few_or_too_many_is_refused(message: Message) -> None:
    values = fields_of(message)
    for wrong in ([*values, 0], values[:-1]) if len(values) > 1 else ([*values, 0],):
        with pytest.raises(RemoteProtocolError):
            registry.unpack(msgpack.packb(wrong), body_of(message))


@pytest.mark.parametrize(
    ("message", "position", "value", "complaint"),
    [
        (EXAMPLES[0], 2, "", "worker name"),
        (EXAMPLES[0], 2, "a\nb", "worker name"),
        (EXAMPLES[0], 2, "x" * 201, "worker name"),
        (EXAMPLES[0], 1, True, "protocol version"),
        (EXAMPLES[0], 3, 0.0, "silence"),
        (EXAMPLES[1], 3, float("inf"), "silence"),
        (EXAMPLES[1], 2, {"a": 1, "b": [1]}, None),
        (EXAMPLES[1], 4, bytes(31), "proof"),
        (Challenge("run", bytes(32)), 2, bytes(31), "nonce"),
        (Challenge("run", bytes(32)), 1, "a\n", "run"),
        (Proof(bytes(32), bytes(32)), 1, bytes(33), "nonce"),
        (Proof(bytes(32), bytes(32)), 2, "x" * 32, "proof"),
        (EXAMPLES[2], 1, [["p", "t", bytes(15), 1, {}]], "partition digest"),
        (EXAMPLES[2], 1, [["p", "t", bytes(16), 0, {}]], "rows"),
        (EXAMPLES[2], 1, [["p", "t", bytes(16), 1, [1]]], "survey"),
        (EXAMPLES[2], 1, [["p", "t", bytes(16), 1, {}]] * 2, "declared twice"),
        (EXAMPLES[2], 4, bytes(7), "state digest"),
        (EXAMPLES[2], 4, b"", None),
        (EXAMPLES[3], 1, [1], "encoding"),
        (EXAMPLES[4], 1, [["p", "t", bytes(16), 1, 1.0, 1, float("nan"), ""]], "smoothness"),
        (
            EXAMPLES[4],
            1,
            [["p", "t", bytes(16), 1, 0.0, 1, 0.0, ""]],
            "weight must be",
        ),
        (EXAMPLES[4], 1, [["p", "t", bytes(16), 1, 1.0, 2**40, 0.0, ""]], "features"),
        (EXAMPLES[4], 1, [["p", "t", bytes(16), 1, 1.0, 1, 0.0, "10"]], "classes must be one of"),
        (EXAMPLES[5], 1, -1, "plan number"),
        (EXAMPLES[5], 4, "take it", "what to do first must be one of keep, give, take"),
        (EXAMPLES[5], 6, bytes(3), "plan digest"),
        (EXAMPLES[6], 3, bytes(9), "state digest"),
        (EXAMPLES[9], 2, 2.0, "round"),
        (EXAMPLES[9], 3, bytes(7), "update digests"),
        (EXAMPLES[9], 4, [1], "loss"),
        (EXAMPLES[9], 5, 1, "penalty"),
        (EXAMPLES[9], 6, None, "residual"),
        (EXAMPLES[10], 3, True, "what to do then"),
        (EXAMPLES[14], 1, 0, "exit code"),
        (EXAMPLES[14], 1, 130, "exit code"),
        (EXAMPLES[14], 3, 1, "worker may return"),
    ],
)
def test_a_wrong_field_is_named(message: Message, position: int, value: Any, complaint: str | None) -> None:
    values = fields_of(message)
    values[position] = value
    head = msgpack.packb(values)
    if complaint is None:
        registry.unpack(head, body_of(message))
        return
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(head, body_of(message))


@pytest.mark.parametrize(
    "head", [b"\xc1", b"\x01", msgpack.packb([]), msgpack.packb([99]), msgpack.packb(["hello"])]
)
def test_what_is_no_message_is_refused(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="head"):
        registry.unpack(head, EMPTY)


def test_only_coded_rows_have_bodies() -> None:
    with pytest.raises(RemoteProtocolError, match="hello has no body"):
        registry.unpack(registry.pack(EXAMPLES[0]), BODY)


def list_of(count: int, packed: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + packed * count


@pytest.mark.parametrize("item", [b"\x90", b"\x81\xa2ab\xc0", b"\xa2ab"], ids=["lists", "maps", "texts"])
def test_the_largest_head_takes_a_bounded_multiple_of_its_length(item: bytes) -> None:
    inner = list_of(100_000, item)
    head = list_of(WORKER_HEAD_LIMIT // len(inner), inner)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            registry.unpack(head, EMPTY)
        assert tracemalloc.get_traced_memory()[1] < 25 * WORKER_HEAD_LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([[[]] * 25_000] * 20, f"more than {MOST_CONTAINERS} lists and maps"),
        ([[{}] * 25_000] * 20, f"more than {MOST_CONTAINERS} lists and maps"),
        ([[0.5] * 200_001], "exceeds max_array_len"),
        ([{str(i): i for i in range(257)}], "exceeds max_map_len"),
        ([msgpack.ExtType(5, b"x")], "exceeds max_ext_len"),
        ([msgpack.ExtType(5, b"")], "extension of msgpack, 5"),
        ([msgpack.Timestamp(1, 2)], "exceeds max_ext_len"),
        (
            [[["p", "t", bytes(16), 1, {}]] * 16_385, 0, False, b""],
            "partitions must be at most 16384, not 16385",
        ),
    ],
    ids=["lists", "maps", "items", "keys", "extension", "empty extension", "timestamp", "partitions"],
)
def test_a_head_holds_no_more_than_it_may(values: list[Any], complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb([Declare.number, *values]), EMPTY)


def test_a_survey_of_a_hundred_thousand_columns_is_none_too_large() -> None:
    columns = [[f"column_{j}", {"count": 5, "mean": 1.5, "M2": 2.5}] for j in range(100_000)]
    declared = Declare((Declaration("p0", "t", bytes(16), 5, {"columns": columns}),))
    head = registry.pack(declared)
    assert len(head) < WORKER_HEAD_LIMIT
    assert registry.unpack(head, EMPTY).fields() == declared.fields()
