"""The options of a run and the records of it, as plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import UsageError
from asyncdmtl.exchange.strategies import BLIND_SIDES, EXCHANGE_STRATEGIES
from asyncdmtl.learning.metric_sums import MetricSums
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.multicast.sending import ReceptionCounts
from asyncdmtl.net.kernel import KernelCount
from asyncdmtl.net.transport import LONGEST_WAIT, check_positive
from asyncdmtl.net.udp import Group
from asyncdmtl.plan.compare import Candidate
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.plan.parameters import CHOICES, TOLERANT
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.plan.validation import whole_number
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.downlink_choice import DownlinkChoice
from asyncdmtl.server.events import MeasuredSpeed, ServerEvent


@dataclass(frozen=True)
class MulticastOptions:
    """The options of the multicast group.

    Attributes
    ----------
    group : Group
    interface : str
        The name of a network interface, or an address of this host; if empty, the interface that the first
        worker's connection uses.
    rate : float
        The highest rate in bits per second, headers included.
    """

    group: Group
    interface: str = ""
    rate: float = 90e6

    def __post_init__(self) -> None:
        if not 1e4 <= self.rate <= 1e12:
            raise UsageError(
                "--multicast-rate", "must lie between 0.01 and 1,000,000 Mbit/s", self.rate / 1e6
            )


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    Attributes
    ----------
    settings : Settings
    strategy : str
        One of `CHOICES`: a strategy, or "auto" for the exact one that is cheapest by unicast.
    workers : int or None
        The run starts when this number of workers has joined.
    cover : tuple of str or None
        All partitions: the run starts when each has a holder, or one more than `silent` workers, and workers
        may not declare others.
    permitted : mapping of worker to a collection of partitions, or None
        The partitions that each worker may declare; workers that are not listed may declare none.
    join_timeout, round_timeout, silence_timeout : float
        Seconds for all workers to join, for a worker's uplink, and for a sign of life from a worker.
    rejoin_timeout : float
        Seconds to wait for a replacement if no worker holds some partition any more; with 0 there is no wait.
    checkpoint : Path or None
        The directory of checkpoints.
    checkpoint_every : int
        The number of rounds between checkpoints.
    resume : bool
        Whether to continue the run of the checkpoints, if there are any.
    multicast : MulticastOptions or None
        Send rows to a group if that is cheaper; with None, all rows go over TCP.
    links : Links
        The prices or speeds of the workers' links, for which plans are made.
    silent : int
        The number of late workers for which no round waits. Each partition needs more holders than that.
    peers : bool
        Whether workers take rows from each other, as far as they can. With `multicast`, too, the server
        chooses how rows come to workers.
    blind : bool
        Whether the server must learn nothing of the data: workers mask or seal all that depends on it.
    """

    settings: Settings
    strategy: str
    workers: int | None = None
    cover: tuple[str, ...] | None = None
    permitted: Mapping[str, Collection[str]] | None = None
    join_timeout: float = 300.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0
    rejoin_timeout: float = 60.0
    checkpoint: Path | None = None
    checkpoint_every: int = 10
    resume: bool = False
    multicast: MulticastOptions | None = None
    links: Links = EQUAL_LINKS
    silent: int = 0
    peers: bool = False
    blind: bool = False

    def __post_init__(self) -> None:
        if self.blind:
            self._check_blind()
        if self.strategy not in CHOICES:
            raise UsageError("--strategy", f"must be one of {', '.join(CHOICES)}", self.strategy)
        if self.strategy != "auto":
            EXCHANGE_STRATEGIES[self.strategy].check(self.settings)
        if self.peers and self.multicast is None and self.strategy not in ("auto", "relay", "uncoded"):
            rule = "is for strategies by which workers aggregate: relay, uncoded"
            raise UsageError("--downlink peers", rule, self.strategy)
        if self.peers and self.silent:
            downlink = "auto" if self.chooses_downlink else "peers"
            rule = f"cannot be given with --downlink {downlink}: workers would wait for rows of late ones"
            raise UsageError("--silent", rule, self.silent)
        self.links.check(self.strategy)
        if self.workers is None and self.cover is None:
            raise UsageError("--workers or --cover", "must say when to start", None)
        if self.workers is not None and self.workers < 1:
            raise UsageError("--workers", "must be at least 1", self.workers)
        self._check_silent()
        if not 0 <= self.rejoin_timeout <= LONGEST_WAIT:
            rule = f"must lie between 0 and {LONGEST_WAIT:g} seconds"
            raise UsageError("--rejoin-timeout", rule, self.rejoin_timeout)
        if self.checkpoint_every < 1:
            raise UsageError("--checkpoint-every", "must be at least 1", self.checkpoint_every)
        if self.resume and self.checkpoint is None:
            raise UsageError("--resume", "needs --checkpoint, which says from where", None)
        check_positive(
            join_timeout=self.join_timeout,
            round_timeout=self.round_timeout,
            silence_timeout=self.silence_timeout,
        )

    @property
    def chooses_downlink(self) -> bool:
        """Whether the server chooses how rows come to workers: `--downlink auto`."""
        return self.peers and self.multicast is not None

    def _check_silent(self) -> None:
        """UsageError if no run can go on without this number of workers."""
        most = 99 if self.workers is None else self.workers - 1
        whole_number("--silent", self.silent, 0, most)
        if not self.silent:
            return
        if self.strategy not in TOLERANT:
            raise UsageError("--silent", f"is for --strategy {', '.join(TOLERANT)}", self.strategy)
        if self.multicast is not None:
            rule = "cannot be given with --downlink multicast: late workers would lack what the group had"
            raise UsageError("--silent", rule, self.silent)

    def _check_blind(self) -> None:
        """Raise UsageError if the server would have to read what workers send."""
        if self.strategy not in BLIND_SIDES:
            rule = f"is for strategies whose server decodes nothing: {', '.join(BLIND_SIDES)}"
            raise UsageError("--blind", rule, f"--strategy {self.strategy}")
        if self.settings.test_fraction:
            rule = "must be 0 with --blind: the server would read the scores of rows for tests"
            raise UsageError("--test-fraction", rule, self.settings.test_fraction)
        if self.silent:
            rule = "must be 0 with --blind: masks hide all only if no more rows go up than are independent"
            raise UsageError("--silent", rule, self.silent)


@dataclass(frozen=True)
class RoundRecord(ServerEvent):
    """The record of one round, which is also the event that reports it.

    Attributes
    ----------
    round : int
    objective : float
        The objective at the models at the beginning of the round.
    residual : float
        `Trainer.residual` of the step before the round.
    up_bytes, down_bytes : int
        Bytes on the wire.
    seconds : float
        Of the whole round.
    uplink_seconds : float
        From the beginning of the round until the last row of all workers had arrived; 0 if it was not
        measured.
    """

    name = "round"
    round: int
    objective: float
    residual: float
    up_bytes: int
    down_bytes: int
    seconds: float
    uplink_seconds: float = 0.0


@dataclass(frozen=True)
class Incident:
    """Something that went wrong in a round; the round was made again under a new plan.

    `worker` is empty if no worker was at fault.
    """

    round: int
    worker: str
    reason: str


@dataclass(frozen=True, eq=False)
class MulticastRecord:
    """The record of the multicast group of a run.

    Attributes
    ----------
    group : str
        Address and port.
    listeners : tuple of str
        The workers that the group serves under the last plan.
    reason : str
        The reason for this choice.
    served_over_tcp : mapping of worker to str
        The workers that were served over TCP instead, each with the reason.
    receptions : mapping of worker to ReceptionCounts
        The counts of each listener.
    sent_bytes, repair_bytes : int
        Bytes of all datagrams, without UDP, IP and Ethernet headers, and of the datagrams with repairs.
    rate : float
        The rate at the end, in bits per second.
    """

    group: str
    listeners: tuple[str, ...]
    reason: str
    served_over_tcp: Mapping[str, str]
    receptions: Mapping[str, ReceptionCounts]
    sent_bytes: int
    repair_bytes: int
    rate: float


# The kind under which the ledger counts rows between workers, at the worker that receives them.
PEER_ROWS = "peer-rows"


@dataclass(frozen=True, eq=False)
class PeersRecord:
    """The record of the rows that workers took from each other.

    Attributes
    ----------
    exchanging : tuple of str
        The workers that take rows from others under the last plan.
    carried : bool
        Whether coded rows went through the server under the last plan, because some worker needed them.
    served_by_server : mapping of worker to str
        The workers that the server served instead, each with the reason.
    without_port : mapping of worker to str
        The workers that accept no connections of others, each with the reason.
    links : mapping of (giver, taker) to (int, int)
        Bytes of rows that went from one worker to another, and all other bytes of their connection.
    """

    exchanging: tuple[str, ...]
    carried: bool
    served_by_server: Mapping[str, str]
    without_port: Mapping[str, str]
    links: Mapping[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True)
class LateRecord:
    """The lateness of a worker in a run.

    Attributes
    ----------
    rounds : int
        Rounds that went on without its rows.
    ignored_bytes : int
        Bytes of its rows that came too late to be used.
    states : int
        The number of times that it was given the state of another worker to catch up.
    """

    rounds: int
    ignored_bytes: int
    states: int


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The record of a finished run.

    `plan` is the last plan; `converged` is true if the run ended before its limit of rounds. `settings` are
    those of the run, with the coupling and the λ that were chosen in it. `outcome` is the outcome of a
    training that ended with a solution, else None. `tests` has the sums that holders told of
    the rows of each partition that they kept for tests. `critical_strength` is the λ from which on all
    coefficients are 0, if they are. `speeds` are those of workers and links, if they were measured, and
    `late` tells of the workers for which some round did not wait. `downlink` is the choice that the last plan
    follows, if the server had one. `links` are those by which the last plan was chosen.
    """

    run: str
    settings: Settings
    encoding: Encoding
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    problem: Problem
    vector_bytes: int
    down_vector_bytes: int
    broadcast_bytes: int
    rounds: Sequence[RoundRecord]
    converged: bool
    ledger: Ledger
    kernel: Mapping[str, KernelCount]
    incidents: tuple[Incident, ...]
    seconds: float
    multicast: MulticastRecord | None = None
    outcome: Outcome | None = None
    critical_strength: float | None = None
    tests: Mapping[str, MetricSums] = field(default_factory=dict)
    peers: PeersRecord | None = None
    downlink: DownlinkChoice | None = None
    speeds: Mapping[str, MeasuredSpeed] = field(default_factory=dict)
    late: Mapping[str, LateRecord] = field(default_factory=dict)
    links: Links = EQUAL_LINKS
