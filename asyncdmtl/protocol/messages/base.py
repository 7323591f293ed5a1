"""What all messages have in common, and how partitions are written in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol import fields

MOST_ROWS = 2**48
MOST_FEATURES = 2**34
MOST_PARTITIONS = 2**14

# Which labels a partition may have.
CLASSES = ("", "0", "1", "01")

Described = TypeVar("Described", Declaration, PartitionInfo)

NO_BODY: Bytes = np.empty(0, dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Message:
    """Base of all messages; `number` is its kind on the wire and `sender` who may send it."""

    number: ClassVar[int]
    kind: ClassVar[str]
    sender: ClassVar[str]
    has_body: ClassVar[bool] = False

    @property
    def event(self) -> str:
        """What the table of states calls it."""
        return self.kind

    def fields(self) -> list[Any]:
        """What follows the kind in the head."""
        return []

    def rows(self) -> Sequence[Bytes]:
        """C-contiguous uint8 arrays whose concatenation is the body."""
        return ()

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Message:
        """The message with these fields, checked; RemoteProtocolError names the field that is wrong."""
        fields.exactly(values, 0, cls.kind)
        return cls()


def pack_info(info: PartitionInfo) -> list[Any]:
    """What travels of a PartitionInfo."""
    identity = [info.id, info.task, info.digest, info.rows]
    return [*identity, info.weight, info.features, info.smoothness, info.classes]


def parse_info(item: Any) -> PartitionInfo:
    """The PartitionInfo that came, checked."""
    name, task, digest, rows, weight, features, smoothness, classes = _partition(item, 8)
    return PartitionInfo(
        *_identity(name, task, digest, rows),
        fields.finite(weight, "weight", 0.0, open_=True),
        fields.integer(features, "features", 1, MOST_FEATURES),
        fields.finite(smoothness, "smoothness", 0.0),
        fields.choice(classes, "classes", CLASSES),
    )


def pack_declaration(part: Declaration) -> list[Any]:
    """What travels of a Declaration."""
    return [part.id, part.task, part.digest, part.rows, dict(part.survey)]


def parse_declaration(item: Any) -> Declaration:
    """The Declaration that came, checked but for its survey, which the server reads."""
    name, task, digest, rows, survey = _partition(item, 5)
    return Declaration(*_identity(name, task, digest, rows), fields.mapping(survey, "survey"))


def _partition(item: Any, count: int) -> Sequence[Any]:
    return fields.exactly(fields.sequence(item, "partition"), count, "partition")


def _identity(name: Any, task: Any, digest: Any, rows: Any) -> tuple[str, str, bytes, int]:
    return (
        fields.name(name, "partition name"),
        fields.name(task, "task name"),
        fields.binary(digest, "partition digest", CONTENT_DIGEST_BYTES, 1),
        fields.integer(rows, "rows", 1, MOST_ROWS),
    )


def parse_each(items: Any, parse: Callable[[Any], Described]) -> tuple[Described, ...]:
    """All partitions of a list, each once."""
    if len(fields.sequence(items, "partitions")) > MOST_PARTITIONS:
        raise RemoteProtocolError(f"partitions must be at most {MOST_PARTITIONS}, not {len(items)}")
    found = tuple(parse(item) for item in items)
    if len({item.id for item in found}) != len(found):
        raise RemoteProtocolError("a partition is declared twice")
    return found
