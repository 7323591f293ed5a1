"""The partitions that a worker stores, with their declarations and their encoded rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.stored import Stored
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, Partition, PartitionInfo


class OwnPartitions:
    """The partitions that a worker stores. None of their rows ever leaves the worker.

    Declarations and encoded rows are made once: a worker that comes back to a run sends the same again.

    Parameters
    ----------
    stored : sequence of Stored
    """

    def __init__(self, stored: Sequence[Stored]) -> None:
        self._stored = tuple(stored)
        self._declared: tuple[Declaration, ...] | None = None
        self._encoded_with: tuple[Encoding, Settings] | None = None
        self._infos: tuple[PartitionInfo, ...] = ()
        self._encoded: Mapping[str, Partition] = {}

    def declare(self) -> tuple[Declaration, ...]:
        """The declarations of the partitions, which the server gets before rows are encoded."""
        if self._declared is None:
            self._declared = tuple(stored.declaration() for stored in self._stored)
        return self._declared

    def encode(self, encoding: Encoding, settings: Settings) -> tuple[PartitionInfo, ...]:
        """Encode the rows, and return the facts about the encoded partitions that the server gets.

        Raises
        ------
        DataError
            The rows cannot be encoded, or do not suit the loss.
        """
        if self._encoded_with != (encoding, settings):
            encoded = [stored.encoded(encoding) for stored in self._stored]
            self._encoded = {partition.id: partition for partition in encoded}
            self._infos = tuple(partition.info(settings) for partition in encoded)
            self._encoded_with = encoding, settings
        return self._infos

    @property
    def encoded(self) -> Mapping[str, Partition]:
        """The encoded partitions by name; none before `encode`."""
        return self._encoded

    @property
    def encoded_with(self) -> tuple[Encoding, Settings]:
        """The encoding and the settings with which rows were encoded; known after `encode`."""
        assert self._encoded_with is not None
        return self._encoded_with
