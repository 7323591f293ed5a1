"""Encoding and decoding with prepared matrices: bytes in, bytes out.

A vector of `d` numbers is cut into `P` equal packets of whole numbers; what does not divide is padded
with zeros. Coding combines packets byte by byte over GF(2^8), so decoded vectors equal the originals
bit for bit, whatever their dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import gf256, linalg
from asyncdmtl.plan.codes.matrices import Delivery, packets

# A packet is coded and sent in ranges: so many at the most, of so many bytes at the least. Each costs every
# worker and the server a message or two, whatever its size; and the more packets to a vector, the more there
# are, as a rule, of workers and of rows in a message. So ranges are wider by the square of that, as long as
# there are some to send while others come. Not so where rows go to a group: there what goes down takes little
# longer than what comes up, and waiting counts most.
MOST_RANGES, LEAST_RANGE = 32, 32 << 10
SOME_RANGES, LEAST_SQUARE = 4, 3 << 10


@dataclass(frozen=True)
class VectorFormat:
    """How vectors of `length` numbers of `dtype` are laid out as `subpackets` packets of bytes.

    `grouped` says whether rows go to a group of workers.
    """

    length: int
    dtype: np.dtype[np.generic]
    subpackets: int
    grouped: bool = False

    @classmethod
    def of(cls, length: int, dtype: DTypeLike, subpackets: int, *, grouped: bool = False) -> VectorFormat:
        """The format for vectors of `length` ≥ 1 numbers; the wire is little-endian."""
        if length < 1:
            raise UsageError("length", "must be at least 1", length)
        return cls(length, np.dtype(dtype).newbyteorder("<"), subpackets, grouped)

    @property
    def packet_bytes(self) -> int:
        """Bytes of one packet; `subpackets` of them hold a vector and its padding."""
        return -(-self.length // self.subpackets) * self.dtype.itemsize

    @property
    def padded_bytes(self) -> int:
        """Bytes of one vector as it is coded: the unit of every load."""
        return self.packet_bytes * self.subpackets

    @property
    def ranges(self) -> tuple[slice, ...]:
        """The bytes of a packet, cut into the ranges in which packets are coded and sent.

        Coding combines bytes at the same place only, so one range can be combined and sent on while the next
        one comes.
        """
        width = max(LEAST_RANGE, self._share(MOST_RANGES))
        if not self.grouped:
            width = max(width, min(LEAST_SQUARE * self.subpackets**2, self._share(SOME_RANGES)))
        starts = range(0, self.packet_bytes, width)
        return tuple(slice(start, min(start + width, self.packet_bytes)) for start in starts)

    def _share(self, count: int) -> int:
        """Bytes of a packet cut into so many ranges, in whole cache lines."""
        return -(-self.packet_bytes // (64 * count)) * 64

    def reaches(self, cols: slice, size: int) -> bool:
        """Whether the first `size` bytes of every packet hold these numbers of a vector."""
        numbers, done = self.packet_bytes // self.dtype.itemsize, size // self.dtype.itemsize
        last: int = cols.stop - 1
        if last // numbers > cols.start // numbers:  # up to the end of a packet, and some of the next one
            return bool(done >= numbers)
        return bool(last % numbers < done)

    def allocate(self, vectors: int) -> Bytes:
        """Zeroed packets for so many vectors: a C-contiguous (vectors·P, packet_bytes) uint8 array."""
        # Not np.zeros: that takes the memory only when a round needs it, and keeps the round waiting.
        return np.full((vectors * self.subpackets, self.packet_bytes), 0, dtype=np.uint8)

    def vectors(self, packed: Bytes) -> NDArray[np.generic]:
        """The (vectors, length) view of packets as numbers; writing to it writes the packets."""
        whole = packed.reshape(-1, self.padded_bytes)
        return whole[:, : self.length * self.dtype.itemsize].view(self.dtype)

    def pack(self, vectors: NDArray[np.generic]) -> Bytes:
        """Packets that hold a copy of `vectors`, shape (vectors, length)."""
        packed = self.allocate(len(vectors))
        self.vectors(packed)[:] = vectors
        return packed


class Encoder:
    """One worker's coded uplink rows: its rows of `E` times the packets that it stores."""

    def __init__(self, rows: Bytes, stored: Sequence[int], subpackets: int) -> None:
        self._product = gf256.Product(np.ascontiguousarray(rows[:, packets(stored, subpackets)]))

    def __call__(self, stored: Bytes, out: Bytes | None = None) -> Bytes:
        """Encode the (|M_k|·P, packet_bytes) packets of the stored vectors, ascending, into R_k·P rows."""
        return self._product(stored, out)


class Decoder:
    """One worker's decoding of what it lacks from what it is sent and what it has.

    `V_wanted = [G_w⁻¹ | G_w⁻¹·G_known] · [Y ; V_known]`, one product with a matrix that is made once per
    plan (docs/theory.md, section 4). Raises CodingError if `G_w` is singular.
    """

    def __init__(self, G: Bytes, delivery: Delivery, subpackets: int) -> None:
        received = G[list(delivery.rows)]
        wanted = np.ascontiguousarray(received[:, packets(delivery.wanted, subpackets)])
        known = np.ascontiguousarray(received[:, packets(delivery.known, subpackets)])
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
    """The server's part: the downlink matrix times what it received or computed; nothing is decoded."""

    def __init__(self, D: Bytes) -> None:
        self._product = gf256.Product(D)

    def __call__(self, rows: Sequence[Bytes] | Bytes, out: Bytes | None = None) -> Bytes:
        """Combine all uplink rows, in the order of the workers, into the downlink rows."""
        return self._product(rows, out)


def _blocks(rows: Bytes | Sequence[Bytes]) -> Sequence[Bytes]:
    """Rows as a sequence of arrays, each of one or of several."""
    return (rows,) if isinstance(rows, np.ndarray) else rows
