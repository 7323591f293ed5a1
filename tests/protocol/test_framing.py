from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.errors import LocalProtocolError, RemoteProtocolError
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.framing import CHECK, PREFIX, SCRATCH, Frame, FrameReader, sealed


def wire(head: bytes, *bodies: bytes) -> bytes:
    rows = [np.frombuffer(body, np.uint8) for body in bodies]
    buffers, size = framing.encode(head, rows)
    joined = b"".join(map(bytes, buffers))
    assert len(joined) == size
    return joined


def read(data: bytes, step: int, body_limit: int = 1 << 20) -> list[Frame]:
    reader = FrameReader(1000, body_limit)
    return [frame for i in range(0, len(data), step) for frame in reader.feed(data[i : i + step])]


BODIES = [b"", b"x", bytes(range(255)), bytes(256), bytes(65535), bytes(65536), b"ab" * SCRATCH + b"c"]


@pytest.mark.parametrize("body", BODIES, ids=[str(len(body)) for body in BODIES])
@pytest.mark.parametrize("step", [1, 7, SCRATCH - 1, 1 << 20])
def test_frames_come_out_as_they_went_in(body: bytes, step: int) -> None:
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
    frames = reader.feed(first + second[:5])
    assert [frame.head for frame in frames] == [b"one"]
    assert not reader.idle
    frames = reader.feed(second[5:])
    assert [frame.head for frame in frames] == [b"two"]
    assert reader.idle


def test_rows_become_one_body() -> None:
    (frame,) = read(wire(b"h", b"abc", b"", b"de"), 4)
    assert frame.body.tobytes() == b"abcde"


def test_what_follows_the_lengths_is_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "CHUNK", 1000)
    head = msgpack.packb(["kind", 1])
    data = wire(head, b"a" * 700, b"b" * 1801)
    unpacker = msgpack.Unpacker(strict_map_key=True)
    unpacker.feed(data[PREFIX.size :])
    check = CHECK.unpack_from(data, PREFIX.size + len(head))[1]
    assert list(unpacker) == [["kind", 1], check, b"a" * 700 + b"b" * 300, b"b" * 1000, b"b" * 501]
    for step in (1, 999, 5000):
        (frame,) = read(data, step)
        assert frame.body.tobytes() == b"a" * 700 + b"b" * 1801
        assert frame.size == len(data)


def test_a_large_body_is_received_in_place() -> None:
    body = bytes(4 * SCRATCH)
    data = wire(b"h", body)
    reader = FrameReader(1000, len(body))
    reader.feed(data[: -3 * SCRATCH])
    buffer = reader.get_buffer()
    assert len(buffer) == 3 * SCRATCH
    buffer[:] = data[-3 * SCRATCH :]
    (frame,) = reader.buffer_updated(3 * SCRATCH)
    assert np.shares_memory(frame.body, np.frombuffer(buffer, np.uint8))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (PREFIX.pack(0, 0), "head of 0 bytes"),
        (PREFIX.pack(CHECK.size, 0), "head of 5 bytes"),
        (PREFIX.pack(1001, 0), "head of 1001 bytes"),
        (PREFIX.pack(2**32 - 1, 0), "head of 4294967295 bytes"),
        (PREFIX.pack(6, 2**64 - 1), "body of 18446744073709551615 bytes"),
        (PREFIX.pack(6, 101), "body of 101 bytes"),
        (sealed(b"h", 100) + b"\xc4\x63", "100 bytes of msgpack binary"),
        (sealed(b"h", 100) + b"\xa0\x64", "100 bytes of msgpack binary"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_lies_are_refused_before_anything_is_allocated(data: bytes, complaint: str, step: int) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        read(data, step, body_limit=100)


@pytest.mark.parametrize("step", [1, 1000])
def test_no_flipped_bit_of_lengths_or_head_goes_unnoticed(step: int) -> None:
    data = wire(b"some head", bytes(100))
    for place in range(8 * len(sealed(b"some head", 100))):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        # What follows completes a frame whose head was made longer.
        with pytest.raises(RemoteProtocolError):
            read(bytes(changed) + bytes(1000), step)


def test_a_failed_reader_stays_failed() -> None:
    reader = FrameReader(10, 0)
    with pytest.raises(RemoteProtocolError, match="head of 11 bytes"):
        reader.feed(PREFIX.pack(11, 0))
    with pytest.raises(RemoteProtocolError, match="head of 11 bytes"):
        reader.feed(wire(b"fine"))


def test_rows_must_be_contiguous_bytes() -> None:
    with pytest.raises(LocalProtocolError, match="contiguous"):
        framing.encode(b"h", [np.zeros(4, np.float32)])
    with pytest.raises(LocalProtocolError, match="contiguous"):
        framing.encode(b"h", [np.zeros((4, 4), np.uint8)[:, ::2]])


def test_progress_is_whole_frames_and_good_pieces_of_long_ones() -> None:
    reader = framing.FrameReader(1 << 10, 1 << 20)
    stream = b"".join(map(bytes, framing.encode(b"\x90", [np.zeros(3 * framing.PIECE, np.uint8)])[0]))
    for byte in stream[: framing.PIECE - 1]:
        reader.feed(bytes([byte]))
    assert reader.progress == 0
    assert not reader.idle
    reader.feed(stream[framing.PIECE - 1 : framing.PIECE])
    assert reader.progress == 1
    (frame,) = reader.feed(stream[framing.PIECE :])
    assert frame.body.nbytes == 3 * framing.PIECE
    assert reader.progress >= 2
    assert reader.idle
