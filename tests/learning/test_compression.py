"""Compressed updates: the size of rounding errors, and that they are fed back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_quick_settings

from asyncdmtl.learning.compression import BLOCK, COMPRESSIONS, BFloat16, Compression, ErrorFeedback, Wire
from asyncdmtl.learning.training import train

NAMES = [name for name in COMPRESSIONS if name != "none"]
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 1.0}


def compression(name: str) -> Compression:
    found = COMPRESSIONS[name]
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 7, BLOCK, BLOCK + 1, 5 * BLOCK - 3])
def test_a_vector_comes_back_to_within_its_rounding(name: str, d: int) -> None:
    rng = np.random.default_rng(d)
    v = rng.standard_normal(d).astype(np.float32) * np.float32(1e-3)
    codec = compression(name)
    packed = codec.pack(v, np.random.default_rng(0))
    assert packed.dtype == np.uint8
    assert packed.shape == (codec.size(d),)
    back = codec.unpack(packed, d)
    assert back.dtype == np.float32
    unit = np.abs(v)
    if name == "int8":
        blocks = np.pad(np.abs(v), (0, -d % BLOCK)).reshape(-1, BLOCK).max(axis=1) / 127
        unit = np.repeat(blocks, BLOCK)[:d] * np.float32(1 + 1e-6)
    # Below the smallest normal number of half precision, rounding is absolute.
    assert (np.abs(back - v) <= ROUNDING[name] * unit + 2.0**-25).all()
    assert packed.tobytes() == codec.pack(v, np.random.default_rng(0)).tobytes()


def test_rounding_to_8_bits_changes_nothing_on_average() -> None:
    v = np.linspace(-1, 1, 500, dtype=np.float32)
    codec, draw = compression("int8"), np.random.default_rng(1)
    mean = np.mean([codec.unpack(codec.pack(v, draw), 500) for _ in range(2000)], axis=0)
    # The standard error is half of a unit, divided by the root of 2000.
    assert np.abs(mean - v).max() < 5 * 0.5 / 127 / np.sqrt(2000)


def test_bfloat16_rounds_ties_to_even_and_keeps_what_is_not_finite() -> None:
    v = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf, np.nan, 3.3895314e38], np.float32)
    back = BFloat16().unpack(BFloat16().pack(v, np.random.default_rng(0)), len(v))
    expected = np.array([1, 1 + 2**-6, np.inf, -np.inf, np.nan, 3.3895314e38], np.float32)
    assert np.array_equal(back, expected, equal_nan=True)


def test_what_is_too_large_for_half_precision_comes_later() -> None:
    wire = Wire("float16", 1, np.dtype(np.float64))
    feedback, total = ErrorFeedback(wire, (0,), 0), 0.0
    for step, sent in enumerate((100_000.0, 0.0, 0.0)):
        out = np.empty((1, 2), np.uint8)
        feedback.pack(np.array([[sent]]), step, out)
        total += float(wire.unpack(out[0])[0])
    assert total == 100_000.0


@pytest.mark.parametrize("name", NAMES)
def test_what_rounding_takes_off_is_added_to_the_next(name: str) -> None:
    wire = Wire(name, 3000, np.dtype(np.float32))
    feedback, rng = ErrorFeedback(wire, (4, 7), 0), np.random.default_rng(0)
    sent, travelled = np.zeros((2, 3000)), np.zeros((2, 3000))
    out = np.empty((2, wire.length), np.uint8)
    for step in range(30):
        updates = rng.standard_normal((2, 3000)).astype(np.float32)
        sent += updates
        feedback.pack(updates.copy(), step, out)
        travelled += np.stack([wire.unpack(row) for row in out])
    # After thirty updates, the sum is off by no more than one rounding error.
    assert np.abs(sent - travelled).max() < ROUNDING[name] * (4 / 127 * 1.5 if name == "int8" else 5)


def test_holders_of_other_partitions_pack_the_same() -> None:
    wire = Wire("int8", 50, np.dtype(np.float32))
    updates = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    one, other = ErrorFeedback(wire, (0, 1, 2), 5), ErrorFeedback(wire, (2,), 5)
    for step in range(3):
        a, b = np.empty((3, wire.length), np.uint8), np.empty((1, wire.length), np.uint8)
        one.pack(updates.copy(), step, a)
        other.pack(updates[2:].copy(), step, b)
        assert a[2].tobytes() == b[0].tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_on_compressed_updates_comes_near_the_optimum(name: str, dtype: str) -> None:
    partitions = make_partitions(6, "squared", features=5)

    def least(**changes: Any) -> float:
        return float(
            train(partitions, make_quick_settings(rounds=600, dtype=dtype, **changes)).objectives[-1]
        )

    exact, compressed = least(), least(compression=name, accelerated=False)
    assert compressed != exact
    assert abs(compressed - exact) < 0.02 * exact
