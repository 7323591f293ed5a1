"""Encoding and decoding with prepared matrices: bytes in, bytes out.

A vector of `d` numbers is padded with zeros and cut into `P` equal packets, which contain whole numbers.
Coding combines packets byte by byte over GF(2^8), so decoded vectors equal the originals bit for bit,
whatever their dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asyncdmtl.arrays import Bytes, Indices
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import gf256, linalg
from asyncdmtl.plan.codes.matrices import ColumnDelivery

# The most ranges of a packet. Each range costs the server and every worker a message or two, even if it is
# small.
MOST_RANGES = 32

# The fewest bytes of a range, except for the last one.
LEAST_RANGE = 32 << 10

# The fewest ranges of a packet if vectors have many packets, so that some ranges go down while others come
# up.
SOME_RANGES = 4

# A range has at least this many bytes times the square of the packets per vector: with more packets, there
# are usually more workers, and more rows in a message. Ranges of rows for a multicast group do not grow,
# because there the downlink takes about as long as the uplink, and waiting for a range costs most.
LEAST_SQUARE = 3 << 10


@dataclass(frozen=True)
class VectorFormat:
    """The layout of vectors of `length` numbers of `dtype` in packets of bytes.

    A block of `merged` vectors, side by side, is cut into `subpackets` packets. `grouped` is true if rows go
    to a multicast group of workers.
    """

    length: int
    dtype: np.dtype[np.generic]
    subpackets: int
    grouped: bool = False
    merged: int = 1

    @classmethod
    def of(
        cls, length: int, dtype: DTypeLike, subpackets: int, *, grouped: bool = False, merged: int = 1
    ) -> VectorFormat:
        """The format for vectors of `length` ≥ 1 numbers; the wire is little-endian."""
        if length < 1:
            raise UsageError("length", "must be at least 1", length)
        return cls(length, np.dtype(dtype).newbyteorder("<"), subpackets, grouped, merged)

    @property
    def packet_bytes(self) -> int:
        """Bytes of one packet; `subpackets` of them hold a block of vectors and their padding."""
        return self.padded_bytes * self.merged // self.subpackets

    @property
    def padded_bytes(self) -> int:
        """Bytes of one vector as it is coded, with padding so that a block is cut evenly."""
        step = self.subpackets // gcd(self.subpackets, self.merged)
        return -(-self.length // step) * step * self.dtype.itemsize

    @property
    def ranges(self) -> tuple[slice, ...]:
        """The bytes of a packet, cut into the ranges in which packets are coded and sent.

        Coding combines only bytes at the same place, so the server combines and sends one range while the
        next one arrives.
        """
        width = max(LEAST_RANGE, self._share(MOST_RANGES))
        if not self.grouped:
            width = max(width, min(LEAST_SQUARE * self.subpackets**2, self._share(SOME_RANGES)))
        starts = range(0, self.packet_bytes, width)
        return tuple(slice(start, min(start + width, self.packet_bytes)) for start in starts)

    def _share(self, count: int) -> int:
        """Bytes of a range if a packet is cut into `count` ranges, in whole cache lines."""
        return -(-self.packet_bytes // (64 * count)) * 64

    def reaches(self, cols: slice, size: int) -> bool:
        """Whether the first `size` bytes of every packet contain the numbers `cols` of every vector."""
        numbers, done = self.packet_bytes // self.dtype.itemsize, size // self.dtype.itemsize
        vector = self.padded_bytes // self.dtype.itemsize
        for start in range(0, vector * self.merged, vector):
            first, last = start + cols.start, start + cols.stop - 1
            # If the numbers lie in two packets, the first one is needed up to its end.
            needed = numbers if last // numbers > first // numbers else last % numbers + 1
            if done < needed:
                return False
        return True

    def allocate(self, vectors: int) -> Bytes:
        """Zeroed packets for vectors in whole blocks: a C-contiguous (packets, packet_bytes) array."""
        # np.zeros would take the memory only when a round first writes to it, and delay that round.
        return np.full((vectors * self.subpackets // self.merged, self.packet_bytes), 0, dtype=np.uint8)

    def vectors(self, packed: Bytes) -> NDArray[Any]:
        """The (vectors, length) view of packets as numbers; writing to it writes the packets."""
        whole = packed.reshape(-1, self.padded_bytes)
        return whole[:, : self.length * self.dtype.itemsize].view(self.dtype)

    def pack(self, vectors: NDArray[np.generic]) -> Bytes:
        """Packets that hold a copy of `vectors`, shape (vectors, length)."""
        packed = self.allocate(len(vectors))
        self.vectors(packed)[:] = vectors
        return packed


class Encoder:
    """The encoder of one worker: its rows of `E` times the packets at the columns `stored`."""

    def __init__(self, rows: Bytes, stored: Indices) -> None:
        self._product = gf256.Product(np.ascontiguousarray(rows[:, stored]))

    def __call__(self, stored: Bytes, out: Bytes | None = None) -> Bytes:
        """Encode the (|M_k|·P, packet_bytes) packets of the stored vectors, ascending, into R_k·P rows."""
        return self._product(stored, out)


class Decoder:
    """The decoder of one worker, which computes the packets it wants from received rows and known packets.

    `V_wanted = [G_w⁻¹ | G_w⁻¹·G_known] · [Y ; V_known]`, one product with a matrix that is made once per
    plan (docs/theory.md, section 4). Raises CodingError if `G_w` is singular.
    """

    def __init__(self, G: Bytes, delivery: ColumnDelivery) -> None:
        received = G[list(delivery.rows)]
        wanted = np.ascontiguousarray(received[:, delivery.wanted])
        known = np.ascontiguousarray(received[:, delivery.known])
        if wanted.shape[0] != wanted.shape[1]:
            raise CodingError(f"{wanted.shape[0]} rows cannot be solved for {wanted.shape[1]} packets")
        inverse = linalg.invert(wanted)
        self._product = gf256.Product(np.hstack([inverse, gf256.matmul(inverse, known)]))

    def __call__(
        self, rows: Bytes | Sequence[Bytes], known: Bytes | Sequence[Bytes], out: Bytes | None = None
    ) -> Bytes:
        """Decode the wanted packets from the received `rows` and the packets of the `known` vectors."""
        return self._product([*_blocks(rows), *_blocks(known)], out)


class Recombiner:
    """The recombiner of the server: the downlink matrix times the rows it received or computed."""

    def __init__(self, D: Bytes) -> None:
        self._product = gf256.Product(D)

    def __call__(self, rows: Sequence[Bytes] | Bytes, out: Bytes | None = None) -> Bytes:
        """Combine all uplink rows, in the order of the workers, into the downlink rows."""
        return self._product(rows, out)


def _blocks(rows: Bytes | Sequence[Bytes]) -> Sequence[Bytes]:
    """Rows as a sequence of arrays, each of one row or of several."""
    return (rows,) if isinstance(rows, np.ndarray) else rows
