"""A worker's side of a round under a plan over GF(2^8), for each strategy.

Every vector has a short digest. By the digests the server detects holders whose updates differ, and a worker
detects corrupted bytes before it changes its models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.errors import CodingError, IntegrityError
from asyncdmtl.exchange.confirmation import SummedGroups
from asyncdmtl.exchange.sides import DEFAULT_OPTIONS, SideOptions, WorkerSide, measured
from asyncdmtl.exchange.states import OwnState
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.spans import Span


class CodedWorkerSide(WorkerSide):
    """The work of one worker in every round under one plan; buffers and matrices are made once.

    Parameters
    ----------
    plan : Plan
    worker : int
    trainer : Trainer
        Holds the models so far, and exactly the partitions that this worker stores under the plan.
    options : SideOptions, optional
    """

    plan: Plan
    _groups: SummedGroups

    def __init__(
        self,
        plan: Plan,
        worker: int,
        trainer: Trainer,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.plan = self.group_plan = plan
        self._digest, self._detailed, self._carried = options.digest, options.detailed, options.carried
        self._state = OwnState(trainer, options.digest)
        self.worker = worker
        self.trainer = trainer
        self._problem = problem = trainer.problem
        self._groups = groups = self._make_groups(options)
        self.layout = groups.layout(worker, problem.dtype, detailed=options.detailed)
        # The digests of this worker's groups in this round; in detail, of its vectors.
        self._own_digests: tuple[bytes, ...] = ()
        self._compressed = problem.settings.compression != "none"
        if (plan.aggregated or plan.sums) and self._compressed:
            raise CodingError("a plan that codes aggregates of tasks or sums cannot serve compressed updates")
        self._helps = worker in plan.helpers
        self._delivery = plan.deliveries[worker]
        self._format = plan.vector_format(problem.wire.length, problem.wire.dtype, grouped=options.grouped)
        held = plan.units.in_layout(plan.units.held[worker])
        self._own = self._format.allocate(len(held))
        self._own_units = dict(zip(held, self._vectors(self._own), strict=True))
        self._own_updates = self._array_of_updates(held)
        self._encode = plan.coders.encoder(worker)
        # Made before the first round, as it may take long.
        plan.coders.decoder(worker)
        self._down_format = self._format_of_results(options.grouped)
        self.ranges, self.down_ranges = self._format.ranges, self._down_format.ranges
        # A single range is the array itself, not a view, because the encoder caches by array.
        whole = len(self.ranges) == 1
        self._packets = self._packets_to_code()
        self._sources = [self._packets if whole else self._packets[:, cols] for cols in self.ranges]
        count = plan.uplink_rows[worker] if options.carried else 0
        self._rows = tuple(np.empty((count, n), np.uint8) for n in map(_width, self.ranges))
        self._known = self._known_packets()
        self._wanted = self._allocate_wanted(len(self._delivery.wanted))
        self._prepared = False
        trainer.warm_up()

    @property
    def received_bytes(self) -> int:
        """Bytes of the rows that this worker is sent in a round."""
        return len(self._delivery.rows) * self._down_format.packet_bytes

    def received_range(self, i: int) -> int:
        """Bytes of the rows that this worker is sent in range `i`."""
        return len(self._delivery.rows) * _width(self.down_ranges[i])

    def compute(self) -> Upload:
        """Compute local updates at the current models and encode them."""
        self._prepared = False
        losses = self.trainer.packed_updates(self._own_updates)
        aggregates = self._fill_units()
        digests = self._own_digests = self._digests((*self._own_updates, *aggregates))
        # Checked after the updates are made: a number that was corrupted before them is still there.
        state = self.state_check()
        self._prepare_packets(state)
        if self._carried:
            for packets, rows in zip(self._sources, self._rows, strict=True):
                self._encode(packets, rows)
        return Upload(
            self._rows,
            sum(rows.nbytes for rows in self._rows),
            digests,
            self._problem.rounded(losses),
            *self._penalty_and_residual(),
            state,
        )

    def told(self, upload: Upload) -> Upload:
        """What this worker sends of an upload."""
        return upload if self._detailed else self._groups.shortened(self.worker, upload)

    def receive(self, i: int, rows: Bytes, absent: tuple[int, ...] = ()) -> None:
        """Decode the rows of range `i`, and begin the step with them if that is possible."""
        self._check_size(i, rows)
        if len(absent) > self.plan.silent:
            raise CodingError(
                f"rows without those of {len(absent)} workers came, the plan tolerates {self.plan.silent}"
            )
        if self._helps:
            return
        self._prepare()
        cols = self.down_ranges[i]
        received = rows.reshape(len(self._delivery.rows), _width(cols))
        decode = self.plan.coders.decoder(self.worker, absent)
        decode(received, self._known[:, cols], self._wanted[:, cols])
        if i + 1 < len(self.down_ranges):
            self._advance(cols.stop)

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets from which this worker decodes a multicast, (packets, bytes)."""
        self._prepare()
        return self._known[:, self.down_ranges[i]]

    def apply(self, expected: bytes) -> None:
        """Check the digest of the decoded vectors, and take the step to the next models."""
        self._finish_decoding()
        decoded: Vectors = self._down_format.vectors(self._wanted)
        if self._digest_of(decoded) != expected:
            raise self._corrupted()
        # A worker that wants no models has nothing to take a step with.
        if not self._helps:
            self._prepare()
            self._step(decoded)

    def _make_groups(self, options: SideOptions) -> SummedGroups:
        """The groups of digests under the plan."""
        return SummedGroups(self.plan, options.digest, options.keys)

    def _digests(self, vectors: Sequence[Vectors]) -> tuple[bytes, ...]:
        """The digests that an upload has, of the updates and aggregates of this worker."""
        if self._detailed:
            return tuple(map(self._digest, vectors))
        groups, k = self._groups, self.worker
        needed = groups.needed(k)
        made = {i: self._digest(v) for i, v in zip(groups.digests_of[k], vectors, strict=True) if i in needed}
        return groups.of_groups(groups.held[k], made)

    def _digest_of(self, decoded: Vectors) -> bytes:
        """The digest of all decoded vectors, which the server sends, too (`ServerSide.digest`)."""
        return self._digest.combined([self._digest(vector) for vector in decoded])

    def _array_of_updates(self, held: Sequence[int]) -> Vectors:
        """The array that local updates are written to: the array of units, if all units are updates."""
        updates, own = self.plan.units.updates, self.trainer.own
        self._updates_are_units = len(held) == len(own) and all(
            unit < len(updates) and updates[unit] == n for unit, n in zip(held, own, strict=True)
        )
        if self._updates_are_units:
            return self._vectors(self._own)
        return np.zeros((len(own), self._problem.wire.length), self._format.dtype)

    def _fill_units(self) -> list[Vectors]:
        """Fill the units that are no views of the updates; return those that are aggregates or sums."""
        if self._updates_are_units:
            return []
        units, partitions_of = self.plan.units, self._problem.partitions_of
        first, last = len(units.updates), len(units.updates) + len(units.aggregated)
        updates = dict(zip(self.trainer.own, self._own_updates, strict=True))
        combined = []
        for unit, vector in sorted(self._own_units.items(), key=lambda item: item[0]):
            own = [updates[n] for n in units.parts(unit, partitions_of)]
            if unit < first:
                vector[:] = own[0]
                continue
            if unit < last:
                vector[:] = self._problem.aggregate(units.aggregated[unit - first], np.stack(own))
            else:
                part = units.sums[unit - last]
                vector[:] = self._problem.partial_sum(part.task, part.span, own)
            combined.append(vector)
        return combined

    def models(self) -> TaskModels:
        """The models of all tasks; of none, if this worker wants none."""
        models = super().models()
        return models.of(()) if self._helps else models

    def baselines(self) -> dict[str, TaskModels]:
        """Models without coupling; none, if this worker wants no models."""
        return {} if self._helps else super().baselines()

    def state_check(self) -> bytes:
        """The digest of the state of the training, which is the same at all workers."""
        return self._state.check()

    def _format_of_results(self, grouped: bool) -> VectorFormat:
        """The format of the vectors of the downlink; here the same as that of the uplink."""
        return self._format

    def _packets_to_code(self) -> Bytes:
        """The array of the packets that are encoded: those of the units themselves."""
        return self._own

    def _allocate_wanted(self, vectors: int) -> Bytes:
        """An array for the packets that are decoded."""
        return self._down_format.allocate(vectors)

    def _prepare_packets(self, state: bytes) -> None:
        """Prepare the packets that are encoded, once the units of the round are made from this state."""

    def _finish_decoding(self) -> None:
        """Turn the decoded packets into those of the vectors, once all of them are here."""

    @abstractmethod
    def _known_packets(self) -> Bytes:
        """An array for the side information, which `_collect_known` fills in each round."""

    def _prepare(self) -> None:
        """Prepare the side information from this round's own updates, once in a round."""
        if not self._prepared:
            self._collect_known()
            self._prepared = True

    @abstractmethod
    def _collect_known(self) -> None:
        """Fill the array of side information."""

    @abstractmethod
    def _advance(self, stop: int) -> None:
        """Begin the step with the columns whose packets have been decoded, up to byte `stop`."""

    @abstractmethod
    def _step(self, decoded: Vectors) -> None:
        """Take the step with the `decoded` vectors."""

    @abstractmethod
    def _names(self) -> Sequence[str]:
        """Names, for errors, of the vectors that the columns of the downlink matrix stand for."""

    def _penalty_and_residual(self) -> tuple[float, float]:
        """Penalty and residual, which are the same at all workers."""
        return measured(self.trainer, self.worker, detailed=self._detailed)

    def _vectors(self, packed: Bytes) -> Vectors:
        vectors: Vectors = self._format.vectors(packed)
        return vectors

    def _corrupted(self) -> IntegrityError:
        wanted = [self._names()[column] for column in self._delivery.wanted]
        worker = self.plan.placement.workers[self.worker]
        return IntegrityError(
            f"worker {worker!r} decoded other vectors of {wanted} than their holders computed: "
            "bytes were corrupted on their way",
            partitions=wanted,
            workers=[worker],
        )


class AggregatingWorkerSide(CodedWorkerSide):
    """A worker that takes the step itself, with the aggregates of all tasks."""

    # The vectors of each task, once a round's side information is prepared.
    _vectors_by_task: Sequence[Sequence[Vectors]] = ()

    @abstractmethod
    def _known_vectors(self) -> dict[int, Vectors]:
        """The vectors that this worker has without decoding, by their columns in the downlink matrix."""

    @abstractmethod
    def _by_task(self, vectors: dict[int, Vectors]) -> list[list[Vectors]]:
        """Sort vectors, given by their columns in the downlink matrix, by task."""

    def _spans(self, t: int) -> Sequence[Span] | None:
        """The partitions of task `t` that each of its vectors stands for; None for one each."""
        return None

    def _collect_known(self) -> None:
        vectors = self._known_vectors()
        wanted = self.plan.packed_order(self._delivery.wanted)
        vectors |= zip(wanted, self._vectors(self._wanted), strict=True)
        self._vectors_by_task = self._by_task(vectors)

    def _advance(self, stop: int) -> None:
        if self._problem.columnwise:
            self.trainer.advance(self._aggregates, lambda cols: self._format.reaches(cols, stop))

    def _step(self, decoded: Vectors) -> None:
        if self._problem.columnwise:
            self.trainer.step(self._aggregates)
        else:
            self.trainer.step(self._aggregates(slice(None)))

    def _aggregates(self, cols: slice) -> list[Vectors]:
        """The aggregates of all tasks in the columns `cols`."""
        return [
            self._aggregate(t, vectors, cols, self._spans(t))
            for t, vectors in enumerate(self._vectors_by_task)
        ]

    def _aggregate(
        self, t: int, vectors: Sequence[Vectors], cols: slice, spans: Sequence[Span] | None = None
    ) -> Vectors:
        """The aggregate of one task, from its updates and sums, or as it was received if it travels."""
        if len(vectors) == 1 and not self._compressed:
            return vectors[0][cols]
        if self._compressed:
            own = zip(self._problem.partitions_of[t], vectors, strict=True)
            vectors = [self.trainer.unpacked(n, v) for n, v in own]
        return self._problem.aggregate(t, np.stack([v[cols] for v in vectors]), spans)


class RelayWorkerSide(AggregatingWorkerSide):
    """A worker under `relay`: it decodes the units that it lacks, with its own units as side information."""

    streams = True

    def _digest_of(self, decoded: Vectors) -> bytes:
        numbers = (self._groups.of_units[unit] for unit in self.plan.packed_order(self._delivery.wanted))
        digests = dict(zip(numbers, map(self._digest, decoded), strict=True))
        if self._detailed:
            return self._groups.received(self.worker, digests)
        return self._groups.found(self.worker, digests, self._own_digests)

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets of this worker's own units, (packets, bytes)."""
        return self._packets[:, self.ranges[i]]

    def own_vectors(self) -> dict[int, Bytes]:
        """The bytes of this worker's own units, by number."""
        return {unit: vector.view(np.uint8) for unit, vector in self._own_units.items()}

    def wanted_vectors(self) -> dict[int, Bytes]:
        """The bytes of the units that this worker decodes, by number."""
        units = self.plan.packed_order(self._delivery.wanted)
        vectors = self._vectors(self._wanted)
        return {unit: vector.view(np.uint8) for unit, vector in zip(units, vectors, strict=True)}

    def _known_packets(self) -> Bytes:
        return self._packets

    def _known_vectors(self) -> dict[int, Vectors]:
        return dict(self._own_units)

    @cached_property
    def _coded(self) -> list[dict[Span, int]]:
        return self.plan.units.coded_spans(self._problem.partitions_of)

    def _spans(self, t: int) -> Sequence[Span]:
        return tuple(self._coded[t])

    def _by_task(self, vectors: dict[int, Vectors]) -> list[list[Vectors]]:
        return [[vectors[unit] for unit in coded.values()] for coded in self._coded]

    def _names(self) -> Sequence[str]:
        plan = self.plan
        return plan.units.names(plan.placement, self._problem.tasks, plan.tasks)


class UncodedWorkerSide(RelayWorkerSide):
    """A worker under `uncoded`: updates come down as they are, and its own do not help to decode them."""

    def _known_packets(self) -> Bytes:
        return self._format.allocate(0)


class CentralWorkerSide(AggregatingWorkerSide):
    """A worker under `central`: it decodes the aggregates of the tasks that it does not store whole."""

    def _known_packets(self) -> Bytes:
        return self._format.allocate(len(self._delivery.known))

    def _known_vectors(self) -> dict[int, Vectors]:
        own = dict(zip(self.trainer.own, self._own_updates, strict=True))
        known = self._vectors(self._known)
        for i, t in enumerate(self._delivery.known):
            known[i] = self._aggregate(t, [own[n] for n in self._problem.partitions_of[t]], slice(None))
        return dict(zip(self._delivery.known, known, strict=True))

    def _by_task(self, vectors: dict[int, Vectors]) -> list[list[Vectors]]:
        return [[vectors[t]] for t in range(len(self._problem.tasks))]

    def _names(self) -> Sequence[str]:
        return self._problem.tasks


class PersonalWorkerSide(CodedWorkerSide):
    """A worker under `personal`: it decodes the models of its own tasks, which the server made."""

    def models(self) -> TaskModels:
        """The models of the tasks of this worker's partitions."""
        return super().models().of(self._delivery.wanted)

    def baselines(self) -> dict[str, TaskModels]:
        """Models of these tasks without coupling, for comparison."""
        return {kind: models.of(self._delivery.wanted) for kind, models in super().baselines().items()}

    def state_check(self) -> bytes:
        """The digest of the points at which updates are computed, with 0 for −0 as in `Trainer.told`."""
        return self._check_of(self.trainer.Y + 0.0)

    def final_check(self) -> bytes:
        """The digest of the models of this worker's tasks."""
        return self._check_of(self.trainer.W)

    def _check_of(self, models: Vectors) -> bytes:
        return self._digest.combined([self._digest(models[t]) for t in self._delivery.wanted])

    def _format_of_results(self, grouped: bool) -> VectorFormat:
        return self.plan.vector_format(*self._problem.told, grouped=grouped)

    def _known_packets(self) -> Bytes:
        return self._down_format.allocate(0)

    def _collect_known(self) -> None:
        """Do nothing: a worker has no side information about the models that the server makes."""

    def _advance(self, stop: int) -> None:
        """Do nothing: the server takes the step."""

    def _step(self, decoded: Vectors) -> None:
        self.trainer.take_told(self._delivery.wanted, decoded.view(np.uint8))

    def _names(self) -> Sequence[str]:
        return self._problem.tasks

    def _penalty_and_residual(self) -> tuple[float, float]:
        """Zeros: the server computes both itself."""
        return 0.0, 0.0


def _width(cols: slice) -> int:
    return int(cols.stop - cols.start)
