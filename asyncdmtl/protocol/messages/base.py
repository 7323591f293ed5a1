"""The base of all messages, and the form of partitions in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from asyncdmtl.arithmetic.probe import DIGEST_BYTES as PROBE_BYTES
from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol import fields

Role = Literal["server", "worker"]

# The most rows of a declared partition: more than any site stores, and few enough that sums over all
# partitions are exact in a float.
MAX_PARTITION_ROWS = 2**48

# The most features of an encoded partition. A model with more numbers would not fit in memory.
MAX_FEATURES = 2**34

# The most partitions in one message: planning for some thousand takes minutes already.
MAX_PARTITIONS = 2**14

# The most digests of parts of arithmetic, and the most components of its description, that a machine may
# send.
MAX_MACHINE_PARTS = 32

# The most characters of the description of one component; the features of a CPU take some 600.
MAX_COMPONENT_TEXT = 4000

# The labels that occur in a partition: none if targets are numbers, only 0, only 1, or both.
LABELS = ("", "0", "1", "01")

Described = TypeVar("Described", Declaration, PartitionInfo)

# The body of a message without one.
NO_BODY: Bytes = np.empty(0, dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Message:
    """Base of all messages.

    A subclass is a frozen dataclass of the message's fields, in the order in which they follow the number in
    the head. `parts` and `body` are not among these fields: a sender sets the rows of a body as `parts`, and
    a receiver gets their concatenation as `body`.

    Attributes
    ----------
    number : int
        The kind of the message on the wire.
    kind : str
        The kind as text, for ledgers, reports and errors.
    sender : "server", "worker" or "either"
        The end that may send it.
    has_body : bool
    """

    number: ClassVar[int]
    kind: ClassVar[str]
    sender: ClassVar[Literal["server", "worker", "either"]]
    has_body: ClassVar[bool] = False

    @property
    def event(self) -> str:
        """The event in the state table that this message stands for."""
        return self.kind

    def fields(self) -> list[Any]:
        """The fields as they follow the number in the head, of plain types."""
        return []

    def rows(self) -> Sequence[Bytes]:
        """C-contiguous uint8 arrays whose concatenation is the body."""
        return ()

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Message:
        """The message with these fields, each checked; RemoteProtocolError names a field that is wrong."""
        fields.exactly(values, 0, cls.kind)
        return cls()


def pack_info(info: PartitionInfo) -> list[Any]:
    """A PartitionInfo as a list of plain types."""
    identity = [info.id, info.task, info.digest, info.rows]
    facts = [info.weight, info.features, info.smoothness, info.classes, info.held]
    return [*identity, *facts, info.sealed]


def parse_info(item: Any) -> PartitionInfo:
    """The PartitionInfo in a received list, with every field checked."""
    name, task, digest, rows, weight, features, smoothness, classes, held, sealed = _partition(item, 10)
    return PartitionInfo(
        *_identity(name, task, digest, rows),
        fields.finite(weight, "weight", 0.0, above=True),
        fields.integer(features, "features", 1, MAX_FEATURES),
        fields.finite(smoothness, "smoothness", 0.0),
        fields.choice(classes, "classes", LABELS),
        fields.integer(held, "test rows", 0, MAX_PARTITION_ROWS),
        fields.binary(sealed, "sealed facts", 1),
    )


def pack_declaration(part: Declaration) -> list[Any]:
    """A Declaration as a list of plain types."""
    return [part.id, part.task, part.digest, part.rows, dict(part.survey), part.held]


def parse_declaration(item: Any) -> Declaration:
    """The Declaration in a received list, checked except for the survey, which the server checks later."""
    name, task, digest, rows, survey, held = _partition(item, 6)
    return Declaration(
        *_identity(name, task, digest, rows),
        fields.mapping(survey, "survey"),
        fields.integer(held, "test rows", 0, MAX_PARTITION_ROWS),
    )


def parse_each(items: Any, parse: Callable[[Any], Described]) -> tuple[Described, ...]:
    """All partitions of a received list; `parse` checks each, and none may occur twice."""
    if len(fields.sequence(items, "partitions")) > MAX_PARTITIONS:
        raise RemoteProtocolError(f"partitions must be at most {MAX_PARTITIONS}, not {len(items)}")
    found = tuple(parse(item) for item in items)
    if len({item.id for item in found}) != len(found):
        raise RemoteProtocolError("a partition is declared twice")
    return found


def parse_binaries(items: Any, field: str, unit: int) -> tuple[bytes, ...]:
    """Bytes for each partition of a message, each of a whole number of units."""
    if len(fields.sequence(items, field)) > MAX_PARTITIONS:
        raise RemoteProtocolError(f"{field} must be of at most {MAX_PARTITIONS} partitions, not {len(items)}")
    return tuple(fields.binary(item, field, unit) for item in items)


def pack_machine(machine: Machine) -> list[Any]:
    """A Machine as a list of plain types."""
    return [dict(machine.digests), dict(machine.about)]


def parse_machine(item: Any) -> Machine:
    """The Machine in a received list, with every field checked."""
    parts, texts = fields.exactly(fields.sequence(item, "machine"), 2, "machine")
    digests, about = fields.mapping(parts, "digests"), fields.mapping(texts, "description")
    if max(len(digests), len(about)) > MAX_MACHINE_PARTS:
        raise RemoteProtocolError(f"a machine must have at most {MAX_MACHINE_PARTS} digests and components")
    return Machine(
        {fields.name(k, "part"): fields.binary(v, "digest", PROBE_BYTES, 1) for k, v in digests.items()},
        {
            fields.name(k, "component"): fields.text(v, "component", MAX_COMPONENT_TEXT)
            for k, v in about.items()
        },
    )


def _partition(item: Any, count: int) -> Sequence[Any]:
    return fields.exactly(fields.sequence(item, "partition"), count, "partition")


def _identity(name: Any, task: Any, digest: Any, rows: Any) -> tuple[str, str, bytes, int]:
    return (
        fields.name(name, "partition name"),
        fields.name(task, "task name"),
        fields.binary(digest, "partition digest", CONTENT_DIGEST_BYTES, 1),
        fields.integer(rows, "rows", 1, MAX_PARTITION_ROWS),
    )
