"""The format of datagrams: coded rows are cut into pieces, numbered and encrypted.

All rows are cut into *ranges* at the same places, and a range of a row is cut into *pieces*, each of which
fits a datagram::

    name of the stream (6) | number of the row (2) | number of the piece (4) | encrypted piece | tag (16)

A *stream* is all datagrams of one round under one plan. Its name and its key are derived from the run's key,
which workers get over TCP, from the plan's number and digest, and from the round. Therefore a worker ignores
datagrams of earlier rounds. No two contents ever have the same 12 bytes of header under one key, so that the
header serves as the nonce (AES-GCM, 256 bits).

The rows that repair losses are numbered after the rows of the broadcast (asyncdmtl.plan.codes.repair).
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from functools import cached_property

from asyncdmtl.errors import UsageError

# The header of a datagram: name of the stream, number of the row, number of the piece.
HEADER = struct.Struct(">6sHI")

# Bytes of the name of a stream: a foreign datagram has the same name with probability 2^−48.
NAME_BYTES = 6

# Bytes of the AES-GCM tag, by which a forged datagram is detected.
TAG_BYTES = 16

# Bytes of the key of a run's datagrams, and of the key of a stream: that of AES-256.
KEY_BYTES = 32

# Bytes of a datagram besides the coded rows in it.
OVERHEAD = HEADER.size + TAG_BYTES

# The most rows of a round, repairs included: their number has two bytes in the header.
MAX_ROW_NUMBERS = 1 << 16

# The most pieces of a row: their number has four bytes in the header.
MAX_PIECE_NUMBERS = 1 << 32

# The format of the plan's number and the round, from which the key of a stream is derived.
_PLAN_AND_ROUND = struct.Struct(">QQ")


class Stream:
    """Name and cipher of the datagrams of one round.

    Parameters
    ----------
    key : bytes
        The run's key, `KEY_BYTES` long.
    context : bytes
        Different for each stream under the key.

    Attributes
    ----------
    name : bytes
        `NAME_BYTES` long.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise UsageError("key", f"must have {KEY_BYTES} bytes", len(key))
        # HMAC is a pseudorandom function (RFC 2104), so that the name reveals nothing about the cipher's key.
        derived = hmac.digest(key, b"asyncdmtl-group" + context, "sha512")
        self.name = derived[:NAME_BYTES]
        # Imported here, so that only runs with a group load the cipher.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._forged: type[Exception] = InvalidTag
        self._cipher = AESGCM(derived[NAME_BYTES : NAME_BYTES + KEY_BYTES])

    @classmethod
    def of_round(cls, key: bytes, plan: int, digest: bytes, round_: int) -> Stream:
        """The stream of a round under a plan."""
        return cls(key, b"round" + _PLAN_AND_ROUND.pack(plan, round_) + digest)

    @classmethod
    def of_probe(cls, key: bytes, nonce: bytes) -> Stream:
        """The stream of a probe, by which a worker finds out whether it receives datagrams of the group."""
        return cls(key, b"probe" + nonce)

    def seal(self, row: int, piece: int, content: memoryview, out: memoryview) -> None:
        """Encrypt a piece of a row: write a datagram of `OVERHEAD + len(content)` bytes to `out`."""
        HEADER.pack_into(out, 0, self.name, row, piece)
        self._cipher.encrypt_into(out[: HEADER.size], content, None, out[HEADER.size :])

    def open(self, datagram: memoryview, out: memoryview) -> bool:
        """Decrypt a datagram of this stream into `out`; return whether it is genuine.

        `out` must be `OVERHEAD` bytes shorter than the datagram.
        """
        try:
            self._cipher.decrypt_into(datagram[: HEADER.size], datagram[HEADER.size :], None, out)
        except self._forged:
            return False
        return True


@dataclass(frozen=True)
class Layout:
    """How rows of `row_bytes` are cut into ranges of `range_bytes` and these into pieces of `piece_bytes`.

    The last piece of a range and the last range of a row may be shorter. Pieces are numbered along a row.
    """

    row_bytes: int
    range_bytes: int
    piece_bytes: int

    def __post_init__(self) -> None:
        for name in ("row_bytes", "range_bytes", "piece_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(name, "must be at least 1", getattr(self, name))

    @property
    def ranges(self) -> int:
        """Ranges of a row."""
        return -(-self.row_bytes // self.range_bytes)

    @property
    def pieces_per_range(self) -> int:
        """Pieces of every range, except that the last may have fewer."""
        return -(-self.range_bytes // self.piece_bytes)

    @property
    def pieces(self) -> int:
        """Pieces of a row."""
        return self.pieces_of(self.ranges - 1)[1]

    def span(self, index: int) -> tuple[int, int]:
        """The first byte of range `index` in a row, and the first byte after it."""
        start = index * self.range_bytes
        return start, min(start + self.range_bytes, self.row_bytes)

    def pieces_of(self, index: int) -> tuple[int, int]:
        """The first piece of range `index`, and the first after it."""
        start, stop = self.span(index)
        first = index * self.pieces_per_range
        return first, first + -(-(stop - start) // self.piece_bytes)

    @cached_property
    def places(self) -> tuple[list[int], list[int]]:
        """The first byte of each piece in its range of a row, and the first byte after it, as two lists."""
        starts: list[int] = []
        stops: list[int] = []
        for index in range(self.ranges):
            begin, end = self.span(index)
            found = range(0, end - begin, self.piece_bytes)
            starts += found
            stops += [*found[1:], end - begin]
        return starts, stops
