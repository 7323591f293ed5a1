from __future__ import annotations

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.multicast.datagrams import HEADER, KEY_BYTES, NAME_BYTES, OVERHEAD, Layout, Stream

KEY, DIGEST = bytes(range(KEY_BYTES)), b"d" * 16


def sealed(stream: Stream, row: int, piece: int, content: bytes) -> bytes:
    out = bytearray(OVERHEAD + len(content))
    stream.seal(row, piece, memoryview(content), memoryview(out))
    return bytes(out)


def opened(stream: Stream, datagram: bytes) -> bytes | None:
    out = bytearray(len(datagram) - OVERHEAD)
    return bytes(out) if stream.open(memoryview(datagram), memoryview(out)) else None


def test_datagrams_are_decrypted_with_the_same_key() -> None:
    datagram = sealed(Stream.of_round(KEY, 1, DIGEST, 2), 3, 4, b"content")
    stream = Stream.of_round(KEY, 1, DIGEST, 2)
    assert HEADER.unpack_from(datagram) == (stream.name, 3, 4)
    assert b"content" not in datagram
    assert opened(stream, datagram) == b"content"


def test_every_bit_counts() -> None:
    stream = Stream.of_round(KEY, 1, DIGEST, 2)
    datagram = sealed(stream, 3, 4, b"content")
    for i in range(8 * NAME_BYTES, 8 * len(datagram)):
        changed = bytearray(datagram)
        changed[i // 8] ^= 1 << i % 8
        assert opened(stream, bytes(changed)) is None


def test_run_plan_digest_round_and_probe_have_streams_of_their_own() -> None:
    streams = [
        Stream.of_round(KEY, 1, DIGEST, 2),
        Stream.of_round(bytes(KEY_BYTES), 1, DIGEST, 2),
        Stream.of_round(KEY, 2, DIGEST, 2),
        Stream.of_round(KEY, 1, b"e" * 16, 2),
        Stream.of_round(KEY, 1, DIGEST, 3),
        Stream.of_probe(KEY, DIGEST),
    ]
    assert len({stream.name for stream in streams}) == len(streams)
    datagram = sealed(streams[0], 0, 0, b"content")
    for stream in streams[1:]:
        assert opened(stream, stream.name + datagram[NAME_BYTES:]) is None


def test_a_key_has_its_size() -> None:
    with pytest.raises(UsageError, match="key must have 32 bytes, got 31"):
        Stream(KEY[1:], b"")


@pytest.mark.parametrize(
    ("layout", "ranges", "pieces"),
    [(Layout(10, 4, 3), 3, 5), (Layout(8, 4, 2), 2, 4), (Layout(1, 1, 1), 1, 1), (Layout(5, 9, 2), 1, 3)],
)
def test_ranges_and_pieces_cover_a_row(layout: Layout, ranges: int, pieces: int) -> None:
    assert (layout.ranges, layout.pieces) == (ranges, pieces)
    starts, stops = layout.places
    covered: list[int] = []
    for index in range(ranges):
        begin, end = layout.span(index)
        first, after = layout.pieces_of(index)
        for piece in range(first, after):
            assert piece // layout.pieces_per_range == index
            assert 0 < stops[piece] - starts[piece] <= layout.piece_bytes
            covered += range(begin + starts[piece], begin + stops[piece])
        assert stops[after - 1] == end - begin
    assert covered == list(range(layout.row_bytes))


def test_a_layout_without_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="piece_bytes must be at least 1, got 0"):
        Layout(1, 1, 0)
