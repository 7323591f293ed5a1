"""Mutations of the inputs of `fuzz_protocol`: bytes, frames and values of heads are changed at random."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from asyncdmtl.protocol import framing

# The most bytes of an input.
LONGEST = 250_000

# A container and a key or index in it.
Node = tuple[Any, Any]


def bomb(rng: random.Random) -> bytes:
    """A large head that repeats one small value, in lists of any length."""
    pieces = (
        *(msgpack.packb(value) for value in ODD if len(msgpack.packb(value)) < 20),
        *(b"\x81\xa1a\x90", b"\x92\xa2ab\x80", b"\xdd\x00\x03\x00\x00", rng.randbytes(rng.randrange(1, 12))),
    )
    piece: bytes = rng.choice(pieces)
    return b"b" + rng.choice((0, 1, 2, 15, 1000, 100_000, 199_999)).to_bytes(4, "big") + piece


def exploded(bomb: bytes, size: int) -> bytes:
    """The head of `size` bytes to which a small input expands."""
    times, piece = int.from_bytes(bomb[:4], "big") % (1 << 20), bomb[4:] or b"\xc0"
    if times:
        piece = b"\xdd" + times.to_bytes(4, "big") + piece * times
    count = max(1, (size - 6) // len(piece))
    return b"\x92\x03\xdd" + count.to_bytes(4, "big") + piece * count


def frames(stream: bytes) -> Iterator[bytes]:
    """Cut a stream into frames, by the lengths that they announce."""
    while stream:
        size = frame_size(stream) or len(stream)
        yield stream[:size]
        stream = stream[size:]


def frame_size(stream: bytes) -> int | None:
    """Bytes of the first frame of a stream, or None if they are not all there."""
    prefix = _prefix(stream)
    if prefix is None or sum(prefix) > len(stream):
        return None
    _, body, _ = prefix
    size = sum(prefix)
    size += sum(len(framing.bin_header(length)) for length in framing.chunk_lengths(body))
    return size if size <= len(stream) else None


def _parts(frame: bytes) -> tuple[bytes, int, bytes] | None:
    """Head, announced length of the body, and the bytes after the head; None if the head is not complete."""
    prefix = _prefix(frame)
    if prefix is None:
        return None
    length, body, start = prefix
    end = start + length
    if length <= framing.CHECK_BYTES or end > len(frame):
        return None
    return frame[start : end - framing.CHECK_BYTES], body, frame[end:]


def _prefix(data: bytes) -> tuple[int, int, int] | None:
    """The lengths of head and body that bytes begin with, and the bytes of the prefix, if it is one."""
    try:
        return framing.unpack_prefix(data)
    except framing.NoPrefixError:
        return None


class Mutator:
    """Mutates inputs; every choice comes from `rng`."""

    def __init__(self, rng: random.Random, seeds: list[bytes]) -> None:
        self._rng = rng
        self._strange = [
            *(frame for seed in seeds if seed[:1] == b"s" for frame in frames(seed[4 + seed[3] :])),
        ][:500]
        self._on_bytes: list[Callable[[bytes], bytes]] = [self._flip, self._cut, self._insert, self._repeat]
        self._on_frames: list[Callable[[list[bytes], int], list[bytes]]] = [
            *[self._bend_frame] * 6, self._lie, self._drop, self._double, self._swap, self._splice,
            self._break_frame,
        ]  # fmt: skip

    def __call__(self, data: bytes) -> bytes:
        """`data` with one to four changes."""
        for _ in range(self._rng.choice((1, 1, 1, 2, 3, 4))):
            data = self._once(data)[:LONGEST]
        return data

    def damaged(self, frame: bytes, how: str) -> bytes:
        """A frame with one change: "bend", "lie", "double" or "splice"."""
        damage = {"bend": self._bend_frame, "lie": self._lie, "double": self._double, "splice": self._splice}
        return b"".join(damage[how]([frame], 0))

    def _once(self, data: bytes) -> bytes:
        rng = self._rng
        if data[:1] == b"s" and len(data) > 4:
            start = 4 + data[3]
            header, stream = data[:start], data[start:]
            if rng.random() < 0.1:
                return b"s" + self._other_end(header) + stream
            cut = list(frames(stream))
            if not cut:
                return header + rng.choice(self._strange)
            return header + b"".join(rng.choice(self._on_frames)(cut, rng.randrange(len(cut))))
        start = 2 if data[:1] == b"v" else 1
        if rng.random() < 0.8:
            return data[:start] + self._bend(data[start:])
        return data[:start] + rng.choice(self._on_bytes)(data[start:])

    def _other_end(self, header: bytes) -> bytes:
        """Change the role, the delivery, or a move of this end."""
        changed = bytearray(header[1:])
        place = self._rng.randrange(len(changed) - 1)
        place += place >= 2  # the number of moves stays what it is
        changed[place] = self._rng.choice((0, 1, 2, 3, self._rng.randrange(256)))
        return bytes(changed)

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data or b"\0")
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        start, end = sorted(self._rng.randrange(len(data) + 1) for _ in range(2))
        return data[:start] if self._rng.random() < 0.5 else data[:start] + data[end:]

    def _insert(self, data: bytes) -> bytes:
        place = self._rng.randrange(len(data) + 1)
        return data[:place] + self._rng.randbytes(self._rng.choice((1, 2, 9, 300))) + data[place:]

    def _repeat(self, data: bytes) -> bytes:
        start = self._rng.randrange(len(data) + 1)
        return data + data[start : start + 200]

    def _bend_frame(self, cut: list[bytes], i: int) -> list[bytes]:
        """A frame whose head is wrong, but whose lengths and check are right."""
        parts = _parts(cut[i])
        if parts is None:
            return self._break_frame(cut, i)
        head, body, rest = parts
        bent = self._bend(head) if self._rng.random() < 0.8 else self._rng.choice(self._on_bytes)(head)
        cut[i] = framing.frame_start(bent, body) + rest
        return cut

    def _break_frame(self, cut: list[bytes], i: int) -> list[bytes]:
        cut[i] = self._rng.choice(self._on_bytes)(cut[i])
        return cut

    def _lie(self, cut: list[bytes], i: int) -> list[bytes]:
        """Change lengths, so that they do not fit the bytes that follow."""
        parts = _parts(cut[i])
        if parts is None:
            return cut
        head, body, rest = parts
        if self._rng.random() < 0.5:
            lie = self._rng.choice((0, body + 1, body - 1, 1 << self._rng.randrange(64), -1))
            cut[i] = framing.frame_start(head, lie % (1 << 64)) + rest
        else:
            length = len(head) + self._rng.choice((-1, 0, 1, 1 << self._rng.randrange(32), -len(head)))
            start = len(framing.pack_prefix(len(head) + framing.CHECK_BYTES, body))
            cut[i] = framing.pack_prefix(length % (1 << 32), body) + cut[i][start:]
        return cut

    def _drop(self, cut: list[bytes], i: int) -> list[bytes]:
        return cut[:i] + cut[i + 1 :]

    def _double(self, cut: list[bytes], i: int) -> list[bytes]:
        return cut[:i] + cut[i : i + 1] * self._rng.choice((1, 1, 20)) + cut[i:]

    def _swap(self, cut: list[bytes], i: int) -> list[bytes]:
        j = self._rng.randrange(len(cut))
        cut[i], cut[j] = cut[j], cut[i]
        return cut

    def _splice(self, cut: list[bytes], i: int) -> list[bytes]:
        """Insert a frame of another session, perhaps of the other role."""
        return [*cut[:i], self._rng.choice(self._strange), *cut[i + self._rng.randrange(2) :]]

    def _bend(self, packed: bytes) -> bytes:
        """A msgpack value with one change."""
        try:
            root = [msgpack.unpackb(packed, strict_map_key=False)]
            nodes = list(_nodes(root))
            container, key = self._rng.choice(nodes)
            container[key] = self._other(container[key])
            bent: bytes = msgpack.packb(root[0])
            return bent
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            return self._flip(packed)

    def _other(self, value: Any) -> Any:
        """A replacement for `value`, often similar to it."""
        rng = self._rng
        if rng.random() < 0.4:
            return rng.choice(ODD)
        if isinstance(value, bool | None):
            return rng.choice((None, True, False, 0, 1))
        if isinstance(value, int):
            return rng.choice((value + 1, value - 1, -value, 2 * value, 1 << rng.randrange(64), float(value)))
        if isinstance(value, float):
            return rng.choice((-value, value * 1e300, int(value) if math.isfinite(value) else 0, math.nan))
        if isinstance(value, str | bytes):
            return rng.choice((value[:-1], value[1:], 2 * value, _grown(value, 200)))
        if isinstance(value, list):
            again = value[: rng.randrange(len(value) + 1)]
            return rng.choice(
                (again, value + again, _grown(value, 50), value[::-1], [value], dict(enumerate(value)))
            )
        if isinstance(value, dict):
            some = dict(rng.sample(list(value.items()), rng.randrange(len(value) + 1)))
            return rng.choice((some, value | {"more": 1}, list(value.values()), value | {1: 2}))
        return rng.choice(ODD)


def _nodes(root: list[Any], most: int = 3000) -> Iterator[Node]:
    """All places in a value, as container and key, the outer ones first."""
    queue: list[Any] = [root]
    for container in queue:
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs)[:most]:
            yield container, key
            if isinstance(value, list | dict) and len(queue) < most:
                queue.append(value)


def _grown(value: Any, times: int) -> Any:
    """Repeat text, bytes or a list, but not so often that the fuzzer itself runs out of memory."""
    return value * min(times, max(1, LONGEST // (1 + len(msgpack.packb(value)))))


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 0.5, -1.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, 1e19),
    *("", "w0", "p0", "t0", 201 * "x", "\x1b]0;x", "\N{RIGHT-TO-LEFT OVERRIDE}"),
    *("1/0", "1e999999999", 5000 * "9"),
    *(b"", bytes(7), bytes(16), bytes(16), bytes(4096), b"\xff\xfe"),
    *([], [[]], [0] * 1000, [["p0"] * 7], _nested(60), {}, {"": {}}, {"a": 1}, {b"k": 0}, {"values": []}),
    *(msgpack.ExtType(5, b"x"), msgpack.ExtType(127, bytes(300)), msgpack.Timestamp(2**33, 999_999_999)),
)  # fmt: skip
