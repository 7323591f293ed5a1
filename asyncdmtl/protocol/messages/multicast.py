"""The messages that a broadcast in datagrams needs beside its datagrams: small ones, on the connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.multicast.datagrams import KEY_BYTES, MOST_PIECES
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import NO_BODY, Message

NONCE_BYTES = 16
MOST_PIECE = 1 << 16
MOST_RANGE = 1 << 20
REASON_LENGTH = 200


@dataclass(frozen=True, eq=False)
class JoinGroup(Message):
    """Server: listen to this group, in which you will soon hear a probe of this nonce.

    `key` is that of all datagrams of the run, which carry `piece_bytes` of coded rows each.
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
            fields.binary(nonce, "nonce", NONCE_BYTES, 1),
            fields.integer(piece_bytes, "bytes of a piece", 1, MOST_PIECE),
        )


@dataclass(frozen=True, eq=False)
class JoinedGroup(Message):
    """Worker: I heard the probe; or the reason why not."""

    number, kind, sender = 20, "joined-group", "worker"
    reason: str = ""

    def fields(self) -> list[Any]:
        return [self.reason[:REASON_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> JoinedGroup:
        (reason,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.name(reason, "reason") if reason else "")


@dataclass(frozen=True, eq=False)
class MulticastControl(Message):
    """Base of what is said of a range of the downlink of a round while its rows are on their way."""

    plan: int
    round: int
    index: int

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.index]

    @classmethod
    def place(cls, values: Sequence[Any]) -> tuple[int, int, int]:
        """Plan, round and range, checked."""
        plan, round_, index = values
        return (
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.integer(index, "range", 0, MOST_RANGE),
        )


@dataclass(frozen=True, eq=False)
class LossQuery(MulticastControl):
    """Server: all datagrams of so many ranges from this one on are on their way; what do you lack?"""

    number, kind, sender = 21, "loss-query", "server"
    count: int = 1

    def fields(self) -> list[Any]:
        return [*super().fields(), self.count]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> LossQuery:
        *place, count = fields.exactly(values, 4, cls.kind)
        return cls(*cls.place(place), fields.integer(count, "ranges", 1, MOST_RANGE))


@dataclass(frozen=True, eq=False)
class LossReport(MulticastControl):
    """Worker: of this range `seen` datagrams came, and each piece lacks so many rows; empty: none does."""

    number, kind, sender = 22, "loss-report", "worker"
    lacks: bytes
    seen: int

    def fields(self) -> list[Any]:
        return [*super().fields(), self.lacks, self.seen]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> LossReport:
        *place, lacks, seen = fields.exactly(values, 5, cls.kind)
        told = fields.binary(lacks, "lacking rows", 1)
        return cls(*cls.place(place), told, fields.integer(seen, "datagrams", 0, MOST_PIECES))


@dataclass(frozen=True, eq=False)
class Fallback(MulticastControl):
    """Server: your rows of this range, since the group does not bring them.

    `parts` (sending) are the row arrays; `body` (received) is their concatenation.
    """

    number, kind, sender = 23, "fallback", "server"
    has_body = True
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Fallback:
        return cls(*cls.place(fields.exactly(values, 3, cls.kind)), (), body)
