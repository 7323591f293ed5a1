"""One round of a run with linear targets: the same two sides as in `exchange`, over the reals.

Workers recover `A·V` only up to rounding, each in its own way, so replicas may drift apart in their last
bits: updates have no digests here. Those of the rows still tell bytes that were corrupted on their way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import digest
from asyncdmtl.errors import CodingError, IntegrityError
from asyncdmtl.exchange.coded import Upload, losses_by_partition, reported_by
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Trainer
from asyncdmtl.plan.linear.plan import LinearPlan


class LinearWorkerSide:
    """What worker `k` does in every round under a linear plan."""

    def __init__(self, plan: LinearPlan, worker: int, trainer: Trainer) -> None:
        self.plan = plan
        self.worker = worker
        self.trainer = trainer
        problem = trainer.problem
        # Vectors of numbers are combined whole, in the last step.
        self.streams = False
        self.ranges = (slice(0, self.received_bytes),)
        self._received: Bytes = np.empty(0, np.uint8)
        self._own: Vectors = np.empty((len(trainer.own), problem.d), problem.dtype)
        reported = set(reported_by(plan.placement, worker))
        self._reported = [i for i, n in enumerate(trainer.own) if n in reported]

    @property
    def received_bytes(self) -> int:
        """Bytes of the rows that this worker is sent in a round."""
        problem = self.trainer.problem
        return self.plan.missing_ranks[self.worker] * problem.d * problem.dtype.itemsize

    def compute(self) -> Upload:
        """Local updates at the current models, combined."""
        losses = self.trainer.local_updates(self._own)
        rows = _as_bytes(self.plan.encode(self.worker, self._own))
        reported = tuple(float(losses[i]) for i in self._reported)
        told = (self.trainer.penalty(), self.trainer.residual) if self.worker == 0 else (0.0, 0.0)
        return Upload((rows,), rows.nbytes, (digest(rows),), reported, *told)

    def received_range(self, i: int) -> int:
        """Bytes of these rows, which all come at once."""
        return self.received_bytes

    def receive(self, i: int, rows: Bytes) -> None:
        """Take in what was sent down; CodingError if it is of another size than the plan says."""
        if rows.nbytes != self.received_bytes:
            raise CodingError(f"received {rows.nbytes} bytes of rows, the plan says {self.received_bytes}")
        self._received = rows

    def apply(self, expected: bytes) -> None:
        """Recover `A·V` and take the step; IntegrityError if these are not the rows sent."""
        received, self._received = self._received, self._received[:0]
        if digest(received) != expected:
            name = self.plan.placement.workers[self.worker]
            raise IntegrityError(
                f"worker {name!r} received other rows than were sent", partitions=[], workers=[name]
            )
        problem = self.trainer.problem
        rows = received.view(problem.dtype).reshape(-1, problem.d)
        self.trainer.step(problem.spread(self.plan.recover(self.worker, rows, self._own)))

    def models(self) -> TaskModels:
        """The models of all tasks."""
        return self.trainer.models()

    def models_digest(self) -> bytes:
        """The digest of the models that this worker has."""
        return digest(self.trainer.W)


class LinearServerSide:
    """What the server does in every round under a linear plan: solve for `A·V`, and combine it again."""

    def __init__(self, plan: LinearPlan, problem: Problem) -> None:
        self.plan = plan
        self._problem = problem
        self._reported = [reported_by(plan.placement, k) for k in range(len(plan.placement.workers))]
        # Vectors of numbers are combined whole, in `finish`.
        self.streams = False
        self.ranges = (slice(0, self._packet_bytes),)
        self._uplink: tuple[Bytes, ...] = ()
        self._down: Bytes = np.empty(0, np.uint8)

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector as it is coded, padding included: the unit of the loads."""
        return self._packet_bytes * self.plan.subpackets

    @property
    def broadcast_bytes(self) -> int:
        """Bytes of the downlink with each row counted once."""
        return len(self.plan.downlink_matrix) * self._problem.d * self._problem.dtype.itemsize

    @property
    def _packet_bytes(self) -> int:
        return -(-self._problem.d // self.plan.subpackets) * self._problem.dtype.itemsize

    def uplink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` sends in a round."""
        return len(self.plan.uplink_matrices[worker]) * self._packet_bytes

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        """Shape of these rows, which all come at once."""
        return len(self.plan.uplink_matrices[worker]), self._packet_bytes

    def downlink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` is sent in a round."""
        return self.plan.missing_ranks[worker] * self._problem.d * self._problem.dtype.itemsize

    def check(self, worker: int, sent: Upload) -> None:
        """CodingError unless sizes and counts are those of the plan, IntegrityError on corrupted rows."""
        name = self.plan.placement.workers[worker]
        if (sent.size, len(sent.losses)) != (self.uplink_bytes(worker), len(self._reported[worker])):
            raise CodingError(f"worker {name!r} sent other numbers of rows or losses than the plan says")
        if sent.digests != (digest(sent.rows[0]),):
            raise IntegrityError(f"rows of worker {name!r} were corrupted", partitions=[], workers=[name])

    def begin(self, sent: Sequence[Upload]) -> None:
        """Begin a round; `check` has compared all that can be."""

    def put(self, i: int, rows: Sequence[Bytes]) -> None:
        """Take in the rows of all workers, in their order."""
        self._uplink = tuple(rows)

    def finish(self, last: bool) -> None:
        """Solve for `A·V` and combine it for the workers, `last` or not."""
        dtype, packet = self._problem.dtype, self._packet_bytes // self._problem.dtype.itemsize
        rows = {k: part.view(dtype).reshape(-1, packet) for k, part in enumerate(self._uplink)}
        combined = self.plan.aggregate(rows, length=self._problem.d)
        self._down = _as_bytes(self.plan.broadcast(combined))

    def digest(self, worker: int) -> bytes:
        """The digest of what `worker` is sent."""
        return digest(self.rows(worker, 0)[0])

    def rows(self, worker: int, i: int) -> tuple[Bytes, ...]:
        """What `worker` is sent."""
        return (self._down[: self.plan.missing_ranks[worker]].reshape(-1),)

    def objective(self, sent: Sequence[Upload]) -> float:
        """The objective at the models that the updates were computed at."""
        losses = losses_by_partition(self._reported, sent)
        return self._problem.data_loss(losses) + sent[0].penalty

    def residual(self, sent: Sequence[Upload]) -> float:
        """`Trainer.residual` of the step before the round of `sent`, as the first worker has it."""
        return sent[0].residual

    def converged(self, sent: Sequence[Upload]) -> bool:
        """Whether the run may end with the round of `sent`."""
        return self._problem.converged(self.objective(sent), self.residual(sent))

    def models_agree(self, digests: Mapping[int, bytes]) -> bool:
        """True: over the reals, models agree up to rounding, which digests cannot tell."""
        return True


def _as_bytes(rows: Vectors) -> Bytes:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.shape[1] * rows.itemsize)
