"""The messages by which workers and server come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import (
    Message,
    pack_declaration,
    pack_info,
    parse_declaration,
    parse_each,
    parse_info,
)

VERSION = 4

NONCE_BYTES = PROOF_BYTES = 32

# Seconds of silence after which a peer gives up, where it does not say so itself.
SILENCE = 10.0


@dataclass(frozen=True, eq=False)
class Hello(Message):
    """Worker: who I am, which version I speak, and after how many seconds of silence I give up."""

    number, kind, sender = 1, "hello", "worker"
    version: int
    name: str
    silence: float = SILENCE

    def fields(self) -> list[Any]:
        return [self.version, self.name, self.silence]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Hello:
        version = fields.integer(values[0] if values else None, "protocol version")
        if version != VERSION:
            raise RemoteProtocolError(f"the worker speaks protocol version {version}, this server {VERSION}")
        fields.exactly(values, 3, cls.kind)
        return cls(
            version,
            fields.name(values[1], "worker name"),
            fields.finite(values[2], "seconds of silence", 0.0, open_=True),
        )


@dataclass(frozen=True, eq=False)
class Challenge(Message):
    """Server: prove that you know the secret of your name, for this run and this nonce."""

    number, kind, sender = 16, "challenge", "server"
    run: str
    nonce: bytes

    def fields(self) -> list[Any]:
        return [self.run, self.nonce]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Challenge:
        run, nonce = fields.exactly(values, 2, cls.kind)
        return cls(fields.name(run, "run"), fields.binary(nonce, "nonce", NONCE_BYTES, 1))


@dataclass(frozen=True, eq=False)
class Proof(Message):
    """Worker: the proof; and a nonce, for which the server is to prove the same."""

    number, kind, sender = 17, "proof", "worker"
    nonce: bytes
    proof: bytes

    def fields(self) -> list[Any]:
        return [self.nonce, self.proof]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Proof:
        nonce, proof = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.binary(nonce, "nonce", NONCE_BYTES, 1), fields.binary(proof, "proof", PROOF_BYTES, 1)
        )


@dataclass(frozen=True, eq=False)
class Welcome(Message):
    """Server: the run, the settings of its training, and after how many seconds of silence I give up.

    `proof` is the server's, for a worker that gave one; else empty.
    """

    number, kind, sender = 2, "welcome", "server"
    run: str
    settings: Mapping[str, Any]
    silence: float = SILENCE
    proof: bytes = b""

    def fields(self) -> list[Any]:
        return [self.run, dict(self.settings), self.silence, self.proof]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Welcome:
        run, settings, silence, proof = fields.exactly(values, 4, cls.kind)
        return cls(
            fields.name(run, "run"),
            fields.mapping(settings, "settings"),
            fields.finite(silence, "seconds of silence", 0.0, open_=True),
            fields.binary(proof, "proof", PROOF_BYTES, 1 if proof else 0),
        )


@dataclass(frozen=True, eq=False)
class Declare(Message):
    """Worker: the partitions that I store, and where I stand in this run.

    `round` is that at the beginning of which I hold the state of the training, `over` says that the training
    ended before it, and `state` is the state's digest. Who is new stands at round 0 with an empty digest.
    """

    number, kind, sender = 3, "declare", "worker"
    partitions: tuple[Declaration, ...]
    round: int = 0
    over: bool = False
    state: bytes = b""

    def fields(self) -> list[Any]:
        return [[pack_declaration(part) for part in self.partitions], self.round, self.over, self.state]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Declare:
        partitions, round_, over, state = fields.exactly(values, 4, cls.kind)
        return cls(
            parse_each(partitions, parse_declaration),
            fields.integer(round_, "round"),
            fields.flag(over, "over"),
            fields.binary(state, "state digest", VECTOR_DIGEST_BYTES, 1 if state else 0),
        )


@dataclass(frozen=True, eq=False)
class Prepare(Message):
    """Server: how rows become numbers, from what all workers declared."""

    number, kind, sender = 4, "prepare", "server"
    encoding: Mapping[str, Any]

    def fields(self) -> list[Any]:
        return [dict(self.encoding)]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Prepare:
        (encoding,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.mapping(encoding, "encoding"))


@dataclass(frozen=True, eq=False)
class Ready(Message):
    """Worker: what my partitions are, encoded; in the order in which I declared them."""

    number, kind, sender = 5, "ready", "worker"
    partitions: tuple[PartitionInfo, ...]

    def fields(self) -> list[Any]:
        return [[pack_info(info) for info in self.partitions]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Ready:
        (partitions,) = fields.exactly(values, 1, cls.kind)
        return cls(parse_each(partitions, parse_info))
