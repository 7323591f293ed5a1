"""The messages of the rounds: plans, coded rows, and the state of the training for whoever lacks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import NO_BODY, Message, pack_info, parse_each, parse_info

PLAN_DIGEST = 16

# What a worker does with the state of the training: with a new plan, and after a round.
FIRST = ("keep", "give", "take")
THEN = ("go on", "give", "end")


@dataclass(frozen=True, eq=False)
class Assign(Message):
    """Server: the plan from `round` on, and all partitions in its order.

    `first` is what a worker does with the state of the training before it computes: "keep" it, "give" it to
    the server, or "take" it from there. `over` says that there is nothing left to compute, `grouped` that
    some workers are sent their rows by a group.
    """

    number, kind, sender = 6, "assign", "server"
    plan: int
    round: int
    over: bool
    first: str
    recipe: Mapping[str, Any]
    digest: bytes
    partitions: tuple[PartitionInfo, ...]
    grouped: bool = False

    @property
    def event(self) -> str:
        return f"assign, {self.first}"

    def fields(self) -> list[Any]:
        infos = [pack_info(info) for info in self.partitions]
        recipe = dict(self.recipe)
        return [self.plan, self.round, self.over, self.first, recipe, self.digest, infos, self.grouped]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Assign:
        plan, round_, over, first, recipe, digest, partitions, grouped = fields.exactly(values, 8, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.flag(over, "over"),
            fields.choice(first, "what to do first", FIRST),
            fields.mapping(recipe, "plan recipe"),
            fields.binary(digest, "plan digest", PLAN_DIGEST, 1),
            parse_each(partitions, parse_info),
            fields.flag(grouped, "grouped"),
        )


@dataclass(frozen=True, eq=False)
class Snapshot(Message):
    """Worker: the state of the training at the beginning of a round, as I was told to give it."""

    number, kind, sender = 7, "snapshot", "worker"
    has_body = True
    plan: int
    round: int
    digest: bytes
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.digest]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Snapshot:
        plan, round_, digest = fields.exactly(values, 3, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.binary(digest, "state digest", VECTOR_DIGEST_BYTES, 1),
            body,
        )


@dataclass(frozen=True, eq=False)
class AwaitRestore(Message):
    """Worker: I was told to take the state, and have made room for it."""

    number, kind, sender = 8, "await-restore", "worker"
    plan: int

    def fields(self) -> list[Any]:
        return [self.plan]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> AwaitRestore:
        (plan,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.integer(plan, "plan number"))


@dataclass(frozen=True, eq=False)
class Restore(Message):
    """Server: the state of the training at the beginning of the round of the plan."""

    number, kind, sender = 9, "restore", "server"
    has_body = True
    digest: bytes
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def fields(self) -> list[Any]:
        return [self.digest]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Restore:
        (digest,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.binary(digest, "state digest", VECTOR_DIGEST_BYTES, 1), body)


@dataclass(frozen=True, eq=False)
class Uplink(Message):
    """Worker: my coded rows of a round.

    `digests` has 8 bytes for each stored partition, `losses` the mean loss of those that this worker
    reports; from the first worker `penalty` is the coupling's at the current models and `residual` that of
    the last step; else both are 0. `body` is the first range of the rows; `rest` bytes follow as `MoreRows`.
    """

    number, kind, sender = 10, "uplink", "worker"
    has_body = True
    plan: int
    round: int
    digests: bytes
    losses: tuple[float, ...]
    penalty: float
    residual: float
    body: Bytes = field(default_factory=lambda: NO_BODY)
    rest: int = 0

    def fields(self) -> list[Any]:
        losses = list(self.losses)
        return [self.plan, self.round, self.digests, losses, self.penalty, self.residual, self.rest]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Uplink:
        plan, round_, digests, losses, penalty, residual, rest = fields.exactly(values, 7, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.binary(digests, "update digests", VECTOR_DIGEST_BYTES),
            tuple(fields.real(value, "loss") for value in fields.sequence(losses, "losses")),
            fields.real(penalty, "penalty"),
            fields.real(residual, "residual"),
            body,
            fields.integer(rest, "rest of the rows"),
        )


@dataclass(frozen=True, eq=False)
class Downlink(Message):
    """Server: the rows of the broadcast that this worker needs.

    `digest` is that of all vectors that the worker is to decode, ascending; `then` is what it does with the
    models that it gets from them: "go on" with the next round, "give" their state to the server and go on,
    or "end" with them.
    `parts` (sending) are the row arrays of the first range; `body` (received) is their concatenation. `rest`
    bytes follow as `MoreRows`; or all rows come from the group, and none here, if it is `grouped`.
    """

    number, kind, sender = 11, "downlink", "server"
    has_body = True
    plan: int
    round: int
    then: str
    digest: bytes
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)
    rest: int = 0
    grouped: bool = False

    @property
    def event(self) -> str:
        return f"downlink, {self.then}"

    def fields(self) -> list[Any]:
        return [self.plan, self.round, self.then, self.digest, self.rest, self.grouped]

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Downlink:
        plan, round_, then, digest, rest, grouped = fields.exactly(values, 6, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.choice(then, "what to do then", THEN),
            fields.binary(digest, "downlink digest", VECTOR_DIGEST_BYTES, 1),
            (),
            body,
            fields.integer(rest, "rest of the rows"),
            fields.flag(grouped, "grouped"),
        )


@dataclass(frozen=True, eq=False)
class MoreRows(Message):
    """Either side: the next range of the rows of the uplink or downlink that I began to send.

    `parts` (sending) are the row arrays; `body` (received) is their concatenation.
    """

    number, kind, sender = 18, "more-rows", "either"
    has_body = True
    plan: int
    round: int
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)

    def fields(self) -> list[Any]:
        return [self.plan, self.round]

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> MoreRows:
        plan, round_ = fields.exactly(values, 2, cls.kind)
        return cls(fields.integer(plan, "plan number"), fields.integer(round_, "round"), (), body)


@dataclass(frozen=True, eq=False)
class Done(Message):
    """Worker: the last round is applied; the digest of my models."""

    number, kind, sender = 12, "done", "worker"
    plan: int
    digest: bytes

    def fields(self) -> list[Any]:
        return [self.plan, self.digest]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Done:
        plan, digest = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.integer(plan, "plan number"), fields.binary(digest, "model digest", VECTOR_DIGEST_BYTES, 1)
        )


@dataclass(frozen=True, eq=False)
class Finish(Message):
    """Server: all workers are done and agree."""

    number, kind, sender = 13, "finish", "server"
