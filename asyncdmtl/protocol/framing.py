"""Frames: a length-prefixed msgpack head, and a body of coded bytes as msgpack binary.

::

    head length  u32, big-endian: bytes of the head and its check
    body length  u64, big-endian: bytes of payload, msgpack headers not counted
    check        u32, big-endian: CRC-32 of the lengths
    head         one msgpack array
    check        CRC-32 of all before it, as a msgpack uint 32
    body         msgpack bin objects of CHUNK bytes each, the last one shorter; none if the length is 0

What follows the lengths and their check is a valid stream of msgpack objects. Both lengths are checked
against limits before anything is allocated, and a large body is received straight into the array that holds
it. The checks find bytes that were corrupted on their way, which TCP's own lets through now and then; what is
in bodies has digests.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CorruptionError, LocalProtocolError, RemoteProtocolError

Buffer = bytes | memoryview

LENGTHS = struct.Struct(">IQ")
CHECK = struct.Struct(">BI")
UINT_32 = 0xCE
CHUNK = 1 << 30
SCRATCH = 1 << 16

# Bytes of a frame that are a sign of life before the rest of it is there.
PIECE = 1 << 14

# The first two bytes of all that speak TLS; no head is so long.
TLS_HANDSHAKE = b"\x16\x03"


class PREFIX:
    """How a frame begins: its two lengths, and their check."""

    size = LENGTHS.size + 4

    @staticmethod
    def pack(head_length: int, body_length: int) -> bytes:
        """The first bytes of a frame with these lengths."""
        lengths = LENGTHS.pack(head_length, body_length)
        return lengths + zlib.crc32(lengths).to_bytes(4, "big")

    @staticmethod
    def unpack_from(data: Buffer, start: int = 0) -> tuple[int, int]:
        """The lengths at a place in `data`, whatever their check says."""
        head_length, body_length = LENGTHS.unpack_from(data, start)
        return head_length, body_length


@dataclass(frozen=True)
class Frame:
    """One received frame; `size` is all its bytes on the wire, body and framing."""

    head: bytes
    body: Bytes
    size: int


def bin_header(length: int) -> bytes:
    """The msgpack header of `length` bytes of binary (format family bin, in its shortest form)."""
    if length < 1 << 8:
        return struct.pack(">BB", 0xC4, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xC5, length)
    return struct.pack(">BI", 0xC6, length)


def chunk_lengths(length: int) -> Iterator[int]:
    """Lengths of the bin objects that carry a body of `length` bytes."""
    for start in range(0, length, CHUNK):
        yield min(CHUNK, length - start)


def sealed(head: bytes, body_length: int) -> bytes:
    """All of a frame but its body: lengths, head and check."""
    prefix = PREFIX.pack(len(head) + CHECK.size, body_length)
    return prefix + head + CHECK.pack(UINT_32, zlib.crc32(head, zlib.crc32(prefix)))


def encode(head: bytes, rows: Sequence[Bytes] = ()) -> tuple[list[Buffer], int]:
    """Buffers to write, in order, and their total size in bytes.

    `rows` are C-contiguous uint8 arrays whose concatenation is the body; they are not copied, so they
    must not change until the buffers are written.
    """
    if any(row.dtype != np.uint8 or not row.flags.c_contiguous for row in rows):
        raise LocalProtocolError("rows of a body must be C-contiguous uint8 arrays")
    length = sum(row.nbytes for row in rows)
    buffers: list[Buffer] = [sealed(head, length)]
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


class FrameReader:
    """Turns received bytes into frames, one buffer at a time.

    Give it bytes through `get_buffer` and `buffer_updated`, as asyncio's buffered protocols do, or through
    `feed`. After an error it stays failed.

    Attributes
    ----------
    head_limit, body_limit : int
        Bytes; a frame that announces more raises RemoteProtocolError before anything is allocated.
        They may be changed at any time and hold from the next frame on.
    progress : int
        Grows with each frame, and with each `PIECE` bytes of a long one; not with single bytes of one.
    """

    def __init__(self, head_limit: int, body_limit: int) -> None:
        self.head_limit = head_limit
        self.body_limit = body_limit
        self.progress = 0
        self._advanced = 0
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = 0
        self._end = 0
        self._lengths: tuple[int, int] | None = None
        self._head = bytearray()
        self._body = np.empty(0, dtype=np.uint8)
        self._body_filled = 0
        self._chunk_left = 0
        self._framing = 0
        self._failure: str | None = None

    @property
    def idle(self) -> bool:
        """True between frames: everything received so far has been handed out."""
        return self._lengths is None and self._start == self._end

    def get_buffer(self) -> memoryview:
        """Where the next received bytes belong; never empty."""
        direct = self._direct()
        if direct is not None:
            return direct
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == SCRATCH:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def buffer_updated(self, count: int) -> list[Frame]:
        """Take note of `count` bytes in the buffer given last; return the frames that they complete."""
        if self._failure is not None:
            raise RemoteProtocolError(self._failure)
        try:
            if self._direct() is not None:
                self._body_filled += count
                self._chunk_left -= count
            else:
                self._end += count
            frames = list(self._frames())
        except RemoteProtocolError as error:
            self._failure = str(error)
            raise
        self._advanced += count
        if frames or self._advanced >= PIECE:
            self.progress, self._advanced = self.progress + 1, 0
        return frames

    def feed(self, data: Buffer) -> list[Frame]:
        """Take in `data` of any length; return the frames that it completes."""
        frames = []
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            frames += self.buffer_updated(count)
            rest = rest[count:]
        return frames

    def _direct(self) -> memoryview | None:
        """The rest of a chunk of the body, if it is worth a read of its own."""
        if self._start == self._end and self._chunk_left >= SCRATCH:
            return self._body.data[self._body_filled : self._body_filled + self._chunk_left]
        return None

    def _frames(self) -> Iterator[Frame]:
        while (frame := self._next_frame()) is not None:
            yield frame

    def _next_frame(self) -> Frame | None:
        if self._lengths is None:
            prefix = self._take(PREFIX.size)
            if prefix is None:
                return None
            lengths = PREFIX.unpack_from(prefix)
            if prefix[:2] == TLS_HANDSHAKE:
                raise RemoteProtocolError("the peer speaks TLS, which is off here (--tls-cert)")
            if PREFIX.pack(*lengths) != prefix:
                raise CorruptionError(f"a frame begins with {prefix!r}, which does not match its check")
            self._check_lengths(*lengths)
            self._begin(*lengths)
        if not (self._fill_head() and self._fill_body()):
            return None
        frame = Frame(bytes(self._head[: -CHECK.size]), self._body, self._framing + self._body.nbytes)
        self._lengths = None
        return frame

    def _check_lengths(self, head_length: int, body_length: int) -> None:
        if not CHECK.size < head_length <= self.head_limit:
            raise RemoteProtocolError(
                f"frame announces a head of {head_length} bytes, "
                f"permitted are {CHECK.size + 1} to {self.head_limit}"
            )
        if body_length > self.body_limit:
            raise RemoteProtocolError(
                f"frame announces a body of {body_length} bytes, permitted are at most {self.body_limit}"
            )

    def _begin(self, head_length: int, body_length: int) -> None:
        self._lengths = head_length, body_length
        self._head = bytearray()
        self._body = np.empty(body_length, dtype=np.uint8)
        self._body_filled = 0
        self._chunk_left = 0
        self._framing = PREFIX.size + head_length

    def _fill_head(self) -> bool:
        # The head grows with what arrives: an announcement alone costs no memory.
        assert self._lengths is not None
        lacking = self._lengths[0] - len(self._head)
        if not lacking:
            return True
        count = min(lacking, self._end - self._start)
        self._head += self._view[self._start : self._start + count]
        self._start += count
        if count == lacking:
            self._check_head(*self._lengths)
        return count == lacking

    def _check_head(self, head_length: int, body_length: int) -> None:
        if sealed(bytes(self._head[: -CHECK.size]), body_length)[PREFIX.size :] != self._head:
            raise CorruptionError(f"a head of {head_length} bytes does not match its check")

    def _fill_body(self) -> bool:
        while self._body_filled < self._body.nbytes:
            if not self._chunk_left:
                length = min(CHUNK, self._body.nbytes - self._body_filled)
                expected = bin_header(length)
                header = self._take(len(expected))
                if header is None:
                    return False
                if header != expected:
                    raise RemoteProtocolError(f"body must go on with {length} bytes of msgpack binary")
                self._framing += len(expected)
                self._chunk_left = length
            count = min(self._chunk_left, self._end - self._start)
            if not count:
                return False
            target = self._body.data[self._body_filled : self._body_filled + count]
            target[:] = self._view[self._start : self._start + count]
            self._start += count
            self._body_filled += count
            self._chunk_left -= count
        return True

    def _take(self, count: int) -> bytes | None:
        """The next `count` received bytes, or None until that many are there."""
        if self._end - self._start < count:
            return None
        taken = bytes(self._view[self._start : self._start + count])
        self._start += count
        return taken
