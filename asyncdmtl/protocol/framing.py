"""Frames: a length-prefixed msgpack head, and a body of coded bytes as msgpack binary.

::

    head length  bytes of the head and its check
    body length  bytes of payload, msgpack headers not counted
    check        CRC-16 of the lengths (CCITT, from 0), as a msgpack uint 16
    head         one msgpack array
    check        CRC-32 of all before it, as a msgpack uint 32
    body         msgpack bin objects of CHUNK_BYTES each, the last one shorter; none if the length is 0

The lengths are msgpack integers in their shortest form, so that a frame is a sequence of msgpack objects. The
checks detect bytes that were corrupted on the way, some of which TCP's checksum misses. The first one detects
wrong lengths before memory is taken for them, or bytes are awaited that never come; the second one covers all
before it. Bodies have digests of their own, which travel in heads.
"""

from __future__ import annotations

import struct
import zlib
from binascii import crc_hqx
from collections.abc import Iterator, Sequence

import msgpack
import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import LocalProtocolError

Buffer = bytes | memoryview

_HEAD_CHECK = struct.Struct(">BI")
_PREFIX_CHECK = struct.Struct(">BH")

# The first bytes of a msgpack uint 16 and uint 32 (format family uint), as which checks are written.
_UINT_16, _UINT_32 = 0xCD, 0xCE

# Bytes of a msgpack integer by its first byte, if that is not the integer itself.
_INTEGER_BYTES = {0xCC: 2, _UINT_16: 3, _UINT_32: 5, 0xCF: 9}

# Integers up to this one are one byte of msgpack (format family positive fixint).
_MOST_FIXED = 0x7F

# Bytes of the check at the end of a head.
CHECK_BYTES = _HEAD_CHECK.size

# Bytes of one msgpack bin object of a body: the format's own limit is 4 GiB, and many readers stop at 2 GiB.
CHUNK_BYTES = 1 << 30


class NoPrefixError(ValueError):
    """Bytes with which no frame begins."""


def pack_prefix(head_length: int, body_length: int) -> bytes:
    """The first bytes of a frame with these lengths."""
    lengths: bytes = msgpack.packb(head_length) + msgpack.packb(body_length)
    return lengths + _PREFIX_CHECK.pack(_UINT_16, crc_hqx(lengths, 0))


def unpack_prefix(data: Buffer) -> tuple[int, int, int] | None:
    """The lengths of head and body that `data` begins with, and the bytes of the prefix.

    None if the prefix is not complete.

    Raises
    ------
    NoPrefixError
        The bytes are no two lengths, or their check does not match.
    """
    start, lengths = 0, []
    for _ in range(2):
        if start >= len(data):
            return None
        first = data[start]
        size = 1 if first <= _MOST_FIXED else _INTEGER_BYTES.get(first, 0)
        if not size:
            raise NoPrefixError
        rest = data[start + 1 : start + size]
        lengths.append(int.from_bytes(rest, "big") if size > 1 else first)
        start += size
    end = start + _PREFIX_CHECK.size
    if len(data) < end:
        return None
    head_length, body_length = lengths
    # Lengths that are not in their shortest form are no less corrupted.
    if pack_prefix(head_length, body_length) != bytes(data[:end]):
        raise NoPrefixError
    return head_length, body_length, end


def frame_start(head: bytes, body_length: int) -> bytes:
    """The bytes of a frame before its body: prefix, head and the head's check."""
    prefix = pack_prefix(len(head) + CHECK_BYTES, body_length)
    return prefix + head + _check(head, prefix)


def head_check(head: bytes, body_length: int) -> bytes:
    """The check of a head, which covers the lengths before it, too."""
    return _check(head, pack_prefix(len(head) + CHECK_BYTES, body_length))


def _check(head: bytes, prefix: bytes) -> bytes:
    return _HEAD_CHECK.pack(_UINT_32, zlib.crc32(head, zlib.crc32(prefix)))


def bin_header(length: int) -> bytes:
    """The msgpack header of `length` bytes of binary (format family bin, in its shortest form)."""
    if length < 1 << 8:
        return struct.pack(">BB", 0xC4, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xC5, length)
    return struct.pack(">BI", 0xC6, length)


def chunk_lengths(length: int) -> Iterator[int]:
    """Lengths of the bin objects that carry a body of `length` bytes."""
    for start in range(0, length, CHUNK_BYTES):
        yield min(CHUNK_BYTES, length - start)


def encode_frame(head: bytes, rows: Sequence[Bytes] = ()) -> tuple[list[Buffer], int]:
    """The frame of a head and a body.

    Parameters
    ----------
    head : bytes
    rows : sequence of C-contiguous uint8 arrays
        The rows, whose concatenation is the body. They are not copied, and must not change until the buffers
        are written.

    Returns
    -------
    buffers : list of bytes or memoryview
        The buffers, to be written in this order.
    size : int
        Bytes of all buffers.

    Raises
    ------
    LocalProtocolError
        A row is not a C-contiguous uint8 array.
    """
    if any(row.dtype != np.uint8 or not row.flags.c_contiguous for row in rows):
        raise LocalProtocolError("rows of a body must be C-contiguous uint8 arrays")
    length = sum(row.nbytes for row in rows)
    buffers: list[Buffer] = [frame_start(head, length)]
    pending = [row.reshape(-1).data for row in reversed(rows) if row.nbytes]
    for chunk in chunk_lengths(length):
        buffers.append(bin_header(chunk))
        while chunk:
            view = pending.pop()
            if len(view) > chunk:
                pending.append(view[chunk:])
                view = view[:chunk]
            buffers.append(view)
            chunk -= len(view)
    return buffers, sum(map(len, buffers))
