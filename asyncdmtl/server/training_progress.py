"""The progress of a run's training, with the records of its rounds and incidents."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import Digest
from asyncdmtl.exchange.states import ExactStates, States
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.learning.metric_sums import MetricSums
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.ending import Ending
from asyncdmtl.server.events import IncidentNoted, OnEvent
from asyncdmtl.server.records import Incident, RoundRecord, RunOptions
from asyncdmtl.server.round_log import RoundLog
from asyncdmtl.server.training_state import TrainingState

log = logging.getLogger(__name__)


@dataclass(eq=False)
class TrainingProgress:
    """The progress of a training.

    Attributes
    ----------
    run : str
        The run's name.
    problem : Problem
    strategy : str
        The name of a strategy. If it is "auto", the first plan replaces it by the chosen one for all later
        plans.
    emit : callable
        A function that is called with each event.
    round : int
        The next round.
    over : bool
        Whether all rounds are made.
    plans : int
        The number of plans so far.
    records : RoundLog
    incidents : list of Incident
    distrusted : set of (worker, partition)
        Workers that are treated as not holding a partition, because their updates of it differed.
    trainer : Trainer or None
        Holds the models, under strategies whose server has them.
    outcome : Outcome or None
        The outcome of a training that ended with a solution.
    critical_strength : float or None
        The λ from which on all coefficients are 0, if they are.
    tests : dict of partition to MetricSums
        The sums over test rows that holders have sent.
    ending : Ending or None
        The end of the run, once all workers have the final models and may be gone.
    saved : TrainingState or None
        The last state of the training that a checkpoint has.
    electorate : tuple of str
        The workers under the last plan that want models. A round whose state the server has not compared yet
        is believed if more than half of them tell the same of it.
    resumed : bool
        Whether the server was resumed and has made no plan since, so that workers may be ahead of it.
    checked : bool
        Whether workers have decoded wrong vectors, so that the server decodes all updates itself from now on,
        to find the worker that sends wrong rows.
    detailed : bool
        Whether workers once computed different values, so that all of them send all values from now on.
    links : Links
        The prices or speeds of the workers' links, for which plans are made.
    silent : int
        The number of late workers for which no round should wait.
    blind : bool
        Whether the server learns nothing of the data (`RunOptions`).
    chooses_downlink : bool
        Whether the server chooses how rows come to workers (`RunOptions`).
    digest : Digest
        The digests of the run.
    """

    run: str
    problem: Problem
    strategy: str
    emit: OnEvent
    round: int = 0
    over: bool = False
    plans: int = 0
    records: RoundLog = field(default_factory=RoundLog)
    incidents: list[Incident] = field(default_factory=list)
    distrusted: set[tuple[str, str]] = field(default_factory=set)
    trainer: Trainer | None = None
    outcome: Outcome | None = None
    critical_strength: float | None = None
    tests: dict[str, MetricSums] = field(default_factory=dict)
    ending: Ending | None = None
    saved: TrainingState | None = None
    electorate: tuple[str, ...] = ()
    resumed: bool = False
    checked: bool = False
    detailed: bool = False
    links: Links = EQUAL_LINKS
    silent: int = 0
    blind: bool = False
    chooses_downlink: bool = False

    def __post_init__(self) -> None:
        self.digest = Digest(self.run)

    def take_options(self, options: RunOptions) -> None:
        """Follow the options of the run beside its strategy."""
        self.links, self.silent, self.blind = options.links, options.silent, options.blind
        self.chooses_downlink = options.chooses_downlink

    @property
    def converged(self) -> bool:
        """Whether the training ended before its limit on rounds, or with a solution."""
        return self.over and (self.problem.exact or self.round < self.problem.rounds)

    @property
    def states(self) -> States:
        """The comparison of states under the strategy; digests, if no strategy is chosen yet."""
        known = EXCHANGE_STRATEGIES.get(self.strategy)
        if known is None:
            return ExactStates(self.problem, self.digest)
        return known.states(self.problem, self.digest, blind=self.blind)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the progress in `checkpoint`.

        Raises
        ------
        UsageError
            The checkpoint's state does not belong to this training.
        """
        self.round, self.over, self.plans = checkpoint.round, checkpoint.over, checkpoint.plans
        self.records, self.incidents = checkpoint.rounds.copy(), list(checkpoint.incidents)
        self.distrusted = set(checkpoint.distrusted)
        self.electorate, self.resumed = checkpoint.workers, True
        if (ending := checkpoint.ending) is not None:
            self.ending, self.outcome, self.tests = ending, ending.outcome, dict(ending.tests)
            self.critical_strength = ending.critical_strength
        trainer = make_trainer(self.problem, {})
        if len(checkpoint.state):
            if not self.blind:
                trainer.restore(checkpoint.state)
            self.keep_saved(self.round, checkpoint.state, over=self.over)
        self.trainer = trainer if EXCHANGE_STRATEGIES[self.strategy].server_trains else None

    def keep_saved(self, number: int, state: Bytes, *, over: bool) -> None:
        """Remember the state of the training at a round, which a checkpoint has."""
        self.saved = TrainingState(number, over, (), state, self.states.check(state))

    def go_on_from(self, state: TrainingState) -> None:
        """Continue from a state, which may be that of an earlier round."""
        if state.round < self.round:
            self.note(
                "", "Rewound",
                f"nobody has the state of round {self.round} any more: back to round {state.round}",
            )  # fmt: skip
            self.records = self.records.before(state.round)
        self.round, self.over = state.round, state.over

    def record(self, record: RoundRecord) -> None:
        """Keep the record of a round, log it, and emit it as an event."""
        self.records.append(record)
        self.emit(record)
        log.info(
            "run %s round %d: %d bytes up, %d bytes down, %.3f s%s",
            self.run, record.round, record.up_bytes, record.down_bytes, record.seconds,
            "" if self.blind else f", objective {record.objective:.9g}",
            extra={"run": self.run, **vars(record)},
        )  # fmt: skip

    def note(self, worker: str, kind: str, reason: str) -> None:
        """Keep an incident, log it, and emit it as an event.

        Parameters
        ----------
        worker : str
            The worker at fault; empty if there is none.
        kind : str
            The name of the error's class, or a word if it is no error.
        reason : str
        """
        self.incidents.append(Incident(self.round, worker, reason))
        self.emit(IncidentNoted(self.round, worker, kind, reason))
        log.warning(
            "run %s round %d: %s%s", self.run, self.round, f"worker {worker}: " if worker else "", reason,
            extra={"run": self.run, "round": self.round, "worker": worker, "kind": kind},
        )  # fmt: skip
