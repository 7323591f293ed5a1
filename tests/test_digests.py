from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.digests import VECTOR_DIGEST_BYTES, combined_digest, digest


def test_the_digest_is_xxh3_of_the_bytes_in_memory() -> None:
    vector = np.array([1.0, -2.5], np.float32)
    assert digest(vector) == xxhash.xxh3_64(np.array([1.0, -2.5], "<f4").tobytes()).digest()
    # The known value of XXH3-64 for no bytes.
    assert digest(np.empty(0)).hex() == "2d06800538d394c2"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_digest_has_eight_bytes_and_does_not_depend_on_strides(dtype: Any) -> None:
    matrix: Any = np.arange(12).astype(dtype).reshape(3, 4)
    column = matrix[:, 1]
    assert len(digest(matrix)) == VECTOR_DIGEST_BYTES
    assert digest(column) == digest(column.copy())


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_flipped_bit_makes_another_digest(content: bytes, data: st.DataObject) -> None:
    vector = np.frombuffer(content, np.uint8)
    other = vector.copy()
    other[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(vector) != digest(other)


def test_a_combined_digest_depends_on_every_part_and_on_their_order() -> None:
    one, other = digest(np.zeros(1)), digest(np.ones(1))
    combined = {combined_digest(parts) for parts in ([], [one], [other], [one, other], [other, one])}
    assert len(combined) == 5
    assert {len(each) for each in combined} == {VECTOR_DIGEST_BYTES}
    assert combined_digest([one, other]) == xxhash.xxh3_64(one + other).digest()
