from __future__ import annotations

import binascii
import zlib

import msgpack
import numpy as np
import pytest
from support.messages import joined

from asyncdmtl.errors import LocalProtocolError
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.framing import (
    CHECK_BYTES,
    NoPrefixError,
    bin_header,
    chunk_lengths,
    encode_frame,
    frame_start,
    pack_prefix,
    unpack_prefix,
)

# Bytes of the prefix of a frame with a short head and a short body.
SHORT_PREFIX = 5


def test_a_prefix_has_both_lengths_and_their_check() -> None:
    prefix = pack_prefix(7, 2**40)
    assert unpack_prefix(prefix) == unpack_prefix(memoryview(prefix + b"more")) == (7, 2**40, len(prefix))
    unpacker = msgpack.Unpacker()
    unpacker.feed(prefix)
    assert list(unpacker) == [7, 2**40, binascii.crc_hqx(prefix[:-3], 0)]
    assert all(unpack_prefix(prefix[:count]) is None for count in range(len(prefix)))


@pytest.mark.parametrize("length", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_a_prefix_is_as_short_as_its_lengths(length: int) -> None:
    for lengths in ((length, 5), (5, length)):
        prefix = pack_prefix(*lengths)
        assert unpack_prefix(prefix) == (*lengths, len(prefix))
        assert len(prefix) == sum(len(msgpack.packb(each)) for each in lengths) + 3


@pytest.mark.parametrize(
    "start", [b"\x07\x07\xcd\0\0", b"\xcc\x07\x07\xcd\0\0", b"\x80", b"\x07\xc3", b"\xd0"]
)
def test_what_is_no_prefix_is_refused(start: bytes) -> None:
    with pytest.raises(NoPrefixError):
        unpack_prefix(start)


def test_lengths_must_be_in_their_shortest_form() -> None:
    long = b"\xcc\x07\x05"
    with pytest.raises(NoPrefixError):
        unpack_prefix(long + b"\xcd" + binascii.crc_hqx(long, 0).to_bytes(2, "big"))


def test_a_head_is_followed_by_the_check_of_all_before_it() -> None:
    start = frame_start(b"head", 9)
    assert unpack_prefix(start) == (4 + CHECK_BYTES, 9, SHORT_PREFIX)
    assert start[SHORT_PREFIX:-CHECK_BYTES] == b"head"
    assert msgpack.unpackb(start[-CHECK_BYTES:]) == zlib.crc32(start[:-CHECK_BYTES])


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536, 100_000])
def test_headers_of_binary_are_those_of_msgpack(length: int) -> None:
    packed: bytes = msgpack.packb(bytes(length))
    assert bin_header(length) == packed[: len(packed) - length]


def test_a_body_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "CHUNK_BYTES", 1000)
    assert list(chunk_lengths(0)) == []
    assert list(chunk_lengths(1000)) == [1000]
    assert list(chunk_lengths(2501)) == [1000, 1000, 501]


def test_a_frame_is_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "CHUNK_BYTES", 1000)
    head = msgpack.packb(["kind", 1])
    rows = [np.full(count, value, np.uint8) for count, value in ((700, 1), (0, 9), (1801, 2))]
    buffers, size = encode_frame(head, rows)
    frame = joined(buffers)
    assert len(frame) == size
    prefix = pack_prefix(len(head) + CHECK_BYTES, 2501)
    unpacker = msgpack.Unpacker()
    unpacker.feed(frame)
    head_length, body_length, _, first, check, *chunks = unpacker
    assert (head_length, body_length) == (len(head) + CHECK_BYTES, 2501)
    assert first == ["kind", 1]
    assert check == zlib.crc32(prefix + head)
    assert [len(chunk) for chunk in chunks] == [1000, 1000, 501]
    assert b"".join(chunks) == b"\1" * 700 + b"\2" * 1801


def test_rows_are_not_copied() -> None:
    rows = np.arange(10, dtype=np.uint8)
    buffers, _ = encode_frame(b"head", [rows])
    assert np.shares_memory(rows, np.frombuffer(buffers[-1], np.uint8))


def test_a_frame_may_have_no_body() -> None:
    buffers, size = encode_frame(b"head")
    assert buffers == [frame_start(b"head", 0)]
    assert size == SHORT_PREFIX + 4 + CHECK_BYTES


@pytest.mark.parametrize(
    "row", [np.zeros(4, np.float32), np.zeros((4, 4), np.uint8)[:, ::2]], ids=["floats", "gaps"]
)
def test_rows_must_be_contiguous_bytes(row: np.ndarray) -> None:
    with pytest.raises(LocalProtocolError, match="contiguous uint8 arrays"):
        encode_frame(b"head", [row])
