"""Compression of updates: each update travels as its rounded difference from an estimate of it.

Everybody that takes steps keeps an estimate of the update of every partition, which begins at 0 and to which
every difference that travels is added. As training converges, updates and with them their differences settle,
and the errors of rounding vanish with the differences: training ends at the optimum, not near it.

Codes combine the compressed vectors and decode them exactly, so all workers have the same estimates, bit for
bit, and take the same steps. A new plan begins with estimates of 0 at all workers.

Differences: Richtárik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically
Faster Error Feedback", NeurIPS 2021; stochastic rounding to blocks of 8 bits: Alistarh, Grubic, Li, Tomioka,
Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes, Vectors

# Numbers of the 8-bit format that share a scale. The scale, 4 bytes, adds 0.4 % to their size.
BLOCK = 1024


class Compression(ABC):
    """A format in which a vector of numbers travels."""

    summary: ClassVar[str]

    @abstractmethod
    def size(self, d: int) -> int:
        """The number of bytes for a vector of `d` numbers."""

    @abstractmethod
    def pack(self, v: NDArray[np.float32], draw: np.random.Generator) -> Bytes:
        """The bytes of a vector (d,). The same state of `draw` gives the same bytes."""

    @abstractmethod
    def unpack(self, packed: Bytes, d: int) -> NDArray[np.float32]:
        """The vector (d,) that these bytes represent."""


class Float16(Compression):
    """IEEE half precision, rounded to nearest: 11 bits, times a power of two that suits the vector."""

    summary = "half precision, 2 bytes a number"

    def size(self, d: int) -> int:
        """2·d, and 1 for the exponent of the power of two."""
        return 2 * d + 1

    def pack(self, v: NDArray[np.float32], draw: np.random.Generator) -> Bytes:
        """The exponent, and the scaled numbers rounded to nearest, as bytes."""
        largest = np.abs(v).max()
        # A scaled number is below 2**14, so that rounding cannot reach infinity. Numbers that are not finite
        # stay so, and exponents of float32 fit in 8 bits.
        exponent = int(np.frexp(largest)[1]) - 14 if 0.0 < largest < np.inf else 0
        exponent = max(exponent, -126)
        scaled = np.ldexp(v, -exponent)
        with np.errstate(over="ignore"):
            numbers = scaled.astype("<f2").view(np.uint8)
        return np.concatenate([np.array([exponent], np.int8).view(np.uint8), numbers])

    def unpack(self, packed: Bytes, d: int) -> NDArray[np.float32]:
        """Exact."""
        exponent = int(packed[:1].view(np.int8)[0])
        scaled: NDArray[np.float32] = np.ldexp(packed[1:].copy().view("<f2").astype(np.float32), exponent)
        return scaled


class BFloat16(Compression):
    """The upper half of a float32, rounded to nearest: 8 bits, with the range of float32."""

    summary = "the upper half of float32, 2 bytes a number"

    def size(self, d: int) -> int:
        """2·d."""
        return 2 * d

    def pack(self, v: NDArray[np.float32], draw: np.random.Generator) -> Bytes:
        """The numbers rounded to nearest, ties to even, as bytes."""
        bits = v.view(np.uint32)
        rounded = bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))
        upper = np.where(np.isfinite(v), rounded, bits) >> np.uint32(16)
        return upper.astype("<u2").view(np.uint8)

    def unpack(self, packed: Bytes, d: int) -> NDArray[np.float32]:
        """Exact."""
        return (packed.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


class Int8(Compression):
    """Integers from -127 to 127, rounded up or down at random, times a scale for each 1,024 numbers.

    The rounding is unbiased: its error has mean 0.
    """

    summary = "8 bits, rounded at random, 1.004 bytes a number"

    def size(self, d: int) -> int:
        """`d`, plus 4 for each block."""
        return d + 4 * -(-d // BLOCK)

    def pack(self, v: NDArray[np.float32], draw: np.random.Generator) -> Bytes:
        """Add a random number from [0, 1) to each scaled number, and round down."""
        d = len(v)
        blocks = np.zeros((-(-d // BLOCK), BLOCK), np.float32)
        blocks.reshape(-1)[:d] = v
        scales = np.abs(blocks).max(axis=1) / np.float32(127)
        # An update that is not finite has a scale that is not finite, so that unpacking shows it.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            blocks /= np.where(scales > 0, scales, np.float32(1))[:, None]
            blocks += draw.random(blocks.shape, np.float32)
            np.floor(blocks, out=blocks)
            whole = np.nan_to_num(np.clip(blocks, -127, 127, out=blocks)).astype(np.int8)
        return np.concatenate([scales.astype("<f4").view(np.uint8), whole.reshape(-1)[:d].view(np.uint8)])

    def unpack(self, packed: Bytes, d: int) -> NDArray[np.float32]:
        """Integer times scale, rounded to float32."""
        scales, whole = packed[:-d].copy().view("<f4"), packed[-d:].view(np.int8)
        with np.errstate(invalid="ignore"):
            unpacked: NDArray[np.float32] = whole * np.repeat(scales, BLOCK)[:d]
        return unpacked


COMPRESSIONS: Mapping[str, Compression | None] = MappingProxyType(
    {"none": None, "float16": Float16(), "bfloat16": BFloat16(), "int8": Int8()}
)


class Wire:
    """The format of the updates of a run as they travel: numbers of the run's dtype, or compressed.

    Parameters
    ----------
    compression : str
        A name in `COMPRESSIONS`.
    d : int
        Numbers per update.
    dtype : numpy dtype
        The dtype of the run.

    Attributes
    ----------
    length : int
        The number of items of an update as it travels.
    dtype : numpy dtype
        The type of these items: the run's dtype, or uint8 if updates are compressed.
    """

    def __init__(self, compression: str, d: int, dtype: np.dtype[np.floating[Any]]) -> None:
        self.compression = COMPRESSIONS[compression]
        self._d, self._dtype = d, dtype
        self.length = d if self.compression is None else self.compression.size(d)
        self.dtype: np.dtype[Any] = dtype if self.compression is None else np.dtype(np.uint8)

    def zeros(self, count: int) -> Vectors:
        """Vectors of zeros (count, d) in the run's dtype."""
        return np.zeros((count, self._d), self._dtype)

    def unpack(self, packed: NDArray[Any]) -> NDArray[Any]:
        """The update, or difference, (d,) of the run's dtype that travelled as `packed` (length,)."""
        if self.compression is None:
            return packed
        return self.compression.unpack(packed, self._d).astype(self._dtype, copy=False)


class Differences:
    """The estimates of the updates of all partitions, and the differences from them that travel.

    Parameters
    ----------
    wire : Wire
    partitions : int
        `N`.
    seed : int
        The seed of the run.
    """

    def __init__(self, wire: Wire, partitions: int, seed: int) -> None:
        self._wire = wire
        self._seed = seed
        self._estimates = wire.zeros(partitions)

    def pack(self, n: int, update: Vectors, step: int, out: Bytes) -> None:
        """Pack the difference of the update (d,) of partition `n` from its estimate into `out`, (length,)."""
        compression = self._wire.compression
        assert compression is not None
        draw = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(n, step)))
        difference = update - self._estimates[n]
        out[:] = compression.pack(difference.astype(np.float32, copy=False), draw)

    def add(self, n: int, packed: Bytes) -> Vectors:
        """The estimate (d,) of the update of partition `n`, after adding the difference that travelled.

        It is a view, which the next call for this partition changes.
        """
        self._estimates[n] += self._wire.unpack(packed)
        estimate: Vectors = self._estimates[n]
        return estimate
