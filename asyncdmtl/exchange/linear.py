"""Both sides of a round under a linear plan, which combines vectors of real numbers.

Each worker recovers `A·V` up to rounding, in its own way, so that models may differ in their last bits from
worker to worker. Updates therefore have no digests here. Rows have digests, which detect corrupted bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import UNKEYED, Digest
from asyncdmtl.errors import IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.sides import (
    NOBODY,
    PENALTY_WORKERS,
    Convergence,
    ServerSide,
    WorkerSide,
    arrived,
    measured,
)
from asyncdmtl.exchange.states import sketch
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.linear.plan import LinearPlan


class LinearWorkerSide(WorkerSide):
    """The work of one worker in every round under a linear plan. All rows are one range.

    Parameters
    ----------
    plan : LinearPlan
    worker : int
    trainer : Trainer
        Holds the current models, and exactly the partitions that this worker stores under the plan.
    digest : Digest, optional
        The digests of the run.
    """

    plan: LinearPlan

    def __init__(self, plan: LinearPlan, worker: int, trainer: Trainer, *, digest: Digest = UNKEYED) -> None:
        self.plan = plan
        self._digest = digest
        self.worker = worker
        self.trainer = trainer
        problem = trainer.problem
        self.ranges = self.down_ranges = (slice(0, self.received_bytes),)
        self._received: Bytes = np.empty(0, np.uint8)
        self._own: Vectors = np.empty((len(trainer.own), problem.d), problem.dtype)
        self.layout = _layout(plan, worker, problem)

    @property
    def received_bytes(self) -> int:
        """Bytes of the rows that this worker is sent in a round."""
        problem = self.trainer.problem
        return self.plan.missing_ranks[self.worker] * problem.d * problem.dtype.itemsize

    def received_range(self, i: int) -> int:
        """Bytes of the rows that this worker is sent in range `i`, which is the only one."""
        return self.received_bytes

    def compute(self) -> Upload:
        """Compute local updates at the current models, and combine them."""
        losses = self.trainer.local_updates(self._own)
        rows = _as_bytes(self.plan.encode(self.worker, self._own))
        # The workers that tell the penalty may be silent.
        detailed = self.plan.silent > 0
        scalars = measured(self.trainer, self.worker, detailed=detailed)
        told = self.trainer.problem.rounded(losses), *scalars, self.state_check()
        return Upload((rows,), rows.nbytes, (self._digest(rows),), *told)

    def receive(self, i: int, rows: Bytes, absent: tuple[int, ...] = ()) -> None:
        """Keep the rows that came down; they are combined in `apply`."""
        self._check_size(i, rows)
        self._received = rows

    def apply(self, expected: bytes) -> None:
        """Check the digest of the rows, recover `A·V`, and take the step to the next models."""
        received, self._received = self._received, self._received[:0]
        if self._digest(received) != expected:
            name = self.plan.placement.workers[self.worker]
            raise IntegrityError(
                f"worker {name!r} received other rows than were sent", partitions=[], workers=[name]
            )
        problem = self.trainer.problem
        rows = received.view(problem.dtype).reshape(-1, problem.d)
        self.trainer.step(problem.spread(self.plan.recover(self.worker, rows, self._own)))

    def state_check(self) -> bytes:
        """A sketch of the models, which differ between workers in their last bits."""
        return sketch(self.trainer.W)


class LinearServerSide(ServerSide):
    """The server's work in every round under a linear plan: solve for `A·V`, and combine it again.

    Parameters
    ----------
    plan : LinearPlan
    problem : Problem
    digest : Digest, optional
        The digests of the run.
    """

    plan: LinearPlan

    def __init__(self, plan: LinearPlan, problem: Problem, *, digest: Digest = UNKEYED) -> None:
        super().__init__(plan, problem)
        self._digest = digest
        self.ranges = self.down_ranges = (slice(0, self._packet_bytes),)
        self._uplink: tuple[Bytes | None, ...] = ()
        self._down: Bytes = np.empty(0, np.uint8)

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector as it is coded, padding included: the unit of the loads."""
        return self._packet_bytes * self.plan.subpackets

    @property
    def broadcast_bytes(self) -> int:
        """Bytes of the downlink of a round, with each row counted once."""
        return len(self.plan.downlink_matrix) * self.problem.d * self.problem.dtype.itemsize

    def uplink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` sends in a round."""
        return len(self.plan.uplink_matrices[worker]) * self._packet_bytes

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        """The shape of the rows that `worker` sends in the only range: their number, and bytes of each."""
        return len(self.plan.uplink_matrices[worker]), self._packet_bytes

    def layout(self, worker: int) -> Layout:
        """What `worker` tells beside its rows: all its numbers, and the digest of the rows."""
        return _layout(self.plan, worker, self.problem)

    def downlink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` is sent in a round."""
        return self.plan.missing_ranks[worker] * self.problem.d * self.problem.dtype.itemsize

    def check(self, worker: int, upload: Upload) -> None:
        """Compare what `worker` sent with the plan."""
        name = self.plan.placement.workers[worker]
        expected = self.uplink_bytes(worker), len(self.plan.placement.stored[worker])
        if (upload.size, len(upload.losses)) != expected:
            raise RemoteProtocolError(
                f"worker {name!r} sent other numbers of rows or losses than the plan says"
            )

    def agree(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Begin a round: compare the rows of all workers with their digests. Updates have no digests."""
        self.compare(uploads, established)

    def compare(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Compare the rows of all workers with their digests. A late worker may have sent no rows."""
        workers = self.plan.placement.workers
        odd = [
            workers[k] for k, upload in arrived(uploads)
            if upload.rows and upload.digests != (self._digest(upload.rows[0]),)
        ]  # fmt: skip
        if odd:
            names = ", ".join(map(repr, odd))
            raise IntegrityError(f"rows of worker {names} were corrupted", partitions=[], workers=odd)

    def convergence(self, uploads: Sequence[Upload | None]) -> Convergence:
        """The progress of training by the medians of what workers report, which differs by rounding."""
        placement = self.plan.placement
        told: list[list[float]] = [[] for _ in placement.partitions]
        for k, upload in arrived(uploads):
            for n, loss in zip(placement.stored[k], upload.losses, strict=True):
                told[n].append(loss)
        penalties = [upload.penalty for _, upload in arrived(uploads)]
        penalty = float(np.median(penalties if self.plan.silent else penalties[:PENALTY_WORKERS]))
        residual = float(np.median([upload.residual for _, upload in arrived(uploads)]))
        objective = self.problem.objective([float(np.median(losses)) for losses in told], penalty)
        return Convergence(objective, residual, self.problem.converged(objective, residual))

    def put(self, i: int, rows: Sequence[Bytes | None]) -> None:
        """Keep the rows of all workers, in their order; they are combined in `finish`."""
        self._uplink = tuple(rows)

    def finish(self, last: bool) -> None:
        """Solve for `A·V`, and combine it for the workers."""
        dtype, packet = self.problem.dtype, self._packet_bytes // self.problem.dtype.itemsize
        rows = {k: part.view(dtype).reshape(-1, packet) for k, part in arrived(self._uplink)}
        combined = self.plan.aggregate(rows, length=self.problem.d)
        self._down = _as_bytes(self.plan.broadcast(combined))

    def digest(self, worker: int) -> bytes:
        """The digest of the rows that `worker` is sent."""
        return self._digest(self.rows(worker, 0)[0])

    def block(self, i: int) -> Bytes:
        """All rows of the downlink, (rows, bytes), valid until the next round."""
        return self._down

    def rows(self, worker: int, i: int) -> tuple[Bytes, ...]:
        """The rows that `worker` is sent, in one array."""
        return (self._down[: self.plan.missing_ranks[worker]].reshape(-1),)

    @property
    def _packet_bytes(self) -> int:
        return -(-self.problem.d // self.plan.subpackets) * self.problem.dtype.itemsize


def _layout(plan: LinearPlan, worker: int, problem: Problem) -> Layout:
    losses = len(plan.placement.stored[worker])
    return Layout(problem.dtype, digests=1, losses=losses, measures=True, state=True)


def _as_bytes(rows: Vectors) -> Bytes:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.shape[1] * rows.itemsize)
