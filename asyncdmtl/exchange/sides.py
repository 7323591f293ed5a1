"""The interfaces of both sides of a round, which every strategy implements, and the upload of a worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.digests import UNKEYED, Digest
from asyncdmtl.errors import CodingError
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan

NOBODY: Mapping[str, int] = MappingProxyType({})

# The number of workers, the first ones of the plan, that compute the coupling's penalty. The penalty of
# spectral couplings takes as long as a step. If these three differ, all workers compute it, and the majority
# is believed, so that only three dishonest workers, in these places, can forge it. Under `linear` the median
# of the three counts, which two can forge.
PENALTY_WORKERS = 3


@dataclass(frozen=True)
class SideOptions:
    """What the sides of all workers and of the server have in common beside the plan.

    Attributes
    ----------
    grouped : bool
        Whether some workers receive their rows from a multicast group, which decides how rows are cut into
        ranges.
    digest : Digest
        The digests of the run.
    detailed : bool
        Whether workers send all their values, rather than confirm those that others tell (`confirmation`).
    carried : bool
        Whether coded rows go through the server. Otherwise all workers exchange rows with each other, and
        nothing is coded.
    blind : bool
        Whether the server must learn nothing of the data.
    group : GroupKey or None
        The key of the workers of a blind run.
    origin : bytes
        At a worker of a blind run that is behind a relay: from which plan of the server this one follows.
    keys : mapping of int to bytes
        The keys with which workers confirm what others tell, by their index: all of them at the server, its
        own at a worker.
    """

    grouped: bool = False
    digest: Digest = UNKEYED
    detailed: bool = True
    carried: bool = True
    blind: bool = False
    group: GroupKey | None = None
    origin: bytes = b""
    keys: Mapping[int, bytes] = field(default_factory=dict)


DEFAULT_OPTIONS = SideOptions()


class UnconfirmedError(Exception):
    """Workers computed different values; the round must be made again under a detailed plan."""


class Convergence(NamedTuple):
    """The progress of training at the beginning of a round. If `reached`, the run may end with this round."""

    objective: float
    residual: float
    reached: bool


class WorkerSide(ABC):
    """The work of one worker in every round under one plan.

    A round is `compute`, then `receive` for each range of the rows that come down, then `apply`.

    Attributes
    ----------
    plan : Plan or LinearPlan
    worker : int
        The worker's index in the plan.
    trainer : Trainer
        Holds the models, and the partitions that this worker stores under the plan.
    ranges, down_ranges : tuple of slice
        The bytes of a row that goes up, and of one that comes down, range by range.
    streams : bool
        Whether the rows of a range may come down before the rows of the next range have gone up; ranges are
        the same in both directions then.
    group_plan : Plan or None
        The plan, if rows under it may come from a multicast group.
    place : (int, int)
        The number of the plan, and the round, as `begin` was told.
    layout : Layout
        What this worker tells beside its rows.
    """

    plan: AnyPlan
    worker: int
    trainer: Trainer
    ranges: tuple[slice, ...]
    down_ranges: tuple[slice, ...]
    streams: bool = False
    group_plan: Plan | None = None
    place: tuple[int, int] = (0, 0)
    layout: Layout

    @property
    @abstractmethod
    def received_bytes(self) -> int:
        """Bytes of the rows that this worker is sent in a round."""

    @abstractmethod
    def received_range(self, i: int) -> int:
        """Bytes of the rows that this worker is sent in range `i`."""

    def begin(self, plan: int, round_: int) -> None:
        """Begin a round, under the plan of this number."""
        self.place = plan, round_

    @abstractmethod
    def compute(self) -> Upload:
        """Compute local updates at the current models and encode them.

        The rows in the result stay valid until the next call.
        """

    def told(self, upload: Upload) -> Upload:
        """What this worker sends of an upload: all, or what no other worker tells and a confirmation."""
        return upload

    @abstractmethod
    def receive(self, i: int, rows: Bytes, absent: tuple[int, ...] = ()) -> None:
        """Take in the rows of range `i` that came down. Calls follow the order of ranges.

        Parameters
        ----------
        i : int
        rows : uint8 array, one-dimensional
            The rows of this worker in this range, one after the other.
        absent : tuple of int
            The workers whose rows the server did not wait for, ascending, where rows were combined without
            being decoded.

        Raises
        ------
        CodingError
            The number of bytes is not that of the plan, or more workers are absent than it tolerates.
        """

    @abstractmethod
    def apply(self, expected: bytes) -> None:
        """Check the received rows, and take the step to the next models. If this raises, no model has
        changed.

        Parameters
        ----------
        expected : bytes
            The digest that the server sent (`ServerSide.digest`).

        Raises
        ------
        IntegrityError
            The received rows or decoded vectors have another digest.
        DataError
            The models outgrow the run's dtype.
        """

    def take_told(self, told: bytes) -> None:
        """Take in what others told (`ServerSide.told`), before `apply`; CodingError unless blind."""
        if told:
            raise CodingError(f"received {len(told)} bytes of what others told, the plan says 0")

    @property
    def reached(self) -> bool:
        """Whether this worker itself has found that training is over after the round that was applied."""
        return False

    def side_information(self, i: int) -> Bytes:
        """Range `i` of the packets from which this worker decodes a multicast, (packets, bytes)."""
        return np.empty((0, self.down_ranges[i].stop - self.down_ranges[i].start), np.uint8)

    def own_vectors(self) -> dict[int, Bytes]:
        """The bytes of the vectors that this worker computed in this round, by number; others may take them.

        Only workers that stream have some.
        """
        return {}

    def wanted_vectors(self) -> dict[int, Bytes]:
        """The bytes of the vectors that this worker lacks, by number, to be filled before `apply`."""
        return {}

    def models(self) -> TaskModels:
        """The models that this worker has: of all tasks, or under `personal` of its own tasks."""
        return self.trainer.models()

    def baselines(self) -> dict[str, TaskModels]:
        """Models without coupling, by their kind, for comparison on test rows; empty if there are none."""
        return self.trainer.baselines()

    @abstractmethod
    def state_check(self) -> bytes:
        """The check, of 16 bytes, of the state of the training that this worker holds (`states`)."""

    def final_check(self) -> bytes:
        """The same after the last round."""
        return self.state_check()

    def _check_size(self, i: int, rows: Bytes) -> None:
        if rows.nbytes != self.received_range(i):
            raise CodingError(
                f"received {rows.nbytes} bytes of rows in a range, the plan says {self.received_range(i)}"
            )


class ServerSide(ABC):
    """The server's work in every round under one plan.

    A round is `agree`, then `put` for each range of the rows that came up, then `finish`. If `streams` is
    true, the rows of a range may be sent down as soon as the range was put; else after `finish`. Under a plan
    that tolerates silent workers, the uploads and rows of some may be None.

    Attributes
    ----------
    plan : Plan or LinearPlan
    problem : Problem
    trainer : Trainer or None
        Holds the models under strategies whose server takes the steps; else None.
    ranges, down_ranges : tuple of slice
        The bytes of a row that goes up, and of one that comes down, range by range.
    streams : bool
    group_plan : Plan or None
        The plan, if rows under it may be sent to a multicast group.
    asks_for_the_end : bool
        Whether workers, rather than the server, decide when training ends.
    """

    plan: AnyPlan
    problem: Problem
    trainer: Trainer | None = None
    ranges: tuple[slice, ...]
    down_ranges: tuple[slice, ...]
    streams: bool = False
    group_plan: Plan | None = None
    asks_for_the_end: bool = False

    def __init__(self, plan: AnyPlan, problem: Problem) -> None:
        self.plan = plan
        self.problem = problem

    @property
    @abstractmethod
    def vector_bytes(self) -> int:
        """Bytes of a vector of the uplink, padding included: the unit of the uplink's load."""

    @property
    def down_vector_bytes(self) -> int:
        """Bytes of a vector of the downlink, padding included: the unit of the downlink's loads."""
        return self.vector_bytes

    @property
    @abstractmethod
    def broadcast_bytes(self) -> int:
        """Bytes of the downlink of a round, with each row counted once."""

    @abstractmethod
    def uplink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` sends in a round."""

    @abstractmethod
    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        """The shape of the rows that `worker` sends in range `i`: their number, and bytes of each."""

    @abstractmethod
    def layout(self, worker: int) -> Layout:
        """What `worker` tells beside its rows."""

    @abstractmethod
    def downlink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` is sent in a round."""

    @abstractmethod
    def check(self, worker: int, upload: Upload) -> None:
        """Compare the upload of `worker` with the plan.

        Raises
        ------
        RemoteProtocolError
            The number of bytes, digests or losses is not that of the plan.
        """

    def completed(self, uploads: Sequence[Upload | None]) -> Sequence[Upload | None]:
        """The uploads with all values that other workers told for them.

        Raises
        ------
        UnconfirmedError
            A worker computed other values than others told.
        """
        return uploads

    @abstractmethod
    def agree(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Begin a round: compare the uploads of all workers, in their order.

        Parameters as for `compare`, which raises the same errors.
        """

    @abstractmethod
    def compare(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Compare the uploads of all workers, in their order.

        Parameters
        ----------
        uploads : sequence of Upload or None
        established : mapping of worker to int
            The first round that each worker has made in this run. If two groups of holders with different
            updates are equally large, the group with the worker that has made rounds for longest is believed.

        Raises
        ------
        DisagreementError
            Holders of a partition computed different updates or losses; the error names both.
        StateError
            Workers computed different penalties or residuals from the same state.
        IntegrityError
            Rows do not match the digests that came with them (linear).
        """

    @abstractmethod
    def put(self, i: int, rows: Sequence[Bytes | None]) -> None:
        """Take in range `i` of the rows of all workers, in their order: uint8 arrays (rows, bytes)."""

    @abstractmethod
    def finish(self, last: bool) -> None:
        """End a round after `put` was called for all ranges. If `last`, it is the last round of the run.

        Raises
        ------
        IntegrityError
            The updates that the server decoded differ from those that workers computed. No model has changed.
        """

    @abstractmethod
    def digest(self, worker: int) -> bytes:
        """The digest by which `worker` checks what it received or decoded (`WorkerSide.apply`)."""

    def told(self, worker: int, *, relay: bool = False) -> bytes:
        """What `worker` is told beside its rows: much by a blind server, and digests if it is a relay."""
        return b""

    @abstractmethod
    def block(self, i: int) -> Bytes:
        """Range `i` of all rows of the downlink, (rows, bytes), valid until the next round."""

    @abstractmethod
    def rows(self, worker: int, i: int) -> tuple[Bytes, ...]:
        """Range `i` of the rows that `worker` is sent: contiguous arrays, valid until the next round."""

    def convergence(self, uploads: Sequence[Upload | None]) -> Convergence:
        """The progress of training at the models of these uploads; to be called before `finish`."""
        losses = losses_by_partition(self.plan.placement, uploads)
        penalty, residual = self._penalty_and_residual(uploads)
        objective = self.problem.objective(losses, penalty)
        return Convergence(objective, residual, self.problem.converged(objective, residual))

    def expected_checks(self, *, final: bool) -> list[bytes] | None:
        """The checks that all workers must send, in their order, if the server itself has the state.

        Parameters
        ----------
        final : bool
            Whether these are the checks after the last round.
        """
        return None

    def _penalty_and_residual(self, uploads: Sequence[Upload | None]) -> tuple[float, float]:
        _, first = arrived(uploads)[0]
        return first.penalty, first.residual


Part = TypeVar("Part")


def arrived(parts: Sequence[Part | None]) -> list[tuple[int, Part]]:
    """The indices of the workers whose parts have arrived, with these parts."""
    return [(k, part) for k, part in enumerate(parts) if part is not None]


def absentees(parts: Sequence[object]) -> tuple[int, ...]:
    """The indices of the workers whose parts have not arrived, ascending."""
    return tuple(k for k, part in enumerate(parts) if part is None)


def losses_by_partition(placement: Placement, uploads: Sequence[Upload | None]) -> NDArray[np.float64]:
    """The mean loss of every partition, (N,), as its first holder reported it."""
    losses = np.empty(len(placement.partitions))
    for k, upload in arrived(uploads)[::-1]:
        losses[list(placement.stored[k])] = upload.losses
    return losses


def measured(trainer: Trainer, worker: int, *, detailed: bool = False) -> tuple[float, float]:
    """The penalty and the residual that a worker reports; if not `detailed`, few tell the penalty."""
    penalty = trainer.penalty() if detailed or worker < PENALTY_WORKERS else 0.0
    told, residual = trainer.problem.rounded([penalty, trainer.residual])
    return told, residual
