"""The messages by which a worker joins a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arithmetic.probe import UNKNOWN_MACHINE, Machine
from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import CHALLENGE_BYTES, CONTENT_DIGEST_BYTES, VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.plan.parameters import CHOICES
from asyncdmtl.plan.validation import WANTS
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import (
    Message,
    pack_declaration,
    pack_info,
    pack_machine,
    parse_binaries,
    parse_declaration,
    parse_each,
    parse_info,
    parse_machine,
)

# The version of the protocol. A server refuses workers of another one.
VERSION = 7

# Bytes of the random numbers that both ends draw for a proof: enough that none is ever drawn twice.
PROOF_NONCE_BYTES = 32

# Bytes of a proof, which is an HMAC-SHA256.
PROOF_BYTES = 32

# The name of no run, for a worker that is new. It is as long as the names of runs.
NO_RUN = "--------"

# In place of the name of a run, for a program that submits jobs to a stream.
SUBMITS = "submits-"

# The most characters of the name of a run.
LONGEST_RUN_NAME = 200

# The default of the seconds after which an end gives up a silent peer.
DEFAULT_SILENCE = 10.0

# The most workers behind a relay, as many as a server accepts.
MAX_BEHIND = 1024


@dataclass(frozen=True, eq=False)
class Hello(Message):
    """Greets the server.

    Attributes
    ----------
    version : int
        The protocol's version, which the worker speaks.
    name : str
        The worker's name.
    silence : float
        Seconds of silence after which the worker gives the server up.
    run : str
        The run to which a server with a stream of jobs has called the worker; `SUBMITS` from a program that
        submits jobs; else `NO_RUN`.
    """

    number, kind, sender = 1, "hello", "worker"
    version: int
    name: str
    silence: float = DEFAULT_SILENCE
    run: str = NO_RUN

    def fields(self) -> list[Any]:
        return [self.version, self.name, self.silence, self.run]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Hello:
        version = fields.integer(values[0] if values else None, "protocol version")
        if version != VERSION:
            raise RemoteProtocolError(f"the worker speaks protocol version {version}, this server {VERSION}")
        fields.exactly(values, 4, cls.kind)
        return cls(
            version,
            fields.name(values[1], "worker name"),
            fields.finite(values[2], "seconds of silence", 0.0, above=True),
            fields.text(values[3], "run", LONGEST_RUN_NAME),
        )


@dataclass(frozen=True, eq=False)
class Challenge(Message):
    """Asks the worker to prove that it knows the secret of its name.

    Attributes
    ----------
    run : str
        The run's name, which the proof covers.
    nonce : bytes
        The server's random number, which the proof covers.
    """

    number, kind, sender = 16, "challenge", "server"
    run: str
    nonce: bytes

    def fields(self) -> list[Any]:
        return [self.run, self.nonce]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Challenge:
        run, nonce = fields.exactly(values, 2, cls.kind)
        return cls(fields.name(run, "run"), fields.binary(nonce, "nonce", PROOF_NONCE_BYTES, 1))


@dataclass(frozen=True, eq=False)
class Proof(Message):
    """Proves that the worker knows the secret of its name, and asks the server to prove the same.

    Attributes
    ----------
    nonce : bytes
        The worker's random number, which both proofs cover.
    proof : bytes
    """

    number, kind, sender = 17, "proof", "worker"
    nonce: bytes
    proof: bytes

    def fields(self) -> list[Any]:
        return [self.nonce, self.proof]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Proof:
        nonce, proof = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.binary(nonce, "nonce", PROOF_NONCE_BYTES, 1), fields.binary(proof, "proof", PROOF_BYTES, 1)
        )


@dataclass(frozen=True, eq=False)
class Welcome(Message):
    """Accepts the worker into the run.

    Attributes
    ----------
    run : str
        The run's name.
    settings : mapping
        The settings of the training.
    silence : float
        Seconds of silence after which the server gives the worker up.
    proof : bytes
        The server's proof, for a worker that gave one; else empty.
    blind : bool
        Whether the server learns nothing of the data, so that the worker must have the secret of the group.
    strategy : str
        The strategy of the run; "auto" if it is not chosen yet.
    """

    number, kind, sender = 2, "welcome", "server"
    run: str
    settings: Mapping[str, Any]
    silence: float = DEFAULT_SILENCE
    proof: bytes = b""
    blind: bool = False
    strategy: str = "auto"

    def fields(self) -> list[Any]:
        return [self.run, dict(self.settings), self.silence, self.proof, self.blind, self.strategy]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Welcome:
        run, settings, silence, proof, blind, strategy = fields.exactly(values, 6, cls.kind)
        return cls(
            fields.name(run, "run"),
            fields.mapping(settings, "settings"),
            fields.finite(silence, "seconds of silence", 0.0, above=True),
            fields.binary(proof, "proof", PROOF_BYTES, 1 if proof else 0),
            fields.flag(blind, "blind"),
            fields.choice(strategy, "strategy", CHOICES),
        )


@dataclass(frozen=True, eq=False)
class DeclareSome(Message):
    """Declares some of the worker's partitions; others follow.

    Attributes
    ----------
    partitions : tuple of Declaration
    """

    number, kind, sender = 24, "declare-some", "worker"
    partitions: tuple[Declaration, ...]

    def fields(self) -> list[Any]:
        return [[pack_declaration(part) for part in self.partitions]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> DeclareSome:
        (partitions,) = fields.exactly(values, 1, cls.kind)
        return cls(parse_each(partitions, parse_declaration))


@dataclass(frozen=True, eq=False)
class Declare(Message):
    """Declares the worker's (last) partitions, its state of the training, and its arithmetic.

    Attributes
    ----------
    partitions : tuple of Declaration
        The partitions that the worker stores and has not declared yet.
    round : int
        The round at whose beginning the worker stands; 0 if it is new.
    over : bool
        Whether the training ended before that round.
    state : bytes
        The check of the worker's state of the training; empty before the first plan.
    machine : Machine
        The worker's arithmetic, which the server compares with that of others.
    wants : str
        The models that the worker wants: "all", "own" or "none"; or empty, for those that the strategy gives.
    behind : tuple of str
        The names of all workers behind a relay, which sends this for them; empty from a worker.
    """

    number, kind, sender = 3, "declare", "worker"
    partitions: tuple[Declaration, ...]
    round: int = 0
    over: bool = False
    state: bytes = b""
    machine: Machine = UNKNOWN_MACHINE
    wants: str = ""
    behind: tuple[str, ...] = ()

    def fields(self) -> list[Any]:
        partitions = [pack_declaration(part) for part in self.partitions]
        where = [self.round, self.over, self.state]
        return [partitions, *where, pack_machine(self.machine), self.wants, list(self.behind)]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Declare:
        partitions, round_, over, state, machine, wants, behind = fields.exactly(values, 7, cls.kind)
        return cls(
            parse_each(partitions, parse_declaration),
            fields.integer(round_, "round"),
            fields.flag(over, "over"),
            fields.optional(state, "state check", VECTOR_DIGEST_BYTES),
            parse_machine(machine),
            fields.choice(wants, "wants", ("", *WANTS)),
            fields.names(behind, "workers behind", MAX_BEHIND),
        )


@dataclass(frozen=True, eq=False)
class Prepare(Message):
    """Sends the worker the encoding of rows as numbers, which follows from the declarations of all workers.

    Attributes
    ----------
    encoding : mapping
        The encoding; in a blind run the sealed surveys of all partitions, from which workers make it.
    challenges : tuple of bytes
        The challenges, each of `CHALLENGE_BYTES`, by which the worker shows that it has the rows of each
        partition, in the order in which they were declared.
    """

    number, kind, sender = 4, "prepare", "server"
    encoding: Mapping[str, Any]
    challenges: tuple[bytes, ...] = ()

    def fields(self) -> list[Any]:
        return [dict(self.encoding), list(self.challenges)]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Prepare:
        encoding, challenges = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.mapping(encoding, "encoding"), parse_binaries(challenges, "challenges", CHALLENGE_BYTES)
        )


@dataclass(frozen=True, eq=False)
class Ready(Message):
    """Reports that the worker has encoded its rows.

    Attributes
    ----------
    partitions : tuple of PartitionInfo
        The encoded partitions, in the order in which they were declared.
    answers : tuple of bytes
        The answers to the challenges of each partition, each of `CONTENT_DIGEST_BYTES`.
    """

    number, kind, sender = 5, "ready", "worker"
    partitions: tuple[PartitionInfo, ...]
    answers: tuple[bytes, ...] = ()

    def fields(self) -> list[Any]:
        return [[pack_info(info) for info in self.partitions], list(self.answers)]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Ready:
        partitions, answers = fields.exactly(values, 2, cls.kind)
        return cls(
            parse_each(partitions, parse_info), parse_binaries(answers, "answers", CONTENT_DIGEST_BYTES)
        )
