"""Stored rows as runs use them: divided into rows for training and for tests, and encoded, once for all runs.

The jobs of a stream have the same rows, most of them with the same test rows and the same encoding. What one
of them has prepared serves the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import msgpack

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.held_back import hold_back
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.learning.tasks import Declaration, Partition

Made = TypeVar("Made")


class _Made(Generic[Made]):
    """What was made for a key, as long as somebody uses it; the last one stays, for the next that asks."""

    def __init__(self) -> None:
        self._used: WeakValueDictionary[Hashable, Made] = WeakValueDictionary()
        self._last: Made | None = None

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made for this key; it is made here if nobody has it."""
        found = self._used.get(key)
        if found is None:
            found = self._used[key] = make()
        self._last = found
        return found


class EncodedRows:
    """The encoded rows of partitions.

    Attributes
    ----------
    train, tests : tuple of Partition
        The rows for training of each partition, and the rows for tests of those that have some.
    """

    def __init__(self, pairs: Sequence[tuple[Stored, Stored | None]], encoding: Encoding) -> None:
        self.train: tuple[Partition, ...] = tuple(train.encoded(encoding) for train, _ in pairs)
        self.tests: tuple[Partition, ...] = tuple(
            test.encoded(encoding) for _, test in pairs if test is not None
        )


class DividedRows:
    """The rows of partitions, of which some are held out for tests.

    Attributes
    ----------
    pairs : tuple of (Stored, Stored or None)
        The rows for training of each partition, and those for tests, if there are any.
    """

    def __init__(self, stored: Sequence[Stored], share: float, seed: int) -> None:
        self.pairs: tuple[tuple[Stored, Stored | None], ...] = tuple(
            hold_back(each, share, seed) for each in stored
        )
        self._encoded: _Made[EncodedRows] = _Made()

    @cached_property
    def declared(self) -> tuple[Declaration, ...]:
        """What the server may know of the partitions before their rows are encoded."""
        return tuple(_declaration(train, test) for train, test in self.pairs)

    def encoded(self, encoding: Encoding) -> EncodedRows:
        """The rows as numbers; DataError if they cannot be encoded."""
        key = hashlib.blake2b(msgpack.packb(encoding.as_dict()), usedforsecurity=False).digest()
        return self._encoded.get(key, lambda: EncodedRows(self.pairs, encoding))


class PreparedRows:
    """The partitions that a worker stores, and their rows as its runs use them.

    One thread at a time may use it; the jobs of a stream take turns.

    Parameters
    ----------
    stored : sequence of Stored
    """

    def __init__(self, stored: Sequence[Stored]) -> None:
        self.stored = tuple(stored)
        self._divided: _Made[DividedRows] = _Made()

    def divided(self, share: float, seed: int) -> DividedRows:
        """The rows divided as by `hold_back`, with this share of test rows."""
        # Without test rows the seed makes no difference.
        key = (share, seed if share else 0)
        return self._divided.get(key, lambda: DividedRows(self.stored, share, seed))


def _declaration(train: Stored, test: Stored | None) -> Declaration:
    """The declaration of a partition. Its digest covers all rows, test rows included, to recognise copies."""
    declared = train.declaration()
    if test is None:
        return declared
    whole = hashlib.blake2b(declared.digest, digest_size=CONTENT_DIGEST_BYTES, usedforsecurity=False)
    whole.update(test.declaration().digest)
    return replace(declared, digest=whole.digest(), held=test.rows)
