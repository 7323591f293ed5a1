from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from asyncdmtl.blinding import masks
from asyncdmtl.blinding.masks import Masks, runs_of

KEYS = bytes(range(64))
PLACE = b"plan, round and state"


def stream(units: list[int], size: int, count: int = 300, place: bytes = PLACE) -> Any:
    """The masks of some vectors, (vectors, size)."""
    out = np.zeros(len(units) * size, np.uint8)
    made = Masks(KEYS, size, count)
    made.begin(place)
    made.apply(runs_of(units), np.zeros(len(units) * size, np.uint8), out)
    return out.reshape(len(units), size)


def test_masks_are_pieces_of_one_stream_of_aes_in_counter_mode() -> None:
    # Block i of the key stream is the encrypted sum of i and the number of the first block.
    first = int.from_bytes(blake3(PLACE, key=KEYS[32:]).digest(length=16), "big")
    for size in (1, 16, 41, 500):
        blocks = range(first, first + size * 300 // 16 + 1)
        numbers = b"".join((i % 2**128).to_bytes(16, "big") for i in blocks)
        whole = Cipher(algorithms.AES(KEYS[:32]), modes.ECB()).encryptor().update(numbers)
        for units in ([0, 1, 2, 3], [5, 7, 8, 299], [3, 2], []):
            for unit, made in zip(units, stream(units, size), strict=True):
                assert made.tobytes() == whole[unit * size : (unit + 1) * size]


@pytest.mark.parametrize("size", [41, 20_000])
def test_a_stream_goes_on_after_the_block_with_the_highest_number(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    class Highest:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def digest(self, length: int) -> bytes:
            return b"\xff" * length

    monkeypatch.setattr(masks, "blake3", Highest)
    numbers = b"".join(
        (i % 2**128).to_bytes(16, "big") for i in range(2**128 - 1, 2**128 + size * 5 // 16 + 1)
    )
    whole = Cipher(algorithms.AES(KEYS[:32]), modes.ECB()).encryptor().update(numbers)
    assert stream([0, 3], size, 5).tobytes() == whole[:size] + whole[3 * size : 4 * size]


@pytest.mark.parametrize("size", [33, 20_000])
def test_rounds_have_other_streams_and_the_same_one_again_for_the_same_place(size: int) -> None:
    made, out = Masks(KEYS, size, 5), []
    for place in (PLACE, b"another", PLACE):
        made.begin(place)
        out.append(np.zeros(size, np.uint8))
        made.apply(((3, 1),), out[-1], out[-1])
    assert (out[0] == out[2]).all()
    assert (out[0] == out[1]).mean() < 0.2


@pytest.mark.parametrize(("size", "count"), [(33, 5), (64, 5), (20_000, 5)])
def test_a_mask_is_taken_off_by_the_same_operation_also_in_place(size: int, count: int) -> None:
    runs, made = runs_of([0, 1, 4]), Masks(KEYS, size, count)
    vectors = np.random.default_rng(0).integers(0, 256, (3, size), np.uint8)
    out = np.zeros_like(vectors)
    made.begin(PLACE)
    made.apply(runs, vectors.reshape(-1), out.reshape(-1))
    assert (out == vectors ^ stream([0, 1, 4], size)).all()
    made.apply(runs, out.reshape(-1), out.reshape(-1))
    assert (out == vectors).all()


def test_vectors_that_follow_each_other_are_masked_at_a_time() -> None:
    assert runs_of([2, 3, 4, 7, 8, 1]) == ((2, 3), (7, 2), (1, 1))
    assert runs_of([0]) == ((0, 1),)
    assert runs_of([]) == ()
