"""The masks of the vectors of one round of a blind run: AES-256 in counter mode (NIST SP 800-38A).

All masks of a round are pieces of one key stream, one after the other: vector `u` of `b` bytes has the bytes
from `u·b` to `(u + 1)·b` of it.

No stream ever masks two different vectors
------------------------------------------
Its key is derived (BLAKE3 with a key) from the key of the group in this run, the number and the digest of the
server's plan, the round, the check of the state of the training, and a digest of all else that vectors follow
from: the settings and the facts of all partitions, among them MACs of their contents. A vector is a function
of exactly these: of the state and of the content of its partitions, under these settings. So a worker that
was started again, a round that is made again, or a server that repeats the number of a plan makes the same
bits under the same key, or other bits under another one. A worker compares the contents of its own partitions
with those in the facts (`worker.plan_check`), so that a file that was changed gives another key.

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
from typing import TYPE_CHECKING

import numpy as np

from asyncdmtl.arrays import Bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

# Bytes of a block of the cipher.
_BLOCK = 16

ROOT_BYTES = 24
"""Bytes by which the plans of a server are told apart (`root_of`)."""

ROOM = _BLOCK - 1
"""Bytes behind an array that is masked: some versions of the library ask for room for one more block."""

# The most bytes of a stream that is made at a time, when the first vectors are masked: a call of the library
# takes longer than the masks of short vectors.
_SHORT = 1 << 16


class Masks:
    """The masks of the vectors of one round.

    Parameters
    ----------
    key : bytes
        The key of the round's stream, of 32 bytes.
    size : int
        Bytes of a vector.
    count : int
        The number of vectors.
    """

    def __init__(self, key: bytes, size: int, count: int) -> None:
        self._key = key
        self._size = size
        self._whole: Bytes | None = None
        if size * count <= _SHORT:
            whole = np.zeros(size * count + ROOM, np.uint8)
            self._stream(0).update_into(bytes(size * count), whole.data)
            self._whole = whole

    def apply(self, runs: Sequence[tuple[int, int]], vectors: Bytes, out: Bytes) -> None:
        """Mask some vectors, or take the masks off: both are one operation.

        Parameters
        ----------
        runs : sequence of (int, int)
            Which vectors they are (`runs_of`).
        vectors : uint8 array, contiguous
            The vectors, one after the other.
        out : uint8 array, contiguous, longer than `vectors` by at least `ROOM` bytes
            Gets the results in the same places; it may begin where `vectors` does.
        """
        begin = 0
        for first, count in runs:
            place, stop = first * self._size, begin + count * self._size
            if self._whole is not None:
                piece = self._whole[place : place + stop - begin]
                np.bitwise_xor(vectors[begin:stop], piece, out=out[begin:stop])
            else:
                self._stream(place).update_into(vectors[begin:stop].data, out[begin:].data)
            begin = stop

    def _stream(self, place: int) -> CipherContext:
        """The cipher, which adds the stream from this byte on."""
        # The library is imported here, since it takes a twentieth of a second and few runs are blind.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        block, skipped = divmod(place, _BLOCK)
        counter = modes.CTR(block.to_bytes(_BLOCK, "big"))
        stream = Cipher(algorithms.AES(self._key), counter).encryptor()
        stream.update(bytes(skipped))
        return stream


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
