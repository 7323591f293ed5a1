"""The messages: immutable values, with every field checked when one arrives.

A head is the msgpack array `[kind, field, field, …]`. Sizes that depend on the plan (rows of a body,
number of digests) are checked by the two sides of a run; types and ranges are checked here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange import DIGEST_BYTES as UPDATE_DIGEST
from asyncdmtl.learning.tasks import DIGEST_BYTES, PartitionInfo

VERSION = 1

MAX_COUNT = 2**53
NAME_LENGTH = 200
TEXT_LENGTH = 4_000
SILENCE = 10.0
MOST_EXIT_CODE = 6
MOST_ROWS = 2**48
MOST_FEATURES = 2**34
PLAN_DIGEST = 16

Bytes = NDArray[np.uint8]


def _integer(value: Any, what: str, low: int = 0, high: int = MAX_COUNT) -> int:
    if type(value) is not int or not low <= value <= high:
        raise RemoteProtocolError(f"{what} must be an integer from {low} to {high}")
    return value


def _real(value: Any, what: str) -> float:
    """Any float: a run that diverges has losses that are not finite."""
    if type(value) is not float:
        raise RemoteProtocolError(f"{what} must be a float")
    return value


def _text(value: Any, what: str, limit: int = NAME_LENGTH) -> str:
    if type(value) is not str or len(value) > limit:
        raise RemoteProtocolError(f"{what} must be text of at most {limit} characters")
    return value


def _name(value: Any, what: str) -> str:
    if not _text(value, what) or not value.isprintable():
        raise RemoteProtocolError(f"{what} must be 1 to {NAME_LENGTH} printable characters")
    return str(value)


def _binary(value: Any, what: str, unit: int, count: int | None = None) -> bytes:
    if type(value) is not bytes or len(value) % unit or (count is not None and len(value) != unit * count):
        raise RemoteProtocolError(f"{what} must be {'some' if count is None else count} × {unit} bytes")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise RemoteProtocolError(f"{what} must be a list")
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise RemoteProtocolError(f"{what} must be a map with names as keys")
    return value


def _flag(value: Any, what: str) -> bool:
    if type(value) is not bool:
        raise RemoteProtocolError(f"{what} must be true or false")
    return value


def _fields(values: Sequence[Any], count: int, what: str) -> Sequence[Any]:
    if len(values) != count:
        raise RemoteProtocolError(f"{what} has {len(values)} fields instead of {count}")
    return values


_NO_BODY: Bytes = np.empty(0, dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Message:
    """Base of all messages; `number` is its kind on the wire and `sender` who may send it."""

    number: ClassVar[int]
    kind: ClassVar[str]
    sender: ClassVar[str]

    def fields(self) -> list[Any]:
        """What follows the kind in the head."""
        return []

    def rows(self) -> Sequence[Bytes]:
        """C-contiguous uint8 arrays whose concatenation is the body."""
        return ()

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Message:
        """The message with these fields, checked; RemoteProtocolError names the field that is wrong."""
        _fields(values, 0, cls.kind)
        return cls()


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
        version = _integer(values[0] if values else None, "protocol version")
        if version != VERSION:
            raise RemoteProtocolError(f"the worker speaks protocol version {version}, this server {VERSION}")
        _fields(values, 3, cls.kind)
        return cls(version, _name(values[1], "worker name"), _silence(values[2]))


@dataclass(frozen=True, eq=False)
class Welcome(Message):
    """Server: the run, the settings of its training, and after how many seconds of silence I give up."""

    number, kind, sender = 2, "welcome", "server"
    run: str
    settings: Mapping[str, Any]
    silence: float = SILENCE

    def fields(self) -> list[Any]:
        return [self.run, dict(self.settings), self.silence]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Welcome:
        run, settings, silence = _fields(values, 3, cls.kind)
        return cls(_name(run, "run"), _mapping(settings, "settings"), _silence(silence))


def _silence(value: Any) -> float:
    if not 0.0 < _real(value, "silence") < math.inf:
        raise RemoteProtocolError("silence must be a finite number of seconds, more than 0")
    return float(value)


def _smoothness(value: Any) -> float:
    if not 0.0 <= _real(value, "smoothness") < math.inf:
        raise RemoteProtocolError("smoothness must be a finite float, at least 0")
    return float(value)


def _pack_info(info: PartitionInfo) -> list[Any]:
    return [info.id, info.task, info.digest, info.rows, info.features, info.smoothness]


def _parse_infos(value: Any) -> tuple[PartitionInfo, ...]:
    infos = tuple(
        _parse_info(_fields(_list(item, "partition"), 6, "partition")) for item in _list(value, "partitions")
    )
    if len({info.id for info in infos}) != len(infos):
        raise RemoteProtocolError("a partition is declared twice")
    return infos


def _parse_info(values: Sequence[Any]) -> PartitionInfo:
    name, task, digest, rows, features, smoothness = values
    return PartitionInfo(
        _name(name, "partition name"),
        _name(task, "task name"),
        _binary(digest, "partition digest", DIGEST_BYTES, 1),
        _integer(rows, "rows", 1, MOST_ROWS),
        _integer(features, "features", 1, MOST_FEATURES),
        _smoothness(smoothness),
    )


@dataclass(frozen=True, eq=False)
class Declare(Message):
    """Worker: the partitions that I store."""

    number, kind, sender = 3, "declare", "worker"
    partitions: tuple[PartitionInfo, ...]

    def fields(self) -> list[Any]:
        return [[_pack_info(info) for info in self.partitions]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Declare:
        (partitions,) = _fields(values, 1, cls.kind)
        return cls(_parse_infos(partitions))


@dataclass(frozen=True, eq=False)
class Assign(Message):
    """Server: the plan from `round` on, and all partitions in its order."""

    number, kind, sender = 4, "assign", "server"
    plan: int
    round: int
    recipe: Mapping[str, Any]
    digest: bytes
    partitions: tuple[PartitionInfo, ...]

    def fields(self) -> list[Any]:
        infos = [_pack_info(info) for info in self.partitions]
        return [self.plan, self.round, dict(self.recipe), self.digest, infos]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Assign:
        plan, round_, recipe, digest, partitions = _fields(values, 5, cls.kind)
        return cls(
            _integer(plan, "plan number"),
            _integer(round_, "round"),
            _mapping(recipe, "plan recipe"),
            _binary(digest, "plan digest", PLAN_DIGEST, 1),
            _parse_infos(partitions),
        )


@dataclass(frozen=True, eq=False)
class Uplink(Message):
    """Worker: my coded rows of a round.

    `digests` has 8 bytes for each stored partition, `losses` the mean loss of those that this worker
    reports, `penalty` the coupling's at the current models, from the first worker; else 0.
    """

    number, kind, sender = 5, "uplink", "worker"
    plan: int
    round: int
    digests: bytes
    losses: tuple[float, ...]
    penalty: float
    body: Bytes = field(default_factory=lambda: _NO_BODY)

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.digests, list(self.losses), self.penalty]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Uplink:
        plan, round_, digests, losses, penalty = _fields(values, 5, cls.kind)
        return cls(
            _integer(plan, "plan number"),
            _integer(round_, "round"),
            _binary(digests, "update digests", UPDATE_DIGEST),
            tuple(_real(value, "loss") for value in _list(losses, "losses")),
            _real(penalty, "penalty"),
            body,
        )


@dataclass(frozen=True, eq=False)
class Downlink(Message):
    """Server: the rows of the broadcast that this worker needs.

    `digest` is that of all vectors that the worker is to decode, ascending.
    `parts` (sending) are the row arrays; `body` (received) is their concatenation.
    """

    number, kind, sender = 6, "downlink", "server"
    plan: int
    round: int
    last: bool
    digest: bytes
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: _NO_BODY)

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.last, self.digest]

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Downlink:
        plan, round_, last, digest = _fields(values, 4, cls.kind)
        return cls(
            _integer(plan, "plan number"),
            _integer(round_, "round"),
            _flag(last, "last"),
            _binary(digest, "downlink digest", UPDATE_DIGEST, 1),
            (),
            body,
        )


@dataclass(frozen=True, eq=False)
class Done(Message):
    """Worker: the last round is applied; the digest of my models."""

    number, kind, sender = 7, "done", "worker"
    digest: bytes

    def fields(self) -> list[Any]:
        return [self.digest]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Done:
        (digest,) = _fields(values, 1, cls.kind)
        return cls(_binary(digest, "model digest", UPDATE_DIGEST, 1))


@dataclass(frozen=True, eq=False)
class Finish(Message):
    """Server: all workers are done and agree."""

    number, kind, sender = 8, "finish", "server"


@dataclass(frozen=True, eq=False)
class Heartbeat(Message):
    """Either side: I am alive."""

    number, kind, sender = 9, "heartbeat", "either"


@dataclass(frozen=True, eq=False)
class Failure(Message):
    """Either side: it is over, and why; `exit_code` is what the sender exits with."""

    number, kind, sender = 10, "failure", "either"
    exit_code: int
    reason: str

    def fields(self) -> list[Any]:
        return [self.exit_code, self.reason[:TEXT_LENGTH]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Failure:
        exit_code, reason = _fields(values, 2, cls.kind)
        # The reason is shown on a terminal: nothing in it may steer one.
        shown = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
            for c in _text(reason, "reason", TEXT_LENGTH)
        )
        return cls(_integer(exit_code, "exit code", 1, MOST_EXIT_CODE), shown)


KINDS: Mapping[int, type[Message]] = {
    cls.number: cls
    for cls in (Hello, Welcome, Declare, Assign, Uplink, Downlink, Done, Finish, Heartbeat, Failure)
}
_WITH_BODY = (Uplink, Downlink)


def pack(message: Message) -> bytes:
    """The head of `message`."""
    packed: bytes = msgpack.packb([message.number, *message.fields()])
    return packed


def unpack(head: bytes, body: Bytes) -> Message:
    """The message in a frame; RemoteProtocolError says what is wrong with it."""
    unpackb: Callable[..., Any] = msgpack.unpackb
    try:
        values = unpackb(head, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"head is not msgpack: {type(error).__name__}: {error}") from error
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in KINDS:
        raise RemoteProtocolError("head must be a list that begins with a known kind of message")
    cls = KINDS[values[0]]
    if len(body) and cls not in _WITH_BODY:
        raise RemoteProtocolError(f"{cls.kind} has no body, but {len(body)} bytes of it came")
    return cls.parse(values[1:], body)
