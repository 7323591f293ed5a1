"""Digests: short fingerprints by which server and workers find out whether they have the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

# Bytes of the digest of an exchanged vector or state. Two vectors with one digest would take 2^64 trials.
VECTOR_DIGEST_BYTES = 16

# Bytes of the digest of a partition's content. It travels once, and tells the server whether two workers
# store copies of the same rows.
CONTENT_DIGEST_BYTES = 16

# Bytes of the key that a worker and the server share, and with which the worker confirms what others tell.
CONFIRMATION_KEY_BYTES = 16

# Bytes of the random number of a challenge: enough that none is ever drawn twice.
CHALLENGE_BYTES = 16

# The context of the derivation of a run's key, so that other uses of the run's name give other keys.
_CONTEXT = "asyncdmtl: digests of the vectors and states of a run"

# The same for the keys under which workers hash their rows in answer to a challenge.
_CHALLENGE_CONTEXT = "asyncdmtl: proofs of possession of rows"


class Digest:
    """The digests of one run: BLAKE3 with a key of the run, so that digests of other runs are useless here.

    BLAKE3 is four times as fast as the fastest hash of the standard library, and works on hosts in FIPS mode,
    too.

    Parameters
    ----------
    run : str
        The run's name, from which the key is derived.
    secret : bytes, optional
        A key of 32 bytes that only workers have. Digests of contents are then MACs under it: the server can
        compare them, but compute none. Digests of digests (`combined`) stay as they are.
    """

    def __init__(self, run: str = "", secret: bytes | None = None) -> None:
        self._key = blake3(run.encode(), derive_key_context=_CONTEXT).digest()
        self._content_key = self._key if secret is None else secret

    def __call__(self, vector: NDArray[np.generic]) -> bytes:
        """The digest of a vector's bytes, of `VECTOR_DIGEST_BYTES` bytes."""
        return _of(np.ascontiguousarray(vector).view(np.uint8).data, self._content_key)

    def of_parts(self, parts: Iterable[NDArray[np.uint8]]) -> bytes:
        """The digest of the concatenation of some bytes, which is not made."""
        hasher = blake3(key=self._content_key)
        for part in parts:
            hasher.update(np.ascontiguousarray(part).data)
        return hasher.digest(length=VECTOR_DIGEST_BYTES)

    def keyed(self, digest: bytes) -> bytes:
        """The digest of the run for an unkeyed digest of a partition's content.

        It shows possession in this run alone: it cannot be computed from the digests of another run.
        """
        return _of(digest, self._content_key)

    def combined(self, digests: Sequence[bytes]) -> bytes:
        """One digest of a sequence of digests."""
        return _of(b"".join(digests), self._key)

    def with_key(self, key: bytes, content: bytes) -> bytes:
        """A MAC of some content under a key of any length, bound to the run."""
        return _of(content, _of(key, self._key) * 2)


def _of(content: bytes | memoryview, key: bytes) -> bytes:
    return blake3(content, key=key).digest(length=VECTOR_DIGEST_BYTES)


UNKEYED = Digest()
"""Digests where there is no run: both sides in one process, or a test."""


def answer(challenge: bytes, content: Iterable[bytes | memoryview]) -> bytes:
    """The answer to a challenge, which shows that a worker has some content.

    It is BLAKE3 with the challenge as key. It cannot be computed from answers to other challenges, or from
    other digests of the content.
    """
    hasher = blake3(key=blake3(challenge, derive_key_context=_CHALLENGE_CONTEXT).digest())
    for part in content:
        hasher.update(part)
    return hasher.digest(length=CONTENT_DIGEST_BYTES)


def draws(key: bytes, count: int) -> list[int]:
    """Pseudorandom whole numbers below 2**64, one for each of the first `count` numbers under a key.

    They are the first 8 bytes of a keyed BLAKE2b, so that all processes with the key draw the same numbers.
    """
    short = hashlib.blake2b(key, digest_size=32, usedforsecurity=False).digest()
    keyed = hashlib.blake2b(key=short, usedforsecurity=False)
    drawn = []
    for number in range(count):
        one = keyed.copy()
        one.update(number.to_bytes(8, "little"))
        drawn.append(int.from_bytes(one.digest()[:8], "little"))
    return drawn
