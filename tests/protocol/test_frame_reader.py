from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import joined

from asyncdmtl.errors import CorruptionError, RemoteProtocolError
from asyncdmtl.protocol import frame_reader, framing
from asyncdmtl.protocol.frame_reader import PROGRESS_BYTES, SCRATCH_BYTES, Frame, FrameReader
from asyncdmtl.protocol.framing import CHECK_BYTES, encode_frame, frame_start, pack_prefix


def wire(head: bytes, *bodies: bytes) -> bytes:
    return joined(encode_frame(head, [np.frombuffer(body, np.uint8) for body in bodies])[0])


def read(data: bytes, step: int, body_limit: int = 1 << 20) -> list[Frame]:
    """The frames in `data`, which a reader gets in pieces of `step` bytes."""
    reader = FrameReader(1000, body_limit)
    return [frame for i in range(0, len(data), step) for frame in reader.feed(data[i : i + step])]


BODIES = [b"", b"x", bytes(range(255)), bytes(256), bytes(65535), bytes(65536), b"ab" * SCRATCH_BYTES + b"c"]


@pytest.mark.parametrize("body", BODIES, ids=[str(len(body)) for body in BODIES])
@pytest.mark.parametrize("step", [1, 7, SCRATCH_BYTES - 1, 1 << 20])
def test_a_frame_is_read_in_pieces_of_any_size(body: bytes, step: int) -> None:
    data = wire(b"head", body)
    (frame,) = read(data, step)
    assert (frame.head, frame.body.tobytes(), frame.size) == (b"head", body, len(data))


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=400)), max_size=6),
    st.integers(1, 99),
)
def test_any_cut_of_a_stream_gives_the_same_frames(frames: list[tuple[bytes, bytes]], step: int) -> None:
    data = b"".join(wire(head, body) for head, body in frames)
    assert [(frame.head, frame.body.tobytes()) for frame in read(data, step)] == frames


def test_bytes_after_a_frame_begin_the_next() -> None:
    reader = FrameReader(1000, 1000)
    first, second = wire(b"one", b"1"), wire(b"two", b"22")
    idle = [reader.idle]
    for data, head in ((first + second[:5], b"one"), (second[5:], b"two")):
        assert [frame.head for frame in reader.feed(data)] == [head]
        idle.append(reader.idle)
    assert idle == [True, False, True]


def test_rows_become_one_body() -> None:
    (frame,) = read(wire(b"h", b"abc", b"", b"de"), 4)
    assert frame.body.tobytes() == b"abcde"


@pytest.mark.parametrize("step", [1, 999, 5000])
def test_a_body_of_several_chunks_is_one(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    for module in (framing, frame_reader):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    data = wire(b"head", b"a" * 700, b"b" * 1801)
    (frame,) = read(data, step)
    assert frame.body.tobytes() == b"a" * 700 + b"b" * 1801
    assert frame.size == len(data)


def test_a_large_body_is_received_in_place() -> None:
    body = bytes(4 * SCRATCH_BYTES)
    data = wire(b"h", body)
    reader = FrameReader(1000, len(body))
    reader.feed(data[: -3 * SCRATCH_BYTES])
    buffer = reader.get_buffer()
    assert len(buffer) == 3 * SCRATCH_BYTES
    buffer[:] = data[-3 * SCRATCH_BYTES :]
    (frame,) = reader.buffer_updated(3 * SCRATCH_BYTES)
    assert np.shares_memory(frame.body, np.frombuffer(buffer, np.uint8))


def test_the_scratch_buffer_never_runs_out_of_room() -> None:
    """The beginning of a prefix at the end of a full buffer moves to the buffer's beginning."""
    head = b"x" * 422
    data = wire(head) * 200
    assert SCRATCH_BYTES % len(wire(head)) == 2
    assert [frame.head for frame in read(data, SCRATCH_BYTES)] == [head] * 200


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (pack_prefix(0, 0), "head of 0 bytes"),
        (pack_prefix(CHECK_BYTES, 0), "head of 5 bytes"),
        (pack_prefix(1001, 0), "head of 1001 bytes, permitted are 6 to 1000"),
        (pack_prefix(2**32 - 1, 0), "head of 4294967295 bytes"),
        (pack_prefix(6, 2**64 - 1), "body of 18446744073709551615 bytes"),
        (pack_prefix(6, 101), "body of 101 bytes, permitted are at most 100"),
        (frame_start(b"h", 100) + b"\xc4\x63", "100 bytes of msgpack binary"),
        (frame_start(b"h", 100) + b"\xa0\x64", "100 bytes of msgpack binary"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(9), r"speaks TLS, .* \(--tls-cert\)"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_lies_are_refused_before_memory_is_taken(data: bytes, complaint: str, step: int) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        read(data, step, body_limit=100)


@pytest.mark.parametrize("step", [1, 1000])
def test_no_flipped_bit_of_lengths_or_head_goes_unnoticed(step: int) -> None:
    data = wire(b"some head", bytes(100))
    for place in range(8 * len(frame_start(b"some head", 100))):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        # The bytes that follow complete a frame whose head was made longer.
        with pytest.raises(CorruptionError, match="does not match its check"):
            read(bytes(changed) + bytes(1000), step)


def test_a_failed_reader_stays_failed() -> None:
    reader = FrameReader(10, 0)
    for data in (pack_prefix(11, 0), wire(b"fine")):
        with pytest.raises(RemoteProtocolError, match="head of 11 bytes"):
            reader.feed(data)


def test_a_new_limit_holds_from_the_next_frame_on() -> None:
    reader = FrameReader(100, 5)
    data = wire(b"h", b"12345")
    reader.feed(data[:-1])
    reader.body_limit = 4
    assert len(reader.feed(data[-1:])) == 1
    with pytest.raises(RemoteProtocolError, match="permitted are at most 4"):
        reader.feed(data)


def test_progress_is_whole_frames_and_good_pieces_of_long_ones() -> None:
    reader = FrameReader(1 << 10, 1 << 20)
    stream = wire(b"\x90", bytes(3 * PROGRESS_BYTES))
    for byte in stream[: PROGRESS_BYTES - 1]:
        reader.feed(bytes([byte]))
    assert reader.progress == 0
    assert not reader.idle
    reader.feed(stream[PROGRESS_BYTES - 1 : PROGRESS_BYTES])
    assert reader.progress == 1
    (frame,) = reader.feed(stream[PROGRESS_BYTES:])
    assert frame.body.nbytes == 3 * PROGRESS_BYTES
    assert reader.progress >= 2
    assert reader.idle


def test_large_heads_are_announced_when_they_begin() -> None:
    reader, announced = FrameReader(1 << 20, 0), list[int]()
    reader.on_large_head = announced.append
    large = wire(b"x" * (SCRATCH_BYTES + 1))
    reader.feed(wire(b"x" * 1000) + large[:100])
    assert announced == [SCRATCH_BYTES + 1 + CHECK_BYTES]
    assert len(reader.feed(large[100:])) == 1
    assert len(announced) == 1
