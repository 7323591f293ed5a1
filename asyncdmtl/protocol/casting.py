"""The messages that a broadcast in datagrams needs beside its datagrams: small ones, on the connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.protocol import checks
from asyncdmtl.protocol.datagrams import KEY_BYTES, MOST_PIECES
from asyncdmtl.protocol.message import NO_BODY, Bytes, Message

NONCE_BYTES = 16
MOST_PIECE = 1 << 16
MOST_RANGE = 1 << 20
REASON_LENGTH = 200


@dataclass(frozen=True, eq=False)
class Tune(Message):
    """Server: listen to this group, in which you will soon hear a probe of this nonce.

    `key` is that of all datagrams of the run, which carry `piece_bytes` of coded rows each.
    """

    number, kind, sender = 19, "tune", "server"
    address: str
    port: int
    key: bytes
    nonce: bytes
    piece_bytes: int

    def fields(self) -> list[Any]:
        return [self.address, self.port, self.key, self.nonce, self.piece_bytes]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Tune:
        address, port, key, nonce, piece_bytes = checks.exactly(values, 5, cls.kind)
        return cls(
            checks.name(address, "group"),
            checks.integer(port, "port", 1, 65535),
            checks.binary(key, "key", KEY_BYTES, 1),
            checks.binary(nonce, "nonce", NONCE_BYTES, 1),
            checks.integer(piece_bytes, "bytes of a piece", 1, MOST_PIECE),
        )


@dataclass(frozen=True, eq=False)
class Tuned(Message):
    """Worker: I heard the probe; or the reason why not."""

    number, kind, sender = 20, "tuned", "worker"
    reason: str = ""

    def fields(self) -> list[Any]:
        return [self.reason[:REASON_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Tuned:
        (reason,) = checks.exactly(values, 1, cls.kind)
        return cls(checks.name(reason, "reason") if reason else "")


@dataclass(frozen=True, eq=False)
class Aside(Message):
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
            checks.integer(plan, "plan number"),
            checks.integer(round_, "round"),
            checks.integer(index, "range", 0, MOST_RANGE),
        )


@dataclass(frozen=True, eq=False)
class Query(Aside):
    """Server: all datagrams of so many ranges from this one on are on their way; what do you lack?"""

    number, kind, sender = 21, "query", "server"
    count: int = 1

    def fields(self) -> list[Any]:
        return [*super().fields(), self.count]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Query:
        *place, count = checks.exactly(values, 4, cls.kind)
        return cls(*cls.place(place), checks.integer(count, "ranges", 1, MOST_RANGE))


@dataclass(frozen=True, eq=False)
class Lack(Aside):
    """Worker: of this range `seen` datagrams came, and each piece lacks so many rows; empty: none does."""

    number, kind, sender = 22, "lack", "worker"
    lacks: bytes
    seen: int

    def fields(self) -> list[Any]:
        return [*super().fields(), self.lacks, self.seen]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Lack:
        *place, lacks, seen = checks.exactly(values, 5, cls.kind)
        told = checks.binary(lacks, "lacking rows", 1)
        return cls(*cls.place(place), told, checks.integer(seen, "datagrams", 0, MOST_PIECES))


@dataclass(frozen=True, eq=False)
class Given(Aside):
    """Server: your rows of this range, since the group does not bring them.

    `parts` (sending) are the row arrays; `body` (received) is their concatenation.
    """

    number, kind, sender = 23, "given", "server"
    has_body = True
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Given:
        return cls(*cls.place(checks.exactly(values, 3, cls.kind)), (), body)
