"""The interface of the partitions that a worker stores: of numbers, or of raw rows from a file."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from asyncdmtl.arrays import Indices
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.learning.tasks import Declaration, Partition


class Stored(Protocol):
    """A partition as a worker stores it: of numbers (`Partition`), or of raw rows (`RawPartition`)."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def task(self) -> str:
        """The task that owns it."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def targets(self) -> NDArray[Any]:
        """The target of each row: numbers, or text."""

    def take(self, rows: Indices) -> Stored:
        """Some of the rows, at least one, under the same name."""

    def declaration(self) -> Declaration:
        """The facts about it that a worker sends when it joins, before the encoding is known."""

    def encoded(self, encoding: Encoding) -> Partition:
        """Its rows as numbers; DataError if the encoding does not suit its columns."""
