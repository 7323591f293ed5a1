from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import gf256
from asyncdmtl.plan.codes import codec
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.codes.matrices import ColumnDelivery


@given(st.integers(1, 3_000_000), st.sampled_from(["float32", "float64"]), st.integers(1, 300), st.booleans())
def test_ranges_cover_a_packet_in_whole_numbers(length: int, dtype: str, packets: int, grouped: bool) -> None:
    layout = VectorFormat.of(length, dtype, packets, grouped=grouped)
    ranges = layout.ranges
    assert (ranges[0].start, ranges[-1].stop) == (0, layout.packet_bytes)
    assert all(before.stop == after.start for before, after in itertools.pairwise(ranges))
    assert all(cols.start % layout.dtype.itemsize == 0 for cols in ranges)
    assert len(ranges) <= codec.MOST_RANGES
    assert all(cols.stop - cols.start >= codec.LEAST_RANGE for cols in ranges[:-1])


@pytest.mark.parametrize(
    ("packets", "alone", "grouped"), [(1, 32, 32), (3, 32, 32), (7, 4, 18), (19, 4, 7), (59, 3, 3)]
)
def test_more_packets_have_wider_ranges_but_for_a_group(packets: int, alone: int, grouped: int) -> None:
    assert len(VectorFormat.of(1_000_000, "float32", packets).ranges) == alone
    assert len(VectorFormat.of(1_000_000, "float32", packets, grouped=True).ranges) == grouped


@given(st.integers(1, 300_000), st.integers(1, 40), st.data())
def test_columns_are_reached_when_all_their_numbers_are(
    length: int, packets: int, data: st.DataObject
) -> None:
    layout = VectorFormat.of(length, "float32", packets)
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, min(length, start + 2_000)))
    size = 4 * data.draw(st.integers(0, layout.packet_bytes // 4))
    per_packet = layout.packet_bytes // 4
    there = all(number % per_packet < size // 4 for number in range(start, stop))
    assert layout.reaches(slice(start, stop), size) == there


def test_vectors_are_packed_and_padded_with_zeros() -> None:
    layout = VectorFormat.of(5, ">f4", 2)
    assert layout.dtype == np.dtype("<f4")
    assert (layout.packet_bytes, layout.padded_bytes) == (12, 24)
    vectors = np.arange(10, dtype=np.float32).reshape(2, 5)
    packed = layout.pack(vectors)
    assert packed.shape == (4, 12)
    assert np.array_equal(layout.vectors(packed), vectors)
    assert not packed.reshape(2, 24)[:, 20:].any()
    layout.vectors(packed)[0, 0] = 7
    assert packed[0, :4].view(np.float32)[0] == 7
    with pytest.raises(UsageError, match="length must be at least 1"):
        VectorFormat.of(0, "float32", 1)


def test_encoder_recombiner_and_decoder_undo_each_other() -> None:
    rng = np.random.default_rng(0)
    E = rng.integers(1, 256, (3, 3), dtype=np.uint8)
    packets = rng.integers(0, 256, (3, 16), dtype=np.uint8)
    rows = codec.Encoder(E, np.arange(3))(packets)
    D = rng.integers(1, 256, (2, 3), dtype=np.uint8)
    down = codec.Recombiner(D)(rows)
    decode = codec.Decoder(gf256.matmul(D, E), ColumnDelivery((0, 1), np.array([0, 2]), np.array([1])))
    assert np.array_equal(decode(down, packets[1:2]), packets[[0, 2]])
    assert np.array_equal(decode([down[0], down[1]], [packets[1]]), packets[[0, 2]])
    with pytest.raises(CodingError, match="1 rows cannot be solved for 2 packets"):
        codec.Decoder(D, ColumnDelivery((0,), np.array([0, 1]), np.array([2])))
