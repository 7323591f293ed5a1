"""One round of a run, without a wire: what a worker and the server do between the messages.

Bytes that one side returns are what the other side takes. The runtime carries them; tests pass them on by
hand. Every vector has a short digest, so that replicas which disagree, or bytes that were corrupted on
their way, are found before they touch a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import combined_digest, digest
from asyncdmtl.errors import CodingError, DisagreementError, IntegrityError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Trainer
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan


def reported_by(placement: Placement, worker: int) -> tuple[int, ...]:
    """The partitions whose loss `worker` reports: those that no worker before it stores."""
    return tuple(n for n in placement.stored[worker] if placement.holders[n][0] == worker)


@dataclass(frozen=True, eq=False)
class Upload:
    """A worker's part of a round: coded rows, and what the server needs to know beside them.

    `rows` are those that the worker sends, range after range (`VectorFormat.ranges`), each a uint8 array
    (rows, bytes); at the server, those that are here. `size` is the number of bytes of all of them.
    `digests` are those of the updates of all stored partitions, `losses` the mean losses of the
    partitions that this worker reports, `penalty` the coupling's at the current models and `residual` that
    of the last step (`Trainer.residual`); both come from the first worker, from the others they are 0.
    """

    rows: tuple[Bytes, ...]
    size: int
    digests: tuple[bytes, ...]
    losses: tuple[float, ...]
    penalty: float
    residual: float


def losses_by_partition(reported: Sequence[Sequence[int]], sent: Sequence[Upload]) -> NDArray[np.float64]:
    """The mean loss of every partition, from what each worker reports."""
    losses = np.empty(sum(map(len, reported)))
    for partitions, part in zip(reported, sent, strict=True):
        losses[list(partitions)] = part.losses
    return losses


class WorkerSide:
    """What worker `k` does in every round under one plan; buffers and matrices are made once.

    Parameters
    ----------
    plan : Plan
    worker : int
    trainer : Trainer
        The models so far, and exactly the partitions that the plan says this worker stores.
    grouped : bool
        Whether rows go to a group of workers; the same for all workers and the server.

    Attributes
    ----------
    ranges : tuple of slice
        The bytes of a packet, range by range.
    streams : bool
        Whether a range may come down before the next one went up.
    """

    def __init__(self, plan: Plan, worker: int, trainer: Trainer, *, grouped: bool = False) -> None:
        self.plan = plan
        self.streams = plan.broadcasts == "updates"
        self.worker = worker
        self.trainer = trainer
        self._problem = problem = trainer.problem
        self._personal = plan.strategy == "personal"
        self._delivery = plan.deliveries[worker]
        self._format = plan.vector_format(problem.wire.length, problem.wire.dtype, grouped=grouped)
        self._own = self._format.allocate(len(trainer.own))
        self._encode = plan.coders.encoder(worker)
        self._decode = plan.coders.decoder(worker)
        self.ranges = self._format.ranges
        self._widths = [int(cols.stop - cols.start) for cols in self.ranges]
        # Of one range the array itself, which the encoder remembers.
        whole = len(self.ranges) == 1
        self._sources = [self._own if whole else self._own[:, cols] for cols in self.ranges]
        self._rows = tuple(np.empty((plan.uplink_rows[worker], n), np.uint8) for n in self._widths)
        relayed = plan.strategy == "relay"
        self._known = self._own if relayed else self._format.allocate(len(self._delivery.known))
        self._wanted = self._format.allocate(len(self._delivery.wanted))
        self._known_by_column: dict[int, Vectors] = {}
        self._vectors_by_task: list[list[Vectors]] = []
        trainer.warm_up()
        reported = set(reported_by(plan.placement, worker))
        self._reported = [i for i, n in enumerate(self.trainer.own) if n in reported]

    @property
    def received_bytes(self) -> int:
        """Bytes of the rows that this worker is sent in a round."""
        return len(self._delivery.rows) * self._format.packet_bytes

    def received_range(self, i: int) -> int:
        """Bytes of these rows in range `i`."""
        return len(self._delivery.rows) * self._widths[i]

    def compute(self) -> Upload:
        """Local updates at the current models, encoded. The rows stay valid until the next call."""
        self._known_by_column = {}
        own = self._vectors(self._own)
        losses = self.trainer.packed_updates(own)
        for packets, rows in zip(self._sources, self._rows, strict=True):
            self._encode(packets, rows)
        return Upload(
            self._rows,
            sum(rows.nbytes for rows in self._rows),
            tuple(digest(update) for update in own),
            tuple(float(losses[i]) for i in self._reported),
            *self._told(),
        )

    def receive(self, i: int, rows: Bytes) -> None:
        """Decode what was sent down in range `i`; ranges come in their order.

        Parameters
        ----------
        rows : uint8 array, one-dimensional
            This range of the rows of this worker, one after the other.

        Raises
        ------
        CodingError
            Another number of bytes than the plan says.
        """
        if rows.nbytes != self.received_range(i):
            raise CodingError(
                f"received {rows.nbytes} bytes of rows in a range, the plan says {self.received_range(i)}"
            )
        self._prepare()
        cols = self.ranges[i]
        received = rows.reshape(len(self._delivery.rows), self._widths[i])
        self._decode(received, self._known[:, cols], self._wanted[:, cols])
        if self._problem.columnwise and not self._personal and i + 1 < len(self.ranges):
            self.trainer.advance(self._aggregates, lambda at: self._format.reaches(at, cols.stop))

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets that this worker knows of a broadcast (see `codes.repair`)."""
        self._prepare()
        if self._personal:
            return np.empty((0, self._widths[i]), np.uint8)
        known = self._own if self.plan.broadcasts == "updates" else self._known
        return known[:, self.ranges[i]]

    def apply(self, expected: bytes) -> None:
        """Check what was decoded against `expected`, and take the step to the next models.

        Parameters
        ----------
        expected : bytes
            The combined digest of the vectors that this worker decodes.

        Raises
        ------
        IntegrityError
            The decoded vectors are not those that were computed.
        """
        decoded = self._vectors(self._wanted)
        if combined_digest([digest(vector) for vector in decoded]) != expected:
            raise self._corrupted()
        self._prepare()
        if self._personal:
            self.trainer.place(self._delivery.wanted, decoded)
            return
        if self._problem.columnwise:
            self.trainer.step(self._aggregates)
        else:
            self.trainer.step(self._aggregates(slice(None)))

    def models(self) -> TaskModels:
        """The models that this worker has: of all tasks, for `personal` of those of its partitions."""
        models = self.trainer.models()
        return models.of(self._delivery.wanted) if self._personal else models

    def models_digest(self) -> bytes:
        """The digest of the models that this worker has."""
        return digest(self.trainer.W[list(self._delivery.wanted)] if self._personal else self.trainer.W)

    def _told(self) -> tuple[float, float]:
        """Penalty and residual: all have the same; the server takes the first worker's, or its own."""
        if self.worker > 0 or self._personal:
            return 0.0, 0.0
        return self.trainer.penalty(), self.trainer.residual

    def _prepare(self) -> None:
        """Have the side information of this round."""
        if not self._known_by_column:
            self._known_by_column = self._known_vectors()
            if not self._personal:
                self._vectors_by_task = self._by_task()

    def _by_task(self) -> list[list[Vectors]]:
        """Of each task the vectors that are broadcast: its updates, or its aggregate."""
        wanted = dict(zip(self._delivery.wanted, self._vectors(self._wanted), strict=True))
        vectors = {**self._known_by_column, **wanted}
        if self.plan.broadcasts == "aggregates":
            return [[vectors[t]] for t in range(len(self._problem.tasks))]
        return [[vectors[n] for n in S] for S in self._problem.partitions_of]

    def _known_vectors(self) -> dict[int, Vectors]:
        """Side information by column: own updates, or aggregates of the tasks that are stored whole."""
        own = dict(zip(self.trainer.own, self._vectors(self._own), strict=True))
        if self.plan.broadcasts == "updates":
            return own
        known = self._vectors(self._known)
        for i, t in enumerate(self._delivery.known):
            known[i] = self._aggregate(t, [own[n] for n in self._problem.partitions_of[t]], slice(None))
        return dict(zip(self._delivery.known, known, strict=True))

    def _aggregates(self, cols: slice) -> list[Vectors]:
        """The aggregated updates of all tasks in some columns, as far as they were decoded."""
        return [self._aggregate(t, vectors, cols) for t, vectors in enumerate(self._vectors_by_task)]

    def _aggregate(self, t: int, updates: Sequence[Vectors], cols: slice) -> Vectors:
        """That of one task, from its updates as they travel; or from its aggregate, which it is already."""
        if len(updates) == 1:
            return self._problem.wire.unpack(updates[0])[cols]
        return self._problem.aggregate(t, np.stack([self._problem.wire.unpack(v)[cols] for v in updates]))

    def _vectors(self, packed: Bytes) -> Vectors:
        vectors: Vectors = self._format.vectors(packed)  # type: ignore[assignment]
        return vectors

    def _corrupted(self) -> IntegrityError:
        updates = self.plan.broadcasts == "updates"
        names = self.plan.placement.partitions if updates else self._problem.tasks
        wanted = [names[column] for column in self._delivery.wanted]
        worker = self.plan.placement.workers[self.worker]
        return IntegrityError(
            f"worker {worker!r} decoded other vectors of {wanted} than their holders computed: "
            "bytes were corrupted on their way",
            partitions=wanted,
            workers=[worker],
        )


class ServerSide:
    """What the server does in every round under one plan: compare, combine, perhaps aggregate.

    A round is `begin`, then `put` for each range of what came up, then `finish`. Where the server only
    recombines, it `streams`: the rows of a range may be sent down as soon as it was put.

    Parameters
    ----------
    plan : Plan
    problem : Problem
    trainer : Trainer, optional
        The models so far, which the server has under `personal` only; default: those before the first round.
    grouped : bool
        Whether rows go to a group of workers.

    Attributes
    ----------
    ranges : tuple of slice
        The bytes of a packet, range by range.
    streams : bool
    """

    def __init__(
        self, plan: Plan, problem: Problem, trainer: Trainer | None = None, *, grouped: bool = False
    ) -> None:
        self.plan = plan
        self.trainer = trainer or Trainer(problem, {})
        self.streams = plan.broadcasts == "updates"
        self._problem = problem
        self._format = plan.vector_format(problem.wire.length, problem.wire.dtype, grouped=grouped)
        self.ranges = self._format.ranges
        self._widths = [int(cols.stop - cols.start) for cols in self.ranges]
        self._recombine = plan.coders.recombiner
        self._down = [np.empty((len(plan.downlink_matrix), n), np.uint8) for n in self._widths]
        self._digests: list[bytes] = []
        self._reported = [reported_by(plan.placement, k) for k in range(len(plan.placement.workers))]
        self._told = self.trainer.penalty(), self.trainer.residual
        if not self.streams:
            self._collected, self._collect = plan.coders.collector()
            self._updates = self._format.allocate(len(plan.tasks))
            self._results = self._format.allocate(len(problem.tasks))

    def uplink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` sends in a round."""
        return self.plan.uplink_rows[worker] * self._format.packet_bytes

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        """Shape of these rows in range `i`."""
        return self.plan.uplink_rows[worker], self._widths[i]

    def downlink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` is sent in a round."""
        return len(self.plan.deliveries[worker].rows) * self._format.packet_bytes

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector as it is coded, padding included: the unit of the loads."""
        return self._format.padded_bytes

    @property
    def broadcast_bytes(self) -> int:
        """Bytes of the downlink with each row counted once."""
        return sum(rows.nbytes for rows in self._down)

    def check(self, worker: int, sent: Upload) -> None:
        """Raise CodingError unless sizes and counts are those of the plan."""
        counts = {
            "bytes of rows": (sent.size, self.uplink_bytes(worker)),
            "digests": (len(sent.digests), len(self.plan.placement.stored[worker])),
            "losses": (len(sent.losses), len(self._reported[worker])),
        }
        for what, (got, expected) in counts.items():
            if got != expected:
                name = self.plan.placement.workers[worker]
                raise CodingError(f"worker {name!r} sent {got} {what}, the plan says {expected}")

    def begin(self, sent: Sequence[Upload]) -> None:
        """Begin a round with the parts of all workers, in their order; rows are not needed yet.

        Raises
        ------
        DisagreementError
            Holders of a partition computed different updates; names the partitions and the odd workers.
        """
        self._digests = self._agreed(sent)

    def put(self, i: int, rows: Sequence[Bytes]) -> None:
        """Take in range `i` of the rows of all workers, in their order: uint8 arrays (rows, bytes)."""
        if self.streams:
            self._recombine(rows, self._down[i])
        else:
            each = [row for part in rows for row in part]
            self._collect([each[r] for r in self._collected], (), self._updates[:, self.ranges[i]])

    def finish(self, last: bool) -> None:
        """End a round, of which all ranges are there; `last` ends the run.

        Raises
        ------
        IntegrityError
            The updates that the server decoded are not those that were computed; no model was touched.
        """
        if self.streams:
            return
        self._digests = self._aggregate(self._digests, last)
        for cols, down in zip(self.ranges, self._down, strict=True):
            self._recombine(self._results[:, cols], down)

    def digest(self, worker: int) -> bytes:
        """The combined digest of what `worker` will decode."""
        return combined_digest([self._digests[column] for column in self.plan.deliveries[worker].wanted])

    def block(self, i: int) -> Bytes:
        """Range `i` of all rows of the downlink, (R_down·P, bytes), valid until the next round."""
        return self._down[i]

    def rows(self, worker: int, i: int) -> tuple[Bytes, ...]:
        """Range `i` of what `worker` is sent: contiguous arrays, valid until the next round."""
        rows, down = self.plan.deliveries[worker].rows, self._down[i]
        if rows == tuple(range(len(rows))):
            return (down[: len(rows)].reshape(-1),)
        return tuple(down[row] for row in rows)

    def objective(self, sent: Sequence[Upload]) -> float:
        """The objective where the updates of the round were computed; to be asked before `finish`."""
        losses = losses_by_partition(self._reported, sent)
        return self._problem.data_loss(losses) + self._penalty_and_residual(sent)[0]

    def residual(self, sent: Sequence[Upload]) -> float:
        """`Trainer.residual` of the step before the round; to be asked before `finish`."""
        return self._penalty_and_residual(sent)[1]

    def converged(self, sent: Sequence[Upload]) -> bool:
        """Whether the run may end with this round; to be asked before `finish`."""
        return self._problem.converged(self.objective(sent), self.residual(sent))

    def _penalty_and_residual(self, sent: Sequence[Upload]) -> tuple[float, float]:
        if self.plan.strategy == "personal":
            return self._told
        return sent[0].penalty, sent[0].residual

    def models_agree(self, digests: Mapping[int, bytes]) -> bool:
        """Whether these workers ended with the models that they should have."""
        if self.plan.strategy != "personal":
            return len(set(digests.values())) <= 1
        W, deliveries = self.trainer.W, self.plan.deliveries
        return all(claim == digest(W[list(deliveries[k].wanted)]) for k, claim in digests.items())

    def _aggregate(self, expected: Sequence[bytes], last: bool) -> list[bytes]:
        """Apply ψ within every task and for `personal` φ; the digests of the results."""
        updates: Vectors = self._format.vectors(self._updates)  # type: ignore[assignment]
        self._check_decoded(updates, expected)
        results = self._format.vectors(self._results)
        for t, partitions in enumerate(self._problem.partitions_of):
            results[t] = self._problem.aggregate(t, updates[list(partitions)])
        if self.plan.strategy == "personal":
            self.trainer.step(results)  # type: ignore[arg-type]
            self._told = self.trainer.penalty(), self.trainer.residual
            # Workers compute their next updates at what they are sent; the last of it are their models.
            results[:] = self.trainer.W if last else self.trainer.Y
        return [digest(result) for result in results]

    def _check_decoded(self, updates: Vectors, expected: Sequence[bytes]) -> None:
        names = self.plan.placement.partitions
        odd = [name for name, v, claim in zip(names, updates, expected, strict=True) if digest(v) != claim]
        if odd:
            raise IntegrityError(
                f"the server decoded other updates of {odd} than their holders computed: "
                "bytes were corrupted on their way",
                partitions=odd,
                workers=[],
            )

    def _agreed(self, sent: Sequence[Upload]) -> list[bytes]:
        """The digest of every update, on which all its holders agree."""
        placement = self.plan.placement
        claims: list[dict[bytes, list[str]]] = [{} for _ in placement.partitions]
        for worker, stored, part in zip(placement.workers, placement.stored, sent, strict=True):
            for n, claim in zip(stored, part.digests, strict=True):
                claims[n].setdefault(claim, []).append(worker)
        odd: dict[str, list[str]] = {}
        told = []
        for name, groups in zip(placement.partitions, claims, strict=True):
            if len(groups) > 1:
                # Groups are in the order of their first workers, and of equals max takes the first.
                trusted = max(groups.values(), key=len)
                for group in groups.values():
                    for worker in group if group is not trusted else ():
                        odd.setdefault(worker, []).append(name)
                told.append(f"{name!r}: " + " against ".join(", ".join(group) for group in groups.values()))
        if odd:
            raise DisagreementError(
                f"holders computed different updates from the same partition: {'; '.join(told)}", odd=odd
            )
        return [next(iter(groups)) for groups in claims]
