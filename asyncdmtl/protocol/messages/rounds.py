"""The messages of the rounds: plans, coded rows, and the state of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.masks import ROOT_BYTES
from asyncdmtl.digests import CONFIRMATION_KEY_BYTES, VECTOR_DIGEST_BYTES
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import NO_BODY, Message, pack_info, parse_each, parse_info
from asyncdmtl.protocol.messages.peers import Peer

PLAN_DIGEST_BYTES = 16  # of the digest by which a worker checks that it has built the server's plan


class StateTransfer(StrEnum):
    """The order to a worker about its state of the training, before it follows a new plan."""

    KEEP = "keep"
    GIVE = "give"
    TAKE = "take"


class AfterRound(StrEnum):
    """The order to a worker for the time after it has applied a round."""

    GO_ON = "go on"
    GIVE = "give"
    END = "end"


@dataclass(frozen=True, eq=False)
class Assign(Message):
    """Sends the worker a new plan.

    Attributes
    ----------
    plan : int
        The plan's number, which is larger than that of every earlier plan.
    round : int
        The first round under this plan.
    over : bool
        Whether all rounds are made, so that nothing is left to compute.
    first : str
        What the worker does with its state of the training: "keep" it, "give" it to the server and keep it,
        or "take" the server's.
    recipe : mapping
        The recipe from which the worker builds the plan.
    digest : bytes
        The plan's digest.
    partitions : tuple of PartitionInfo
        All partitions, in the order of the plan.
    grouped : bool
        Whether some workers receive their rows from a multicast group.
    detailed : bool
        Whether uplinks have all values of their workers. Otherwise they leave out those that others tell.
    peers : tuple of Peer
        The other workers from which this worker takes rows; empty if its rows come from the server.
    shared : bool
        Whether other workers take rows from this one.
    carried : bool
        Whether coded rows go through the server. Otherwise all workers exchange rows with each other, and
        uplinks have none.
    measured : bool
        Whether uplinks tell how long workers computed, and how fast their links from the server are.
    paced : bool
        Whether rows go up no faster than rows come down.
    key : bytes
        The key with which this worker confirms the numbers that others tell; empty if all tell theirs.
    origin : bytes
        To a node behind a relay of a blind run: which plan of the server this one follows from (`root_of`).
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
    detailed: bool = False
    peers: tuple[Peer, ...] = ()
    shared: bool = False
    carried: bool = True
    measured: bool = False
    paced: bool = True
    key: bytes = b""
    origin: bytes = b""

    @property
    def event(self) -> str:
        return f"assign, {self.first}"

    @property
    def tolerant(self) -> bool:
        """Whether the plan tolerates silent workers, so that rounds do not wait for late ones."""
        silent = self.recipe.get("silent")
        return type(silent) is int and silent > 0

    def fields(self) -> list[Any]:
        infos = [pack_info(info) for info in self.partitions]
        where = [self.plan, self.round, self.over, self.first]
        peers = [list(peer) for peer in self.peers]
        how = [self.grouped, self.detailed, peers, self.shared, self.carried, self.measured, self.paced]
        return [*where, dict(self.recipe), self.digest, infos, *how, self.key, self.origin]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Assign:
        plan, round_, over, first, *others = fields.exactly(values, 16, cls.kind)
        recipe, digest, partitions, grouped, detailed, peers, *flags, key, origin = others
        grouped, detailed, *flags = (fields.flag(value, "flag") for value in (grouped, detailed, *flags))
        shared, carried, measured, paced = flags
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.flag(over, "over"),
            fields.choice(first, "what to do first", tuple(StateTransfer)),
            fields.mapping(recipe, "plan recipe"),
            fields.binary(digest, "plan digest", PLAN_DIGEST_BYTES, 1),
            parse_each(partitions, parse_info),
            grouped,
            detailed,
            Peer.parse_each(peers),
            shared,
            carried,
            measured,
            paced,
            fields.optional(key, "key of confirmations", CONFIRMATION_KEY_BYTES),
            fields.optional(origin, "origin of the plan", ROOT_BYTES),
        )


@dataclass(frozen=True, eq=False)
class Snapshot(Message):
    """Sends the server the state of the training, which is the body.

    Attributes
    ----------
    plan : int
        The plan's number.
    round : int
        The round; the state is that at its beginning.
    digest : bytes
        The state's digest.
    """

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
    """Reports that the worker has allocated memory for the state of the training and waits for it.

    Attributes
    ----------
    plan : int
        The plan's number.
    """

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
    """Sends the worker the state of the training at the beginning of a round, as the body.

    Attributes
    ----------
    digest : bytes
        The state's digest.
    round : int or None
        The round, for a worker that was late and missed the rounds before it; None for the plan's first
        round, in answer to an await-restore.
    """

    number, kind, sender = 9, "restore", "server"
    has_body = True
    digest: bytes
    body: Bytes = field(default_factory=lambda: NO_BODY)
    round: int | None = None

    def fields(self) -> list[Any]:
        return [self.digest, self.round]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Restore:
        digest, later = fields.exactly(values, 2, cls.kind)
        round_ = None if later is None else fields.integer(later, "round")
        return cls(fields.binary(digest, "state digest", VECTOR_DIGEST_BYTES, 1), body, round_)


@dataclass(frozen=True, eq=False)
class Uplink(Message):
    """Sends the server the worker's coded rows of a round; the body is their first range.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    told : bytes
        Digests and numbers of this worker, one after the other; the plan says how many there are (`Layout`).
    rest : int
        Bytes of further ranges, which follow in more-rows messages; left out if 0 and no timing follows.
    timing : tuple of float
        Seconds of computing, and bits per second of the link from the server; only if the plan asks.
    """

    number, kind, sender = 10, "uplink", "worker"
    has_body = True
    plan: int
    round: int
    told: bytes = b""
    body: Bytes = field(default_factory=lambda: NO_BODY)
    rest: int = 0
    timing: tuple[float, ...] = ()

    def fields(self) -> list[Any]:
        rest = [self.rest] if self.rest or self.timing else []
        timing = [list(self.timing)] if self.timing else []
        return [self.plan, self.round, self.told, *rest, *timing]

    def rows(self) -> Sequence[Bytes]:
        return (self.body,)

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Uplink:
        values, timing = fields.timing(values, 4)
        plan, round_, told, *ranges = values if len(values) == 3 else fields.exactly(values, 4, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.binary(told, "digests and numbers", 1),
            body,
            fields.integer(ranges[0], "rest of the rows", 0 if timing else 1) if ranges else 0,
            timing,
        )


@dataclass(frozen=True, eq=False)
class Downlink(Message):
    """Sends the worker the rows of the broadcast that it needs; the body is their first range.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    then : str
        What the worker does after this round, as `AfterRound`.
    digest : bytes
        The digest of the digests of all vectors that the worker decodes, in ascending order.
    rest : int
        Bytes of further ranges, which follow in more-rows messages.
    grouped : bool
        Whether all rows come from the multicast group or from other workers, and none in messages.
    absent : tuple of int
        The places in the plan of late workers, whose rows are not in the first range.
    told : bytes
        In a blind run with a tolerance: the sealed numbers of all workers. To a relay: the digests of all
        vectors that it decodes, in ascending order.
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
    absent: tuple[int, ...] = ()
    told: bytes = b""

    @property
    def event(self) -> str:
        return f"downlink, {self.then}"

    def fields(self) -> list[Any]:
        told = [self.plan, self.round, self.then, self.digest, self.rest, self.grouped, self.told]
        return told + fields.absence(self.absent)

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Downlink:
        values, absent = fields.absent(values, 7)
        plan, round_, then, digest, rest, grouped, told = fields.exactly(values, 7, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.integer(round_, "round"),
            fields.choice(then, "what to do then", tuple(AfterRound)),
            fields.optional(digest, "downlink digest", VECTOR_DIGEST_BYTES),
            (),
            body,
            fields.integer(rest, "rest of the rows"),
            fields.flag(grouped, "grouped"),
            absent,
            fields.binary(told, "what others told", 1),
        )


@dataclass(frozen=True, eq=False)
class MoreRows(Message):
    """Sends the next range of the rows of an uplink or a downlink, which is the body.

    Attributes
    ----------
    plan, round : int
        The plan's number, and the round.
    absent : tuple of int
        As in a downlink, for this range of it.
    """

    number, kind, sender = 18, "more-rows", "either"
    has_body = True
    plan: int
    round: int
    parts: tuple[Bytes, ...] = ()
    body: Bytes = field(default_factory=lambda: NO_BODY)
    absent: tuple[int, ...] = ()

    def fields(self) -> list[Any]:
        return [self.plan, self.round, *fields.absence(self.absent)]

    def rows(self) -> Sequence[Bytes]:
        return self.parts

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> MoreRows:
        values, absent = fields.absent(values, 2)
        plan, round_ = fields.exactly(values, 2, cls.kind)
        return cls(fields.integer(plan, "plan number"), fields.integer(round_, "round"), (), body, absent)


@dataclass(frozen=True, eq=False)
class Done(Message):
    """Reports that the worker has the final models.

    Attributes
    ----------
    plan : int
        The plan's number.
    digest : bytes
        The check of the final state of the training, or under `personal` the digest of the worker's models.
    outcome : mapping
        The outcome of the training in plain types, if it ended with a solution; else empty.
    tests : mapping of partition to list
        Sums over the test rows of stored partitions (`MetricSums.as_list`).
    critical_strength : float or None
        The λ from which on all coefficients are 0, if they are and the worker knows it.
    """

    number, kind, sender = 12, "done", "worker"
    plan: int
    digest: bytes
    outcome: Mapping[str, Any] = field(default_factory=dict)
    tests: Mapping[str, Any] = field(default_factory=dict)
    critical_strength: float | None = None

    def fields(self) -> list[Any]:
        return [self.plan, self.digest, dict(self.outcome), dict(self.tests), self.critical_strength]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Done:
        plan, digest, outcome, tests, critical = fields.exactly(values, 5, cls.kind)
        return cls(
            fields.integer(plan, "plan number"),
            fields.binary(digest, "state check", VECTOR_DIGEST_BYTES, 1),
            fields.mapping(outcome, "outcome"),
            fields.mapping(tests, "sums of test rows"),
            fields.critical_strength(critical),
        )


@dataclass(frozen=True, eq=False)
class Finish(Message):
    """Tells the worker that all workers have the same final models.

    Attributes
    ----------
    critical_strength : float or None
        The λ from which on all coefficients are 0, if they are and the server knows it.
    """

    number, kind, sender = 13, "finish", "server"
    critical_strength: float | None = None

    def fields(self) -> list[Any]:
        return [self.critical_strength]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Finish:
        (critical,) = fields.exactly(values, 1, cls.kind)
        return cls(fields.critical_strength(critical))
