from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import BODY, EXAMPLES, joined, wire_bytes

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.protocol.frame_reader import Frame, FrameReader
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import Declare, Hello
from asyncdmtl.protocol.messages.registry import KINDS, MAX_CONTAINERS
from asyncdmtl.protocol.session import WORKER_HEAD_LIMIT

EMPTY = np.empty(0, np.uint8)
EVERY_KIND = pytest.mark.parametrize("message", EXAMPLES.values(), ids=EXAMPLES)


def body_of(message: Message) -> Any:
    return np.concatenate([EMPTY, *message.rows()])


def fields_of(message: Message) -> list[Any]:
    return [message.number, *message.fields()]


def test_numbers_and_kinds_are_of_one_class_each() -> None:
    assert {type(message) for message in EXAMPLES.values()} == set(KINDS.values())
    assert sorted(KINDS) == list(range(1, len(KINDS) + 1))
    assert len({cls.kind for cls in KINDS.values()}) == len(KINDS)
    assert {cls.__name__ for cls in KINDS.values()} <= set(registry.__all__)


@EVERY_KIND
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    back = registry.unpack(registry.pack(message), body_of(message))
    assert type(back) is type(message)
    assert back.fields() == message.fields()
    assert back.has_body == bool(message.rows())
    if back.has_body:
        assert vars(back)["body"].tobytes() == BODY.tobytes()


@EVERY_KIND
@pytest.mark.parametrize("step", [1, 1 << 16], ids=["byte by byte", "whole"])
def test_a_message_is_parsed_however_its_bytes_come(message: Message, step: int) -> None:
    data = wire_bytes(message)
    reader = FrameReader(1 << 16, 1 << 16)
    found: list[Frame] = []
    for at in range(0, len(data), step):
        assert not found
        found += reader.feed(data[at : at + step])
    (frame,) = found
    assert reader.idle
    assert frame.size == len(data)
    assert registry.unpack(frame.head, frame.body).fields() == message.fields()


@EVERY_KIND
@pytest.mark.parametrize("step", [1, 7, 1 << 16], ids=["byte by byte", "by sevens", "whole"])
def test_bytes_after_a_message_are_the_next_one(message: Message, step: int) -> None:
    data = wire_bytes(message) + wire_bytes(EXAMPLES["uplink"]) + wire_bytes(message)[:-1]
    reader = FrameReader(1 << 16, 1 << 16)
    frames = [frame for at in range(0, len(data), step) for frame in reader.feed(data[at : at + step])]
    found = [registry.unpack(frame.head, frame.body) for frame in frames]
    assert [message.kind for message in found] == [message.kind, "uplink"]
    assert not reader.idle


@EVERY_KIND
def test_the_frame_of_a_message_has_the_size_that_is_told(message: Message) -> None:
    buffers, size = registry.frame_message(message)
    assert len(joined(buffers)) == size


@EVERY_KIND
def test_a_field_too_few_or_too_many_is_refused(message: Message) -> None:
    values = fields_of(message)
    for wrong in ([*values, 0], values[:-1]) if len(values) > 1 else ([*values, 0],):
        with pytest.raises(RemoteProtocolError):
            registry.unpack(msgpack.packb(wrong), body_of(message))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(KINDS)), st.lists(PLAIN, max_size=8))
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


@pytest.mark.parametrize(
    "head", [b"\xc1", b"\x01", msgpack.packb([]), msgpack.packb([99]), msgpack.packb(["hello"])]
)
def test_a_head_that_is_no_message_is_refused(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="head"):
        registry.unpack(head, EMPTY)


@EVERY_KIND
def test_only_messages_with_rows_or_state_have_a_body(message: Message) -> None:
    if message.has_body:
        registry.unpack(registry.pack(message), BODY)
        return
    with pytest.raises(RemoteProtocolError, match=f"{message.kind} has no body, but 6 bytes of it came"):
        registry.unpack(registry.pack(message), BODY)


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
        ([[[]] * 25_000] * 20, f"more than {MAX_CONTAINERS} lists and maps"),
        ([[{}] * 25_000] * 20, f"more than {MAX_CONTAINERS} lists and maps"),
        ([[0.5] * 200_001], "exceeds max_array_len"),
        ([{str(i): i for i in range(257)}], "exceeds max_map_len"),
        ([msgpack.ExtType(5, b"x")], "exceeds max_ext_len"),
        ([msgpack.ExtType(5, b"")], "extension of msgpack, 5"),
        ([msgpack.Timestamp(1, 2)], "exceeds max_ext_len"),
    ],
    ids=["lists", "maps", "items", "keys", "extension", "empty extension", "timestamp"],
)
def test_a_head_holds_no_more_than_it_may(values: list[Any], complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb([Declare.number, *values]), EMPTY)


def test_a_survey_of_a_hundred_thousand_columns_fits_a_head() -> None:
    columns = [[f"column_{j}", {"count": 5, "mean": 1.5, "M2": 2.5}] for j in range(100_000)]
    declared = Declare((Declaration("p0", "t", bytes(16), 5, {"columns": columns}),))
    head = registry.pack(declared)
    assert len(head) < WORKER_HEAD_LIMIT
    read = registry.unpack(head, EMPTY)
    assert registry.pack(read) == head
    # Tuples of plain values cost the search for cyclic references nothing.
    assert isinstance(read, Declare)
    assert all(type(pair) is tuple for pair in read.partitions[0].survey["columns"])


def test_another_version_is_named_whatever_follows_it() -> None:
    with pytest.raises(RemoteProtocolError, match="version 99, this server"):
        registry.unpack(msgpack.packb([Hello.number, 99, "w0", "and", "more"]), EMPTY)


@pytest.mark.parametrize(
    ("more", "complaint"), [(b"\x00", "bytes follow the list"), (b"", "the list is incomplete")]
)
def test_a_large_head_is_one_whole_list(more: bytes, complaint: str) -> None:
    head = registry.pack(Declare((Declaration("p0", "t", bytes(16), 5, {"columns": ["x" * 30_000]}),)))
    wrong = head + more if more == b"\x00" else head[:-5] + more
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(wrong, EMPTY)
