from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.digests import UNKEYED, VECTOR_DIGEST_BYTES, Digest, draws

digest = Digest("7f3a")


def test_the_digest_is_keyed_blake3_of_the_bytes_in_memory() -> None:
    vector = np.array([1.0, -2.5], np.float32)
    key = blake3(b"7f3a", derive_key_context="asyncdmtl: digests of the vectors and states of a run").digest()
    expected = blake3(np.array([1.0, -2.5], "<f4").tobytes(), key=key).digest(length=16)
    assert digest(vector) == expected


def test_each_run_has_its_own_digests() -> None:
    vector = np.ones(3)
    assert Digest("7f3a")(vector) == digest(vector)
    assert len({Digest("7f3b")(vector), UNKEYED(vector), digest(vector)}) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_digest_has_its_length_and_does_not_depend_on_strides(dtype: Any) -> None:
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
    combined = {digest.combined(parts) for parts in ([], [one], [other], [one, other], [other, one])}
    assert len(combined) == 5
    assert {len(each) for each in combined} == {VECTOR_DIGEST_BYTES}
    assert digest.combined([one, other]) == digest(np.frombuffer(one + other, np.uint8))


def test_draws_depend_on_key_and_number_alone() -> None:
    assert draws(b"a", 3) == draws(b"a", 5)[:3]
    assert draws(b"a", 3) != draws(b"b", 3)
    assert all(0 <= drawn < 2**64 for drawn in draws(b"a", 100))
    inner = hashlib.blake2b(b"a", digest_size=32).digest()
    expected = hashlib.blake2b((2).to_bytes(8, "little"), key=inner).digest()[:8]
    assert draws(b"a", 3)[2] == int.from_bytes(expected, "little")
