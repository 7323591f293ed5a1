"""What a worker has of a run, whatever becomes of its connections: rows, models, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import digest
from asyncdmtl.errors import IntegrityError, PlanError, RemoteProtocolError, UsageError
from asyncdmtl.exchange.sides import Upload, WorkerSide
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, Partition, PartitionInfo, TaskModels
from asyncdmtl.learning.training import Trainer
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import rebuild
from asyncdmtl.protocol.messages.registry import AfterRound, Assign, Downlink, Restore


class WorkerState:
    """A worker's part of a run.

    Parameters
    ----------
    name : str
        The worker's.
    stored : sequence of Stored
        The partitions that it stores.

    Attributes
    ----------
    run : str or None
        The run's name, once it is known.
    round, over : int, bool
        The round at the beginning of which its models stand, or that the training ended before it. A round
        is applied whole, and then counted, or not at all.
    """

    def __init__(self, name: str, stored: Sequence[Stored]) -> None:
        self.run: str | None = None
        self.round = 0
        self.over = False
        self._name = name
        self._stored = tuple(stored)
        self._declared: tuple[Declaration, ...] | None = None
        self._settings: Settings | None = None
        self._encoded: tuple[Encoding, Settings, tuple[PartitionInfo, ...]] | None = None
        self._partitions: Mapping[str, Partition] = {}
        self._side: WorkerSide | None = None

    def enter(self, run: str, settings: Settings) -> None:
        """Take part in this run; if it is another than before, from its beginning."""
        if run != self.run:
            self.run, self.round, self.over, self._side = run, 0, False, None
        self._settings = settings

    def declare(self) -> tuple[Declaration, ...]:
        """What may be told of the partitions."""
        if self._declared is None:
            self._declared = tuple(stored.declaration() for stored in self._stored)
        return self._declared

    def standing(self) -> tuple[int, bool, bytes]:
        """Round and `over`, and the digest of the state of the training; empty if workers' states differ."""
        return self.round, self.over, b"" if self._side is None else self._side.state_digest()

    def encode(self, encoding: Encoding) -> tuple[PartitionInfo, ...]:
        """Encode the rows, and tell what all may know of that.

        Raises
        ------
        DataError
            They cannot be encoded, or do not suit the loss.
        """
        settings = self._settings
        assert settings is not None
        if self._encoded is None or self._encoded[:2] != (encoding, settings):
            encoded = [stored.encoded(encoding) for stored in self._stored]
            self._partitions = {partition.id: partition for partition in encoded}
            infos = tuple(partition.info(settings) for partition in encoded)
            self._encoded = encoding, settings, infos
        return self._encoded[2]

    @property
    def arithmetic(self) -> str:
        """The arithmetic of the run that it takes part in."""
        assert self._settings is not None
        return self._settings.arithmetic

    @property
    def trained_with(self) -> tuple[Encoding, Settings]:
        """How rows are encoded, and what is trained; known once they are encoded."""
        assert self._encoded is not None
        return self._encoded[:2]

    def prepare(self, assign: Assign) -> WorkerSide:
        """All that a plan determines: matrices, tables, buffers; the models are those before the first round.

        Raises
        ------
        PlanError
            The plan is malformed, or not one for this worker.
        RemoteProtocolError
            Plan, partitions and tasks do not fit each other.
        """
        self._check_recipe(assign)
        plan = rebuild(assign.recipe, assign.digest)
        placement = plan.placement
        worker = placement.workers.index(self._name)
        own = {n: placement.partitions[n] for n in placement.stored[worker]}
        if unknown := [name for name in own.values() if name not in self._partitions]:
            raise PlanError(f"the plan has partitions at {self._name!r} that are not here: {unknown}")
        assert self._settings is not None
        problem = Problem(self._settings, assign.partitions)
        if isinstance(plan, Plan) and problem.task_of != plan.tasks:
            raise RemoteProtocolError("plan and tasks do not fit each other")
        trainer = Trainer(problem, {n: self._partitions[name] for n, name in own.items()})
        return strategy_of(plan).worker_side(plan, worker, trainer, grouped=assign.grouped)

    def _check_recipe(self, assign: Assign) -> None:
        """What is known already limits what matrices may cost: the partitions, and the workers."""
        workers, packets = assign.recipe.get("workers"), assign.recipe.get("subpackets")
        if not isinstance(workers, list) or self._name not in workers:
            raise PlanError(f"the plan has no worker {self._name!r}")
        if assign.recipe.get("partitions") != [info.id for info in assign.partitions]:
            raise RemoteProtocolError("plan and partitions do not fit each other")
        # The denominator of an optimal load is less than the number of workers.
        if not isinstance(packets, int) or packets > len(workers):
            raise PlanError(f"the plan cuts vectors into {packets!r} packets for {len(workers)} workers")

    def keep(self, side: WorkerSide, assign: Assign) -> None:
        """Follow a plan from here on, with the models so far.

        Raises
        ------
        RemoteProtocolError
            The plan is for another round.
        """
        if (assign.round, assign.over) != (self.round, self.over):
            raise RemoteProtocolError(f"the plan is for round {assign.round}, this worker is in {self.round}")
        if self._side is not None:
            side.trainer.restore(self._side.trainer.state())
        self._side = side

    def take(self, side: WorkerSide, assign: Assign, restore: Restore) -> None:
        """Follow a plan from here on, with the models that the server sent.

        Raises
        ------
        IntegrityError
            They were corrupted on their way.
        RemoteProtocolError
            They are none of this training.
        """
        if digest(restore.body) != restore.digest:
            told = "the state of the training was corrupted on its way"
            raise IntegrityError(told, partitions=[], workers=[self._name])
        try:
            side.trainer.restore(restore.body)
        except UsageError as error:
            raise RemoteProtocolError(f"what came is no state of this training: {error}") from error
        self._side, self.round, self.over = side, assign.round, assign.over

    def state(self) -> Bytes:
        """The state of the training, for another worker."""
        return self.side.trainer.state()

    def compute(self) -> Upload:
        """This worker's part of the round."""
        return self.side.compute()

    @property
    def side(self) -> WorkerSide:
        """What this worker does under the plan that it follows."""
        assert self._side is not None
        return self._side

    def apply(self, downlink: Downlink) -> None:
        """End the round, of which all rows were received; nothing is changed if they are not what was sent.

        Raises
        ------
        IntegrityError
            They were corrupted on their way.
        DataError
            The models outgrow the dtype.
        """
        self.side.apply(downlink.digest)
        self.round, self.over = self.round + 1, downlink.then == AfterRound.END

    def models(self) -> TaskModels:
        """The models at the end: of all tasks, for `personal` of this worker's."""
        return self.side.models()

    def models_digest(self) -> bytes:
        """Their digest."""
        return self.side.models_digest()
