"""The messages about multicast: whether a worker receives the group, and the rows that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.multicast.datagrams import KEY_BYTES, MAX_PIECE_NUMBERS
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import NO_BODY, Message

# Bytes of the random number of a probe: enough that no two probes of a run are alike.
PROBE_NONCE_BYTES = 16

# The most bytes of a piece of a row in a datagram: UDP carries no more.
MAX_PIECE_BYTES = 1 << 16

# The most ranges of a round: rows are cut into a few hundred at most.
MAX_RANGES = 1 << 20

# The most characters of the reason why a worker does not receive the group.
MAX_JOIN_REASON_LENGTH = 200


@dataclass(frozen=True, eq=False)
class JoinGroup(Message):
    """Asks the worker to join a multicast group, and to test whether it receives a probe.

    Attributes
    ----------
    address : str
        The group's IP address.
    port : int
    key : bytes
        The key of all datagrams of the run.
    nonce : bytes
        The random number of the probe.
    piece_bytes : int
        Bytes of coded rows in a datagram.
    """

    number, kind, sender = 19, "join-group", "server"
    address: str
    port: int
    key: bytes
    nonce: bytes
    piece_bytes: int

    def fields(self) -> list[Any]:
        return [self.address, self.port, self.key, self.nonce, self.piece_bytes]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> JoinGroup:
        address, port, key, nonce, piece_bytes = fields.exactly(values, 5, cls.kind)
        return cls(
            fields.name(address, "group"),
            fields.integer(port, "port", 1, 65535),
            fields.binary(key, "key", KEY_BYTES, 1),
            fields.binary(nonce, "nonce", PROBE_NONCE_BYTES, 1),
            fields.integer(piece_bytes, "bytes of a piece", 1, MAX_PIECE_BYTES),
        )


@dataclass(frozen=True, eq=False)
class JoinedGroup(Message):
    """Reports whether the worker received the probe.

    Attributes
    ----------
    reason : str
        The reason why the worker does not receive the group; empty if it does.
    """

    number, kind, sender = 20, "joined-group", "worker"
    reason: str = ""

    def fields(self) -> list[Any]:
        return [self.reason[:MAX_JOIN_REASON_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> JoinedGroup:
        (reason,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.name(reason, "reason") if reason else "")


@dataclass(frozen=True, eq=False)
class MulticastControl(Message):
    """Base of the messages about one range of a round's downlink that is sent to the group.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    index : int
        The range.
    """

    plan: int
    round: int
    index: int

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.index]

    @classmethod
    def parse_place(cls, values: Sequence[Any]) -> tuple[int, int, int]:
        """Plan, round and range, each checked."""
        plan, round_, index = values
        return (
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.integer(index, "range", 0, MAX_RANGES),
        )


@dataclass(frozen=True, eq=False)
class LossQuery(MulticastControl):
    """Tells the worker that all datagrams of some ranges have been sent, and asks which rows it lacks.

    Attributes
    ----------
    count : int
        The number of ranges, beginning at `index`.
    """

    number, kind, sender = 21, "loss-query", "server"
    count: int = 1

    def fields(self) -> list[Any]:
        return [*super().fields(), self.count]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> LossQuery:
        *place, count = fields.exactly(values, 4, cls.kind)
        return cls(*cls.parse_place(place), fields.integer(count, "ranges", 1, MAX_RANGES))


@dataclass(frozen=True, eq=False)
class LossReport(MulticastControl):
    """Reports the rows of one range that the worker lacks.

    Attributes
    ----------
    lacks : bytes
        The number of lacking rows of each piece of the range, one byte each; empty if no row is lacking.
    seen : int
        Datagrams of the range that were received.
    """

    number, kind, sender = 22, "loss-report", "worker"
    lacks: bytes
    seen: int

    def fields(self) -> list[Any]:
        return [*super().fields(), self.lacks, self.seen]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> LossReport:
        *place, lacks, seen = fields.exactly(values, 5, cls.kind)
        return cls(
            *cls.parse_place(place),
            fields.binary(lacks, "lacking rows", 1),
            fields.integer(seen, "datagrams", 0, MAX_PIECE_NUMBERS),
        )


@dataclass(frozen=True, eq=False)
class Fallback(MulticastControl):
    """Sends the worker its rows of one range over TCP, because it cannot get them from the group."""

    number, kind, sender = 23, "fallback", "server"
    has_body = True
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Fallback:
        return cls(*cls.parse_place(fields.exactly(values, 3, cls.kind)), (), body)
