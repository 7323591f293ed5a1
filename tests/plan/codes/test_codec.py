from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.plan.codes import codec
from asyncdmtl.plan.codes.codec import VectorFormat


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
