"""The masks of the vectors of a blind run: AES-256 in counter mode (NIST SP 800-38A).

All masks of a round are pieces of one key stream, one after the other: vector `u` of `b` bytes has the bytes
from `u·b` to `(u + 1)·b` of it. A run has one key of streams, and each round begins at another block of the
cipher: the library takes longer to make a cipher with a new key than to mask short vectors.

No stream ever masks two different vectors
------------------------------------------
The key of streams is derived (BLAKE3 with a key) from the key of the group in this run, and a digest of the
settings and the facts of all partitions, among them MACs of their contents. With another key that is derived
from the same, the number of a round's first block is derived from the number and the digest of the server's
plan, the round, and the check of the state of the training. A vector is a function of exactly these: of the
state and of the content of its partitions, under these settings. So a worker that was started again, a round
that is made again, or a server that repeats the number of a plan makes the same bits under the same stream,
or other bits under another one. A worker compares the contents of its own partitions with those in the facts
(`worker.plan_check`), so that a file that was changed gives another key.

First blocks are pseudorandom numbers of 128 bits. So the streams of two of `q` rounds, each of `b` blocks of
16 bytes, have a block in common with a probability below `q²·b / 2^128`: 2^-58 for a million rounds whose
vectors have 16 GB altogether.

A holder may compute other bits than another one, by bad memory. The server is sent the rows `E·(V + S)`, with
pieces `S` of the stream. The rows of `E`, all workers together, are independent under plans that tolerate no
silent workers. So `E·S` is uniformly random whatever the vectors are, also if holders have different ones.

Relays
------
A node behind a relay follows a plan of the relay's, which is told from which plan of the server it follows
(`root_of`). So there is one stream for all workers, whichever way their rows take, and a unit has the same
mask at all of its holders. For a relay, as for the server, the masked units `V + S` take the place of `V`.

Relay `h` sees the masked units of its nodes, each once, and the rows that come down to it, which are those
from which it decodes all others. Together they are a regular matrix times all units, whatever holders the
rows are from. So what one relay sees is uniformly random, too, also if holders have different bits. Relays
that put together what they see, or with the server, have several copies of a masked unit, and find in which
bits holders differ, if they do; from a multicast group a relay may receive such a copy, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from asyncdmtl.arrays import Bytes

# Bytes of a block of the cipher.
_BLOCK = 16

KEYS_BYTES = 64
"""Bytes of the two keys of a run's masks: of the streams, and of the numbers of their first blocks."""

ROOT_BYTES = 24
"""Bytes by which the plans of a server are told apart (`root_of`)."""

# The most bytes of a stream that is made at a time, when the first vectors are masked: a call of the library
# takes longer than the masks of short vectors.
_SHORT = 1 << 16


class Masks:
    """The masks of the vectors of one round at a time.

    Parameters
    ----------
    keys : bytes
        The key of the streams, and that of their first blocks: `KEYS_BYTES` bytes.
    size : int
        Bytes of a vector.
    count : int
        The number of vectors.
    """

    def __init__(self, keys: bytes, size: int, count: int) -> None:
        # The library is imported here, since it takes a twentieth of a second and few runs are blind.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._key, self._starting = keys[: KEYS_BYTES // 2], keys[KEYS_BYTES // 2 :]
        self._cipher = Cipher(algorithms.AES(self._key), modes.CTR(bytes(_BLOCK))).encryptor()
        self._size = size
        self._start = 0
        short = size * count if size * count <= _SHORT else 0
        # The stream of a round if it is short, and as many zeros, of which it is made.
        self._zeros, self._stream = bytes(short), np.zeros(short, np.uint8)

    def begin(self, place: bytes) -> None:
        """Begin a round; `place` tells its plan, itself and its state apart from all others of the run."""
        start = blake3(place, key=self._starting).digest(length=_BLOCK)
        self._start = int.from_bytes(start, "big")
        if self._zeros:
            self._cipher.reset_nonce(start)
            self._cipher.update_into(self._zeros, self._stream.data)

    def apply(self, runs: Sequence[tuple[int, int]], vectors: Bytes, out: Bytes) -> None:
        """Mask some vectors, or take the masks off: both are one operation.

        Parameters
        ----------
        runs : sequence of (int, int)
            Which vectors they are (`runs_of`).
        vectors : uint8 array, contiguous
            The vectors, one after the other.
        out : uint8 array, contiguous
            Gets the results in the same places; it may be `vectors` itself.
        """
        begin = 0
        for first, count in runs:
            place, stop = first * self._size, begin + count * self._size
            if self._zeros:
                piece = self._stream[place : place + stop - begin]
                np.bitwise_xor(vectors[begin:stop], piece, out=out[begin:stop])
            else:
                self._go_to(place)
                self._cipher.update_into(vectors[begin:stop].data, out[begin:stop].data)
            begin = stop

    def _go_to(self, place: int) -> None:
        """Let the cipher add the stream from this byte on."""
        block, skipped = divmod(place, _BLOCK)
        number = (self._start + block) % (1 << 8 * _BLOCK)
        self._cipher.reset_nonce(number.to_bytes(_BLOCK, "big"))
        self._cipher.update(bytes(skipped))


def root_of(plan: int, digest: bytes) -> bytes:
    """What tells a plan of the server apart: its number, and its digest of 16 bytes."""
    return plan.to_bytes(ROOT_BYTES - len(digest), "little") + digest


def runs_of(vectors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The first vector and the length of each run of vectors that follow each other, given their numbers."""
    runs: list[tuple[int, int]] = []
    for vector in vectors:
        first, count = runs[-1] if runs else (0, 0)
        if count and vector == first + count:
            runs[-1] = first, count + 1
        else:
            runs.append((vector, 1))
    return tuple(runs)
