"""The key that the workers of a blind run share and the server never has, and what is made from it.

- *Masks* of vectors: AES-256 in counter mode (`asyncdmtl.blinding.masks`).
- *Seals* of all else: AES-SIV (RFC 5297), which encrypts and authenticates. It is deterministic and needs no
  nonce: the server sees whether two contents of the same kind and place are equal, and nothing else.
- *Tags* of numbers that nobody needs to read: BLAKE3 with a key. The server compares them.
- *MACs* of contents: BLAKE3 with a key, by `asyncdmtl.digests.Digest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from blake3 import blake3

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.masks import KEYS_BYTES, Masks
from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

SEAL_BYTES = 16
"""Bytes that a seal adds to its content: the synthetic initialisation vector of AES-SIV."""

SECRET_BYTES = 32
"""Bytes of a secret that a worker draws for its group."""

NAME_BYTES = 16
"""Bytes of the name of a group's first key."""

# The most bytes that are sealed at a time: what the library accepts.
MOST_SEALED_BYTES = (1 << 31) - 1 - SEAL_BYTES

# The context in which all keys are derived, so that other uses of the same secret give other keys.
_CONTEXT = "asyncdmtl 0.3: keys of a run whose server is blind"

# What tells a place apart: names, numbers, and MACs.
Place = Sequence[str | int | bytes]


class GroupKey:
    """The keys of one run, from the secret that its workers share.

    Parameters
    ----------
    secret : bytes
        The secret of the group.
    run : str
        The run's name: another run has other keys.
    before : GroupKey, optional
        The key that this one replaces.

    Attributes
    ----------
    secrets : tuple of bytes
        The secrets of the run so far, this one last.
    first : GroupKey
        The first key of the run. What must stay comparable for the whole run is made with it: digests, and
        seals of surveys and facts.
    """

    def __init__(self, secret: bytes, run: str, before: GroupKey | None = None) -> None:
        self.secrets: tuple[bytes, ...] = (*(before.secrets if before else ()), secret)
        self.first: GroupKey = before.first if before else self
        self._before = before
        self._run = run
        self._root = blake3(msgpack.packb([secret, run]), derive_key_context=_CONTEXT).digest()

    def __repr__(self) -> str:
        return f"GroupKey of run {self._run}"

    @classmethod
    def of_secrets(cls, secrets: Sequence[bytes], run: str) -> GroupKey:
        """The last of some keys, each of which replaces the one before."""
        first, *others = secrets
        group = cls(first, run)
        for secret in others:
            group = cls(secret, run, group)
        return group

    @property
    def epoch(self) -> int:
        """The number of keys that this one has replaced in its run."""
        return len(self.secrets) - 1

    @cached_property
    def name(self) -> bytes:
        """The name of the first key, by which a server knows workers that have it; it tells nothing of it."""
        return self.first._key("name", NAME_BYTES)

    @cached_property
    def digest(self) -> Digest:
        """The digests of the run, which are MACs of contents: the server can compare but not compute them."""
        return Digest(self._run, self.first._key("digests"))

    @cached_property
    def digest_for_all(self) -> Digest:
        """The digests of the run that the server can compute, too, of what it is sent."""
        return Digest(self._run)

    @cached_property
    def _streams(self) -> bytes:
        return self._key("streams")

    @cached_property
    def _tagging(self) -> bytes:
        return self._key("tags")

    # The library is imported in functions, since it takes a twentieth of a second and few runs are blind.

    @cached_property
    def _sealing(self) -> AESSIV:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(self._key("seals", 64))

    def masks(self, common: bytes, size: int, count: int) -> Masks:
        """The masks of vectors.

        Parameters
        ----------
        common : bytes
            A digest of all that the vectors follow from beside the plan, the round and the state of the
            training, so that no stream masks two different vectors.
        size : int
            Bytes of a vector.
        count : int
            The number of vectors.
        """
        keys = blake3(msgpack.packb([common, size]), key=self._streams).digest(length=KEYS_BYTES)
        return Masks(keys, size, count)

    def tag(self, content: bytes, size: int) -> bytes:
        """A MAC of a content that need not be read, of `size` bytes; it must tell its place itself."""
        return blake3(content, key=self._tagging).digest(length=size)

    def mark(self, name: str, digest: bytes) -> bytes:
        """What stands for the digest of a content with this name, of 16 bytes."""
        return blake3(msgpack.packb([name, digest]), key=self._key("marks")).digest(length=16)

    def seal(self, place: Place, content: bytes | Bytes) -> bytes:
        """Encrypt and authenticate a content, which is bound to its place.

        Raises
        ------
        UsageError
            The content is longer than `MOST_SEALED_BYTES`.
        """
        if len(content) > MOST_SEALED_BYTES:
            rule = f"can seal at most {MOST_SEALED_BYTES} bytes at a time"
            raise UsageError("--blind", rule, len(content))
        whole = content.tobytes() if isinstance(content, np.ndarray) else content
        return self._sealing.encrypt(whole, [msgpack.packb(list(place))])

    def open(self, place: Place, sealed: bytes) -> bytes:
        """The content of a seal, by this key or one that it has replaced.

        Raises
        ------
        IntegrityError
            It was not sealed by a worker of this group for this place, or was changed on its way.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._sealing.decrypt(sealed, [msgpack.packb(list(place))])
        except (InvalidTag, ValueError):
            if self._before is not None:
                return self._before.open(place, sealed)
            raise IntegrityError(
                f"what came as {place[0]!r} was not sealed by a worker with this group secret for this place:"
                " all workers must have the same --group-secret-file",
                partitions=[],
                workers=[],
            ) from None

    def _key(self, use: str, size: int = 32) -> bytes:
        return blake3(use.encode(), key=self._root).digest(length=size)
