"""Where the training of a run stands, and what has become of it so far."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import digest
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import Trainer
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.events import IncidentNoted, OnEvent
from asyncdmtl.server.records import Incident, RoundRecord
from asyncdmtl.server.training_state import TrainingState

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Progress:
    """Where the training stands.

    Attributes
    ----------
    run : str
        The run's name.
    problem : Problem
    strategy : str
        A word of `CHOICES`; "auto" is settled by the first plan, and holds for all that follow.
    emit : callable
        Called with events.
    round, over : int, bool
        The round that is to be made; or that all are made.
    converged : bool
        Whether it is over before it had to be.
    plans : int
        How many were made.
    records, incidents : list
    distrusted : set of (worker, partition)
        Who is treated as not holding what.
    trainer : Trainer or None
        The models, where the server has them.
    saved : TrainingState or None
        The last state of the training that was written down.
    """

    run: str
    problem: Problem
    strategy: str
    emit: OnEvent
    round: int = 0
    over: bool = False
    plans: int = 0
    records: list[RoundRecord] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    distrusted: set[tuple[str, str]] = field(default_factory=set)
    trainer: Trainer | None = None
    saved: TrainingState | None = None

    @property
    def converged(self) -> bool:
        """Whether the training was over before all rounds were made that it might have made."""
        return self.over and self.round < self.problem.settings.rounds

    def resume(self, checkpoint: Checkpoint) -> None:
        """Stand where the server stood that wrote `checkpoint`.

        Raises
        ------
        UsageError
            Its state is not one of this training.
        """
        self.round, self.over, self.plans = checkpoint.round, checkpoint.over, checkpoint.plans
        self.records, self.incidents = list(checkpoint.rounds), list(checkpoint.incidents)
        self.distrusted = set(checkpoint.distrusted)
        trainer = Trainer(self.problem, {})
        if len(checkpoint.state):
            trainer.restore(checkpoint.state)
            self.keep(checkpoint.state)
        self.trainer = trainer if EXCHANGE_STRATEGIES[self.strategy].server_trains else None

    def keep(self, state: Bytes) -> None:
        """Remember a state of the training, which is written down."""
        self.saved = TrainingState(self.round, self.over, (), state, digest(state))

    def go_on_from(self, base: TrainingState) -> None:
        """Stand at another round, if that is the farthest of which anybody has the state."""
        if base.round < self.round:
            self.note(
                "", "Rewound",
                f"nobody has the state of round {self.round} any more: back to round {base.round}",
            )  # fmt: skip
            self.records = [record for record in self.records if record.round < base.round]
        self.round, self.over = base.round, base.over

    def record(self, record: RoundRecord) -> None:
        """Take down what a round took."""
        self.records.append(record)
        self.emit(record)
        log.info(
            "run %s round %d: %d bytes up, %d bytes down, %.3f s, objective %.9g",
            self.run, record.round, record.up_bytes, record.down_bytes, record.seconds, record.objective,
            extra={"run": self.run, **vars(record)},
        )  # fmt: skip

    def note(self, worker: str, kind: str, reason: str) -> None:
        """Take down what went wrong, of which kind, with which worker; "" if it was nobody's fault."""
        self.incidents.append(Incident(self.round, worker, reason))
        self.emit(IncidentNoted(self.round, worker, kind, reason))
        log.warning(
            "run %s round %d: %s%s", self.run, self.round, f"worker {worker}: " if worker else "", reason,
            extra={"run": self.run, "round": self.round, "worker": worker, "kind": kind},
        )  # fmt: skip
