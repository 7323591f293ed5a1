"""Compressed updates: the size of rounding errors, and that they vanish as training converges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_quick_settings

from asyncdmtl.learning.compression import BLOCK, COMPRESSIONS, BFloat16, Compression, Differences, Wire
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
    assert (np.abs(back - v) <= ROUNDING[name] * unit + 2.0**-37).all()
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


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 3e38])
def test_half_precision_suits_every_scale(scale: float) -> None:
    v = (np.array([1.0, -0.5, 1e-3]) * scale).astype(np.float32)
    back = compression("float16").unpack(compression("float16").pack(v, np.random.default_rng(0)), 3)
    assert np.abs(back - v).max() <= 2.0**-11 * scale
    broken = np.array([np.inf, 1.0, np.nan], np.float32)
    back = compression("float16").unpack(compression("float16").pack(broken, np.random.default_rng(0)), 3)
    assert np.isfinite(back).tolist() == [False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_estimates_come_to_updates_that_settle(name: str) -> None:
    wire = Wire(name, 3000, np.dtype(np.float64))
    differences = Differences(wire, 2, 0)
    update = np.random.default_rng(0).standard_normal(3000)
    out = np.empty(wire.length, np.uint8)
    errors = []
    for step in range(8):
        differences.pack(1, update, step, out)
        errors.append(float(np.abs(differences.add(1, out) - update).max()))
    assert errors[0] < 1.5 * ROUNDING[name] * (4 / 127 if name == "int8" else 4)
    assert errors[-1] < 1e-8
    assert not differences.add(0, np.zeros(wire.length, np.uint8)).any()


def test_holders_of_other_partitions_pack_the_same() -> None:
    wire = Wire("int8", 50, np.dtype(np.float32))
    updates = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    one, other = Differences(wire, 3, 5), Differences(wire, 3, 5)
    for step in range(3):
        a, b = np.empty((3, wire.length), np.uint8), np.empty(wire.length, np.uint8)
        for n in range(3):
            one.pack(n, updates[n], step, a[n])
        other.pack(2, updates[2], step, b)
        assert a[2].tobytes() == b.tobytes()
        for n in range(3):
            assert (one.add(n, a[n]) == other.add(n, a[n])).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compressed_training_ends_at_the_optimum_in_as_many_rounds(name: str, dtype: str) -> None:
    partitions = make_partitions(6, "squared", features=5)

    def trained(**changes: Any) -> tuple[int, float, bool]:
        settings = make_quick_settings(rounds=600, tolerance=1e-6, dtype=dtype, **changes)
        found = train(partitions, settings)
        return len(found.objectives), float(found.objectives[-1]), found.converged

    rounds, least, _ = trained()
    compressed_rounds, objective, converged = trained(compression=name)
    assert converged
    assert compressed_rounds <= 1.2 * rounds + 2
    assert objective == pytest.approx(least, rel=1e-6)
