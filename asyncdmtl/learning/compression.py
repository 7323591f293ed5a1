"""Compression of updates: numbers are rounded, and the rounding errors are added to the next updates.

Codes combine the compressed vectors and decode them exactly, so all workers take the step with the same
updates, bit for bit. All holders of a partition keep the same rounding errors of its updates (error
feedback). A new plan discards these errors at all holders.

Error feedback: Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient
Compression Schemes", ICML 2019; stochastic rounding to blocks of 8 bits: Alistarh, Grubic, Li, Tomioka,
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
    """IEEE half precision, rounded to nearest: 11 bits. The excess over 65504 is added to the next update."""

    summary = "half precision, 2 bytes a number"

    def size(self, d: int) -> int:
        """2·d."""
        return 2 * d

    def pack(self, v: NDArray[np.float32], draw: np.random.Generator) -> Bytes:
        """The numbers rounded to nearest, as bytes."""
        largest = float(np.finfo(np.float16).max)
        return np.clip(v, -largest, largest).astype("<f2").view(np.uint8)

    def unpack(self, packed: Bytes, d: int) -> NDArray[np.float32]:
        """Exact."""
        return packed.view("<f2").astype(np.float32)


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

    def unpack(self, packed: NDArray[Any]) -> NDArray[Any]:
        """The update (d,) of the run's dtype that travelled as `packed` (length,)."""
        if self.compression is None:
            return packed
        return self.compression.unpack(packed, self._d).astype(self._dtype, copy=False)


class ErrorFeedback:
    """Packs the updates of some partitions, and adds the rounding errors to their next updates.

    Parameters
    ----------
    wire : Wire
    partitions : sequence of int
        Indices of the partitions.
    seed : int
        The seed of the run.
    """

    def __init__(self, wire: Wire, partitions: tuple[int, ...], seed: int) -> None:
        self._wire = wire
        self._partitions = partitions
        self._seed = seed
        self._lost: list[Vectors] = []

    def pack(self, updates: Vectors, step: int, out: Bytes) -> None:
        """Pack the updates (len(partitions), d) of a step into `out`, (len(partitions), length).

        `updates` are overwritten.
        """
        compression = self._wire.compression
        assert compression is not None
        for i, n in enumerate(self._partitions):
            if len(self._lost) > i:
                updates[i] += self._lost[i]
            draw = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(n, step)))
            out[i] = compression.pack(updates[i].astype(np.float32, copy=False), draw)
            lost = updates[i] - self._wire.unpack(out[i])
            self._lost[i : i + 1] = [lost]
