"""What a worker stores: partitions of numbers, or rows as they came from a file."""

from __future__ import annotations

from typing import Protocol

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.learning.tasks import Declaration, Partition


class Stored(Protocol):
    """A partition as a worker stores it: of numbers (`Partition`), or as it came from a file."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def task(self) -> str:
        """The task that owns it."""

    def declaration(self) -> Declaration:
        """What is told of it before the encoding is known."""

    def encoded(self, encoding: Encoding) -> Partition:
        """Its rows as numbers; DataError if the encoding is not for them."""
