"""The work of a relay in a round: it knows its nodes' updates, decodes what they lack, and codes it anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import VECTOR_DIGEST_BYTES, Digest
from asyncdmtl.errors import CodingError, IntegrityError, PlanError, RemoteProtocolError
from asyncdmtl.exchange.coded_server import CodedServerSide
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.hierarchy.below import plan_below
from asyncdmtl.plan.plan import Plan


class RelaySide(ABC):
    """A relay's work under one plan: towards its parent a worker, towards the nodes behind it a server.

    A round is `agree`; then `put` for each range of the rows that nodes send; `take` with the parent's
    digests; `receive` for each range of the rows that come down, which must have been put before; `finish`.
    If `streams` is true, the rows of a range may go down as soon as it was received; else after `finish`.

    Parameters
    ----------
    plan : Plan
        The parent's plan.
    relay : int
        The relay's index in it.
    below : Plan
        The plan for the nodes (`plan_below`), in which the relay is the last worker.
    problem : Problem
    digest : Digest
        The digests of the run.

    Attributes
    ----------
    below : CodedServerSide
        The server's side towards the nodes.
    ranges, down_ranges : tuple of slice
        The bytes of a row that goes up, and of one that comes down, range by range, at both levels.
    layout : Layout
        What the relay tells its parent beside its rows.
    origin : bytes
        What the nodes of a blind run are told of the server's plan; else empty.
    trainer : Trainer or None
        Holds the models of the nodes' tasks under a strategy whose server takes the steps; else None.
    """

    streams = False
    origin = b""
    trainer: Trainer | None = None

    def __init__(
        self, plan: Plan, relay: int, below: CodedServerSide, problem: Problem, digest: Digest
    ) -> None:
        self.below = below
        self._plan, self._relay, self._problem, self._digest = plan, relay, problem, digest
        self._delivery = plan.deliveries[relay]
        self._format = plan.vector_format(problem.wire.length, problem.wire.dtype, grouped=below.grouped)
        self._down_format = self._format_of_results(grouped=below.grouped)
        self.ranges, self.down_ranges = self._format.ranges, self._down_format.ranges
        if (below.ranges, below.down_ranges) != (self.ranges, self.down_ranges):
            raise CodingError("the ranges of rows above and below a relay differ")
        self._encode = plan.coders.encoder(relay)
        self._decode = plan.coders.decoder(relay)
        self._own = self._format.allocate(len(plan.placement.stored[relay]))
        self._wanted = self._down_format.allocate(len(self._delivery.wanted))
        self._rows = [np.empty((plan.uplink_rows[relay], _width(cols)), np.uint8) for cols in self.ranges]
        self._places = self._places_of_rows()
        stored = len(plan.placement.stored[relay])
        self.layout = Layout(problem.dtype, stored, stored, measures=True, state=True)
        self._uploads: tuple[Upload, ...] = ()
        self._told: list[bytes] = []

    @property
    def worker(self) -> int:
        """The relay's index in the plan."""
        return self._relay

    @property
    def stored(self) -> tuple[int, ...]:
        """The partitions that the nodes store together, ascending."""
        return self._plan.placement.stored[self._relay]

    @property
    def group_plan(self) -> Plan | None:
        """The plan, whose rows may come from a multicast group."""
        return self._plan

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets from which the relay decodes; they must have been put before."""
        return self._known(self.down_ranges[i])

    @property
    def sent_bytes(self) -> int:
        """Bytes of the rows that the relay sends up in a round."""
        return sum(rows.nbytes for rows in self._rows)

    @property
    def received_bytes(self) -> int:
        """Bytes of the rows that the relay is sent in a round."""
        return len(self._delivery.rows) * self._down_format.packet_bytes

    def received_range(self, i: int) -> int:
        """Bytes of the rows that the relay is sent in range `i`."""
        return len(self._delivery.rows) * _width(self.down_ranges[i])

    def agree(self, uploads: Sequence[Upload]) -> Upload:
        """Compare the uploads of all nodes; return what the relay tells its parent, without rows.

        Raises
        ------
        DisagreementError, StateError
            As `ServerSide.agree`.
        """
        self._uploads = (*uploads, self._of_others(uploads[0]))
        self.below.agree(self._uploads)
        return self._together(uploads)

    def _of_others(self, first: Upload) -> Upload:
        """What stands for the upload of the relay until the parent has told the digests of all others."""
        others = len(self.below.plan.placement.stored[-1])
        return replace(first, digests=(bytes(VECTOR_DIGEST_BYTES),) * others, losses=(0.0,) * others)

    def _together(self, uploads: Sequence[Upload]) -> Upload:
        """What all nodes told, as the relay tells it its parent."""
        digests, losses = (self._told_by_partition(uploads, what) for what in ("digests", "losses"))
        return replace(uploads[0], rows=(), size=self.sent_bytes, digests=digests, losses=losses)

    def _told_by_partition(self, uploads: Sequence[Upload], what: str, first: int = 0) -> tuple[Any, ...]:
        """What the nodes told of each partition of the relay; `first` times as much is before it."""
        told: dict[int, Any] = {}
        for held, upload in zip(self.below.plan.placement.stored, uploads, strict=False):
            of_each = getattr(upload, what)[first * len(held) :]
            told |= zip(held, of_each, strict=False)
        return tuple(told[n] for n in self.stored)

    def put(self, i: int, rows: Sequence[Bytes]) -> Bytes:
        """Take in range `i` of the rows of all nodes; return range `i` of the rows that go up."""
        cols = self.ranges[i]
        for places, part in zip(self._places, rows, strict=True):
            self._own[places, cols] = part
        self._encode(self._own[:, cols], self._rows[i])
        return self._rows[i]

    def take(self, digests: bytes) -> None:
        """Take in the digests of all vectors that the relay is about to decode.

        Raises
        ------
        RemoteProtocolError
            Their number is not that of the plan.
        """
        count = len(self._delivery.wanted)
        if len(digests) != count * VECTOR_DIGEST_BYTES:
            raise RemoteProtocolError(f"{len(digests)} bytes of digests came for {count} vectors")
        self._told = [
            digests[i : i + VECTOR_DIGEST_BYTES] for i in range(0, len(digests), VECTOR_DIGEST_BYTES)
        ]
        self._use_digests()

    def receive(self, i: int, rows: Bytes) -> None:
        """Decode range `i` of the rows that came down.

        Raises
        ------
        CodingError
            The number of bytes is not that of the plan.
        """
        if rows.nbytes != self.received_range(i):
            raise CodingError(
                f"received {rows.nbytes} bytes of rows in a range, the plan says {self.received_range(i)}"
            )
        cols = self.down_ranges[i]
        received = rows.reshape(len(self._delivery.rows), _width(cols))
        self._decode(received, self._known(cols), self._wanted[:, cols])

    def finish(self) -> None:
        """Compare the decoded vectors with their digests.

        Raises
        ------
        IntegrityError
            They differ: rows were corrupted on their way, or a node sent other rows than it told.
        """
        vectors: Vectors = self._down_format.vectors(self._wanted)
        wrong = [
            n for n, vector, told in zip(self._delivery.wanted, vectors, self._told, strict=True)
            if self._digest(vector) != told
        ]  # fmt: skip
        if wrong:
            names, own = self._names(), self._plan.placement.workers[self._relay]
            odd = [names[n] for n in wrong]
            raise IntegrityError(
                f"relay {own!r} decoded other vectors of {odd} than their holders computed: "
                "bytes were corrupted on their way",
                partitions=odd,
                workers=[own],
            )

    def check_own(self) -> None:
        """Compare the updates that the nodes sent with the digests that they told.

        Raises
        ------
        IntegrityError
            Names the nodes that sent other updates.
        """
        if wrong := self._wrong_own():
            plan = self.below.plan
            names, workers = plan.placement.partitions, plan.placement.workers
            odd, senders = [names[n] for n in wrong], {workers[plan.senders[n]] for n in wrong}
            raise IntegrityError(
                f"{', '.join(map(repr, sorted(senders)))} sent other updates of {odd} than their holders "
                "computed: bytes were corrupted on their way",
                partitions=odd,
                workers=sorted(senders),
            )

    def _wrong_own(self) -> list[int]:
        """The partitions of which a node sent another update than it told."""
        vectors: Vectors = self._format.vectors(self._own)
        stored, told = self.stored, self._told_by_partition(self._uploads[:-1], "digests")
        pairs = zip(stored, vectors, told, strict=True)
        return [n for n, vector, digest in pairs if self._digest(vector) != digest]

    def restore(self, state: Bytes) -> None:
        """Take over the state of the training that the nodes were given, if the relay holds models.

        Raises
        ------
        UsageError
            It has another size, or numbers that are not finite or out of range.
        """
        if self.trainer is not None:
            self.trainer.restore(state)

    def final_check(self, told: bytes) -> bytes:
        """The check that the relay tells of the final models, if this is what most nodes `told`."""
        return told

    def _format_of_results(self, *, grouped: bool) -> VectorFormat:
        """The format of the vectors of the downlink; here the same as that of the uplink."""
        return self._format

    @abstractmethod
    def _known(self, cols: slice) -> Bytes:
        """The packets from which the relay decodes what comes down, in these columns."""

    @abstractmethod
    def _use_digests(self) -> None:
        """Tell the side of the nodes the digests of the vectors that come down."""

    def _names(self) -> Sequence[str]:
        """The names of the vectors that come down."""
        return self._plan.placement.partitions

    def _places_of_rows(self) -> list[list[int]]:
        """For each node, the packets of `_own` that its rows are."""
        below, P = self.below.plan, self._plan.subpackets
        place = {n: i for i, n in enumerate(self.stored)}
        nodes = range(len(below.placement.workers) - 1)
        sent = [[place[n] for n, sender in enumerate(below.senders) if sender == k] for k in nodes]
        return [[i * P + p for i in own for p in range(P)] for own in sent]


class ForwardingSide(RelaySide):
    """A relay under `relay` and `uncoded`: updates come down, range by range, and go on to the nodes."""

    streams = True

    def __init__(
        self, plan: Plan, relay: int, below: CodedServerSide, problem: Problem, digest: Digest
    ) -> None:
        super().__init__(plan, relay, below, problem, digest)
        self._nothing = self._format.allocate(0)
        self._received: dict[int, Sequence[Bytes]] = {}

    def put(self, i: int, rows: Sequence[Bytes]) -> Bytes:
        """Keep the nodes' rows for the downlink, too."""
        self._received[i] = rows
        return super().put(i, rows)

    def receive(self, i: int, rows: Bytes) -> None:
        """Decode range `i`, and combine it with the nodes' rows."""
        super().receive(i, rows)
        self.below.put(i, [*self._received.pop(i), self._wanted[:, self.ranges[i]]])

    def _known(self, cols: slice) -> Bytes:
        return (self._own if self._plan.strategy == "relay" else self._nothing)[:, cols]

    def _use_digests(self) -> None:
        *nodes, rest = self._uploads
        self.below.agree([*nodes, replace(rest, digests=tuple(self._told))])


def said_below(
    plan: Plan,
    relay: str,
    stored: Mapping[str, Sequence[str]],
    problem: Problem,
    helpers: Collection[str] = (),
) -> Plan:
    """The plan for the nodes, without what the plan does not give the relay; raises as `make_relay_side`."""
    if problem.task_of != plan.tasks:
        raise PlanError("plan and tasks do not fit each other")
    said = set(plan.placement.as_dict()[relay])
    kept = {node: [n for n in held if n in said] for node, held in stored.items()}
    return plan_below(plan, relay, kept, helpers)


def groupable(plan: Plan, problem: Problem) -> bool:
    """Whether rows may go to a multicast group below a relay although those of its parent's plan do not.

    The ranges at both levels must be the same.
    """
    shape = problem.wire.length, problem.wire.dtype
    one, other = plan.vector_format(*shape), plan.vector_format(*shape, grouped=True)
    return one.ranges == other.ranges


def _width(cols: slice) -> int:
    return int(cols.stop - cols.start)
