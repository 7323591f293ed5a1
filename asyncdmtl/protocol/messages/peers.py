"""The messages about rows that travel from worker to worker: to the server, and between two workers.

Between two workers, the one that asks for rows greets the other as it would greet a server. Both prove that
they know the key that the server gave this pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import NO_BODY, Message

# Bytes of the key by which two workers prove their names to each other, and of the secret it follows from.
PEER_KEY_BYTES = 32

# The most characters of a reason, and of an address: as many as a name has.
MAX_REASON_LENGTH = fields.MAX_NAME_LENGTH

# The most bytes of a certificate in PEM: one with a key on an elliptic curve has some 600.
MAX_CERTIFICATE_BYTES = 1 << 13

# The most peers of a worker under one plan, as many as a run has workers.
MAX_PEERS = 1 << 14

# The most vectors of a plan, and the most bytes of one.
MAX_VECTORS = 1 << 24
MAX_VECTOR_BYTES = 1 << 40


class Peer(NamedTuple):
    """A worker from which another one may take rows.

    Attributes
    ----------
    name : str
    host : str
    port : int
        Where it accepts connections.
    certificate : bytes
        The certificate, in PEM, that it shows; empty if connections are in plaintext.
    key : bytes
        The key that both prove to know.
    """

    name: str
    host: str
    port: int
    certificate: bytes
    key: bytes

    @classmethod
    def parse(cls, item: Any) -> Peer:
        """The peer in a received list, with every field checked."""
        name, host, port, certificate, key = fields.exactly(fields.sequence(item, "peer"), 5, "peer")
        return cls(
            fields.name(name, "worker name"),
            fields.text(host, "host", MAX_REASON_LENGTH),
            fields.integer(port, "port", 1, 65535),
            _certificate(certificate),
            fields.binary(key, "key", PEER_KEY_BYTES, 1),
        )

    @classmethod
    def parse_each(cls, items: Any) -> tuple[Peer, ...]:
        """All peers of a received list; none may occur twice."""
        if len(fields.sequence(items, "peers")) > MAX_PEERS:
            raise RemoteProtocolError(f"peers must be at most {MAX_PEERS}, not {len(items)}")
        found = tuple(map(cls.parse, items))
        if len({peer.name for peer in found}) != len(found):
            raise RemoteProtocolError("a peer is named twice")
        return found


@dataclass(frozen=True, eq=False)
class Listen(Message):
    """Asks the worker to accept connections of other workers, which take rows from it.

    Attributes
    ----------
    secret : bytes
        The secret of this worker, from which the keys of those that connect follow (`net.peer_keys`).
    """

    number, kind, sender = 28, "listen", "server"
    secret: bytes

    def fields(self) -> list[Any]:
        return [self.secret]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Listen:
        (secret,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.binary(secret, "secret", PEER_KEY_BYTES, 1))


@dataclass(frozen=True, eq=False)
class Listens(Message):
    """Tells where the worker accepts connections of other workers.

    Attributes
    ----------
    host : str
    port : int
        The port; 0 if the worker accepts no connections.
    certificate : bytes
        The certificate that it shows, in PEM; empty if connections are in plaintext.
    reason : str
        The reason why it accepts none; else empty.
    """

    number, kind, sender = 29, "listens", "worker"
    host: str = ""
    port: int = 0
    certificate: bytes = b""
    reason: str = ""

    def fields(self) -> list[Any]:
        return [self.host, self.port, self.certificate, self.reason[:MAX_REASON_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Listens:
        host, port, certificate, reason = fields.exactly(values, 4, cls.kind)
        return cls(
            fields.text(host, "host", MAX_REASON_LENGTH),
            fields.integer(port, "port", 0, 65535),
            _certificate(certificate),
            _reason(reason),
        )


@dataclass(frozen=True, eq=False)
class PeerReport(Message):
    """Tells the server what the worker has received from others in a round.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    received : tuple of (int, int, int)
        For each peer that sent something, its position in the plan, bytes of rows, and other bytes.
    """

    number, kind, sender = 30, "peer-report", "worker"
    plan: int
    round: int
    received: tuple[tuple[int, int, int], ...] = ()

    def fields(self) -> list[Any]:
        return [self.plan, self.round, [list(link) for link in self.received]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> PeerReport:
        plan, round_, received = fields.exactly(values, 3, cls.kind)
        if len(fields.sequence(received, "links")) > MAX_PEERS:
            raise RemoteProtocolError(f"links must be at most {MAX_PEERS}, not {len(received)}")
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            tuple(_link(item) for item in received),
        )


@dataclass(frozen=True, eq=False)
class RowsLacking(Message):
    """Reports that no other worker can give this one all rows of a round; the server plans anew.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    reason : str
    """

    number, kind, sender = 31, "rows-lacking", "worker"
    plan: int
    round: int
    reason: str

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.reason[:MAX_REASON_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> RowsLacking:
        plan, round_, reason = fields.exactly(values, 3, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            _reason(reason),
        )


@dataclass(frozen=True, eq=False)
class PeerRows(Message):
    """Base of the messages between workers about one part of a vector.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    vector : int
        The number of the vector among the plan's units.
    start, stop : int
        The bytes of the vector.
    """

    plan: int
    round: int
    vector: int
    start: int
    stop: int

    @property
    def place(self) -> tuple[int, int, int]:
        """The vector, and the bytes of it."""
        return self.vector, self.start, self.stop

    def fields(self) -> list[Any]:
        return [self.plan, self.round, *self.place]

    @classmethod
    def parse_place(cls, values: Sequence[Any]) -> tuple[int, int, int, int, int]:
        """Plan, round, vector and bytes, each checked."""
        plan, round_, vector, start, stop = fields.exactly(values, 5, cls.kind)
        first = fields.integer(start, "first byte", 0, MAX_VECTOR_BYTES)
        return (
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.integer(vector, "vector", 0, MAX_VECTORS),
            first,
            fields.integer(stop, "end", first + 1, MAX_VECTOR_BYTES),
        )


@dataclass(frozen=True, eq=False)
class AskRows(PeerRows):
    """Asks another worker for a part of a vector."""

    number, kind, sender = 32, "ask-rows", "worker"

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> AskRows:
        return cls(*cls.parse_place(values))


@dataclass(frozen=True, eq=False)
class GiveRows(PeerRows):
    """Gives another worker the part of a vector that it has asked for, as the body.

    The body is empty if this worker has forgotten the round, since all others must have gone on.
    """

    number, kind, sender = 33, "give-rows", "server"
    has_body = True
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> GiveRows:
        place = cls.parse_place(values)
        if len(body) not in (0, place[4] - place[3]):
            raise RemoteProtocolError(f"{len(body)} bytes came, of {place[4] - place[3]} that were named")
        return cls(*place, (), body)


def _certificate(value: Any) -> bytes:
    certificate = fields.binary(value, "certificate", 1)
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise RemoteProtocolError(f"certificate must be at most {MAX_CERTIFICATE_BYTES} bytes")
    return certificate


def _reason(value: Any) -> str:
    return fields.name(value, "reason") if value else ""


def _link(item: Any) -> tuple[int, int, int]:
    position, payload, framing = fields.exactly(fields.sequence(item, "link"), 3, "link")
    return (
        fields.integer(position, "position", 0, MAX_PEERS),
        fields.integer(payload, "bytes of rows"),
        fields.integer(framing, "other bytes"),
    )
