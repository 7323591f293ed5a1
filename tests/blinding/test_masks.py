from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from asyncdmtl.blinding.masks import ROOM, Masks, runs_of

KEY = bytes(range(32))


def stream(units: list[int], size: int, count: int = 300) -> Any:
    """The masks of some vectors, (vectors, size)."""
    out = np.zeros(len(units) * size + ROOM, np.uint8)
    Masks(KEY, size, count).apply(runs_of(units), np.zeros(len(units) * size, np.uint8), out)
    assert not out[len(units) * size :].any()
    return out[: len(units) * size].reshape(len(units), size)


@pytest.mark.parametrize("size", [1, 16, 41, 500])
def test_masks_are_pieces_of_one_stream_of_aes_in_counter_mode(size: int) -> None:
    # Block i of the key stream is the encrypted number i.
    numbers = b"".join(i.to_bytes(16, "big") for i in range(size * 300 // 16 + 1))
    whole = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor().update(numbers)
    for units in ([0, 1, 2, 3], [5, 7, 8, 299], [3, 2], []):
        for unit, made in zip(units, stream(units, size), strict=True):
            assert made.tobytes() == whole[unit * size : (unit + 1) * size]


@pytest.mark.parametrize(("size", "count"), [(33, 5), (64, 5), (20_000, 5)])
def test_a_mask_is_taken_off_by_the_same_operation_also_in_place(size: int, count: int) -> None:
    runs, masks = runs_of([0, 1, 4]), Masks(KEY, size, count)
    vectors = np.random.default_rng(0).integers(0, 256, (3, size), np.uint8)
    out = np.zeros(3 * size + ROOM, np.uint8)
    masks.apply(runs, vectors.reshape(-1), out)
    assert (out[: 3 * size].reshape(3, size) == vectors ^ stream([0, 1, 4], size)).all()
    masks.apply(runs, out[: 3 * size], out)
    assert (out[: 3 * size].reshape(3, size) == vectors).all()


def test_vectors_that_follow_each_other_are_masked_at_a_time() -> None:
    assert runs_of([2, 3, 4, 7, 8, 1]) == ((2, 3), (7, 2), (1, 1))
    assert runs_of([0]) == ((0, 1),)
    assert runs_of([]) == ()
