"""The work of a relay in a round under strategies whose server aggregates, or takes the steps itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import VECTOR_DIGEST_BYTES, Digest
from asyncdmtl.exchange.coded_server import CentralServerSide, PersonalServerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.plan import Plan
from asyncdmtl.relay.sides import RelaySide


class BelowAggregates(CentralServerSide):
    """The side towards the nodes under `central`, to which the relay gives the results of all tasks."""

    def tell(self, digests: Mapping[int, bytes]) -> None:
        """Take the digests of the results, by task; nodes want none of the others."""
        self._digests = [digests.get(t, bytes(VECTOR_DIGEST_BYTES)) for t in range(len(self.problem.tasks))]

    def combine(self, packed: Mapping[tuple[int, ...], Bytes]) -> None:
        """Combine results, the packets of which are given for some tasks, into the rows that go down."""
        P = self.plan.subpackets
        for tasks, packets in packed.items():
            for i, t in enumerate(tasks):
                self._results[t * P : (t + 1) * P] = packets[i * P : (i + 1) * P]
        for cols, down in zip(self.down_ranges, self._down, strict=True):
            self._recombine(self._results[:, cols], down)


class BelowPersonal(BelowAggregates, PersonalServerSide):
    """The same under `personal`, where the results are models."""


class AggregatingSide(RelaySide):
    """A relay under `central`: aggregates of tasks come down, and go on to the nodes."""

    below: BelowAggregates

    def __init__(
        self, plan: Plan, relay: int, below: BelowAggregates, problem: Problem, digest: Digest
    ) -> None:
        super().__init__(plan, relay, below, problem, digest)
        self._aggregates = self._format.allocate(len(self._delivery.known))

    def take(self, digests: bytes) -> None:
        """Aggregate the tasks that the nodes store whole, too."""
        updates: Vectors = self._format.vectors(self._own)
        own = dict(zip(self._plan.placement.stored[self._relay], updates, strict=True))
        known: Vectors = self._format.vectors(self._aggregates)
        for t, vector in zip(self._delivery.known, known, strict=True):
            parts = [own[n] for n in self._problem.partitions_of[t]]
            vector[:] = parts[0] if len(parts) == 1 else self._problem.aggregate(t, np.stack(parts))
        super().take(digests)

    def finish(self) -> None:
        """Hand the aggregates of all tasks to the side of the nodes, too."""
        super().finish()
        self.below.combine({self._delivery.known: self._aggregates, self._delivery.wanted: self._wanted})

    def _known(self, cols: slice) -> Bytes:
        return self._aggregates[:, cols]

    def _use_digests(self) -> None:
        known: Vectors = self._format.vectors(self._aggregates)
        digests = dict(zip(self._delivery.known, map(self._digest, known), strict=True))
        digests |= zip(self._delivery.wanted, self._told, strict=True)
        self.below.tell(digests)

    def _names(self) -> Sequence[str]:
        return self._problem.tasks


class PersonalSide(RelaySide):
    """A relay under `personal`: the models of its nodes' tasks come down, and go on to the nodes.

    The relay keeps these models, so that it can tell which state of the training each node must have.
    """

    below: BelowPersonal
    trainer: Trainer

    def __init__(
        self, plan: Plan, relay: int, below: BelowPersonal, problem: Problem, digest: Digest
    ) -> None:
        super().__init__(plan, relay, below, problem, digest)
        self.trainer = below.trainer
        self._nothing = self._down_format.allocate(0)

    def finish(self) -> None:
        """Keep the models, and hand them to the side of the nodes, too."""
        super().finish()
        models: Vectors = self._down_format.vectors(self._wanted)
        self.trainer.take_told(self._delivery.wanted, models.view(np.uint8))
        self.below.combine({self._delivery.wanted: self._wanted})

    def final_check(self, told: bytes) -> bytes:
        """The check of the final models of the nodes' tasks, whatever a node told."""
        return self._check_of(self.trainer.W)

    def _together(self, uploads: Sequence[Upload]) -> Upload:
        # Each node tells the check of its own tasks' models.
        return replace(super()._together(uploads), state=self._check_of(self.trainer.Y + 0.0))

    def _check_of(self, models: Vectors) -> bytes:
        """The check that a worker would tell that has the tasks of all nodes."""
        return self._digest.combined([self._digest(models[t]) for t in self._delivery.wanted])

    def _format_of_results(self, *, grouped: bool) -> VectorFormat:
        return self._plan.vector_format(*self._problem.told, grouped=grouped)

    def _known(self, cols: slice) -> Bytes:
        return self._nothing[:, cols]

    def _use_digests(self) -> None:
        self.below.tell(dict(zip(self._delivery.wanted, self._told, strict=True)))

    def _names(self) -> Sequence[str]:
        return self._problem.tasks
