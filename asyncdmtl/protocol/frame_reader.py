"""The reader that turns received bytes into frames.

Lengths are checked before memory is allocated, and large bodies are received directly into their final
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CorruptionError, RemoteProtocolError
from asyncdmtl.protocol.framing import (
    CHECK_BYTES,
    CHUNK_BYTES,
    Buffer,
    NoPrefixError,
    bin_header,
    head_check,
    unpack_prefix,
)

# Bytes of the buffer for heads and short bodies. If at least as many bytes of a body are missing, they are
# received directly into the body. The kernel rarely has more than this for one read.
SCRATCH_BYTES = 1 << 16

# Bytes of an unfinished frame that count as progress of the peer. So a peer cannot stay connected by sending
# single bytes.
PROGRESS_BYTES = 1 << 14

# The first two bytes of a TLS handshake. No check of lengths follows them.
_TLS_HANDSHAKE = b"\x16\x03"


@dataclass(frozen=True)
class Frame:
    """One received frame.

    Attributes
    ----------
    head : bytes
        The head, without its check.
    body : uint8 array (payload bytes,)
    size : int
        All bytes of the frame on the wire.
    """

    head: bytes
    body: Bytes
    size: int


class FrameReader:
    """Turns received bytes into frames.

    Bytes come through `get_buffer` and `buffer_updated`, as in asyncio's buffered protocols, or through
    `feed`. After an error, the reader stays failed.

    Attributes
    ----------
    head_limit, body_limit : int
        The most bytes of a head and of a body. A frame that announces more raises RemoteProtocolError before
        memory is allocated. A new limit applies from the next frame on.
    progress : int
        A counter that grows with each frame, and with each `PROGRESS_BYTES` of a long one.
    on_large_head : callable or None
        Called with the length of a head of more than `SCRATCH_BYTES` bytes when it begins to arrive.
    """

    def __init__(self, head_limit: int, body_limit: int) -> None:
        self.head_limit = head_limit
        self.body_limit = body_limit
        self.progress = 0
        self.on_large_head: Callable[[int], None] | None = None
        self._unreported = 0
        self._scratch = _Scratch()
        self._frame: _PartialFrame | None = None
        self._failure: str | None = None

    @property
    def idle(self) -> bool:
        """True between frames: all received bytes have been handed out."""
        return self._frame is None and not self._scratch.waiting

    def get_buffer(self) -> memoryview:
        """The buffer for the next received bytes; never empty."""
        direct = self._direct()
        return self._scratch.room() if direct is None else direct

    def buffer_updated(self, count: int) -> list[Frame]:
        """Process `count` bytes in the buffer from `get_buffer`; return the frames that they complete.

        Raises
        ------
        RemoteProtocolError
            The bytes are no frames, or announce more than is permitted.
        CorruptionError
            A check does not match.
        """
        if self._failure is not None:
            raise RemoteProtocolError(self._failure)
        try:
            if self._frame is not None and self._direct() is not None:
                self._frame.received(count)
            else:
                self._scratch.end += count
            frames = list(self._frames())
        except RemoteProtocolError as error:
            self._failure = str(error)
            raise
        self._unreported += count
        if frames or self._unreported >= PROGRESS_BYTES:
            self.progress, self._unreported = self.progress + 1, 0
        return frames

    def feed(self, data: Buffer) -> list[Frame]:
        """Process `data` of any length; return the frames that it completes. Raises as `buffer_updated`."""
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
        """The memory of the body for the next bytes, if enough bytes are missing to receive them directly."""
        if self._frame is None or self._scratch.waiting or self._frame.chunk_left < SCRATCH_BYTES:
            return None
        return self._frame.place()

    def _frames(self) -> Iterator[Frame]:
        """All frames that are complete."""
        while True:
            if self._frame is None:
                prefix = self._checked_prefix()
                if prefix is None:
                    return
                self._frame = _PartialFrame(*prefix)
            if not self._frame.fill(self._scratch):
                return
            yield self._frame.complete()
            self._frame = None

    def _checked_prefix(self) -> tuple[int, int, int] | None:
        """The lengths in a prefix and its bytes, once it is complete; its check and limits are verified."""
        try:
            prefix = unpack_prefix(self._scratch.peek())
        except NoPrefixError:
            start = bytes(self._scratch.peek()[:16])
            if start[: len(_TLS_HANDSHAKE)] == _TLS_HANDSHAKE:
                raise RemoteProtocolError("the peer speaks TLS, which is off here (--tls-cert)") from None
            raise CorruptionError(f"a frame begins with {start!r}, which does not match its check") from None
        if prefix is None:
            return None
        head_length, body_length, size = prefix
        self._scratch.take_some(size)
        if not CHECK_BYTES < head_length <= self.head_limit:
            raise RemoteProtocolError(
                f"frame announces a head of {head_length} bytes, "
                f"permitted are {CHECK_BYTES + 1} to {self.head_limit}"
            )
        if body_length > self.body_limit:
            raise RemoteProtocolError(
                f"frame announces a body of {body_length} bytes, permitted are at most {self.body_limit}"
            )
        if head_length > SCRATCH_BYTES and self.on_large_head is not None:
            self.on_large_head(head_length)
        return prefix


class _Scratch:
    """A reusable buffer for received bytes that do not belong to a body in progress."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(SCRATCH_BYTES))
        self._start = 0
        self.end = 0

    @property
    def waiting(self) -> int:
        """Count of bytes that were received and not taken."""
        return self.end - self._start

    def room(self) -> memoryview:
        """The free part of the buffer, for further bytes; never empty."""
        if self._start == self.end:
            self._start = self.end = 0
        elif self.end == SCRATCH_BYTES:
            left = self.waiting
            self._view[:left] = bytes(self._view[self._start : self.end])
            self._start, self.end = 0, left
        return self._view[self.end :]

    def peek(self) -> memoryview:
        """The bytes that were received and not taken; valid until more are received."""
        return self._view[self._start : self.end]

    def take(self, count: int) -> bytes | None:
        """The next `count` bytes, or None while fewer have arrived."""
        return bytes(self.take_some(count)) if self.waiting >= count else None

    def take_some(self, most: int) -> memoryview:
        """The next bytes, at most `most` of them; valid until more are received."""
        count = min(most, self.waiting)
        self._start += count
        return self._view[self._start - count : self._start]


class _PartialFrame:
    """A frame that is being received. Memory for its head grows with the bytes that arrive."""

    def __init__(self, head_length: int, body_length: int, prefix_bytes: int) -> None:
        self.chunk_left = 0
        self._head_length = head_length
        self._received = bytearray()
        self._head = b""
        self._body = np.empty(body_length, dtype=np.uint8)
        self._filled = 0
        self._framing = prefix_bytes + head_length

    def place(self) -> memoryview:
        """The memory for the rest of the current chunk of the body."""
        return self._body.data[self._filled : self._filled + self.chunk_left]

    def received(self, count: int) -> None:
        """Note that `count` bytes were received directly into the body."""
        self._filled += count
        self.chunk_left -= count

    def fill(self, scratch: _Scratch) -> bool:
        """Take bytes of head and body from `scratch`; return whether the frame is complete."""
        return self._fill_head(scratch) and self._fill_body(scratch)

    def complete(self) -> Frame:
        """The frame, once it is complete."""
        return Frame(self._head, self._body, self._framing + self._body.nbytes)

    def _fill_head(self, scratch: _Scratch) -> bool:
        missing = self._head_length - len(self._received)
        if not missing:
            return True
        self._received += scratch.take_some(missing)
        if len(self._received) < self._head_length:
            return False
        # A head may be large, so that no more copies are made than one.
        received = memoryview(self._received)
        self._head = bytes(received[:-CHECK_BYTES])
        if head_check(self._head, self._body.nbytes) != received[-CHECK_BYTES:]:
            raise CorruptionError(f"a head of {self._head_length} bytes does not match its check")
        return True

    def _fill_body(self, scratch: _Scratch) -> bool:
        while self._filled < self._body.nbytes:
            if not self.chunk_left and not self._begin_chunk(scratch):
                return False
            found = scratch.take_some(self.chunk_left)
            if not found:
                return False
            self._body.data[self._filled : self._filled + len(found)] = found
            self.received(len(found))
        return True

    def _begin_chunk(self, scratch: _Scratch) -> bool:
        """Read the msgpack header of the next chunk; return whether it has arrived."""
        length = min(CHUNK_BYTES, self._body.nbytes - self._filled)
        expected = bin_header(length)
        header = scratch.take(len(expected))
        if header is None:
            return False
        if header != expected:
            raise RemoteProtocolError(f"body must go on with {length} bytes of msgpack binary")
        self._framing += len(expected)
        self.chunk_left = length
        return True
