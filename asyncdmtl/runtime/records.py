"""What a run is asked to be, and what it was: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.training import Problem, Settings
from asyncdmtl.plan.compare import Candidate
from asyncdmtl.plan.plan import CHOICES
from asyncdmtl.plan.recipes import AnyPlan
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.runtime.kernel import KernelCount
from asyncdmtl.runtime.transport import check_positive


@dataclass(frozen=True)
class RunOptions:
    """What a server is to run.

    Attributes
    ----------
    settings : Settings
    strategy : str
        One of `CHOICES`: a strategy, or "auto" for the exact one that is cheapest by unicast.
    workers : int or None
        Start when so many have joined.
    cover : tuple of str or None
        The partitions that exist: start when each has a holder, and let nobody declare others.
    join_timeout, round_timeout, silence_timeout : float
        Seconds: for all to join, for a worker's uplink, and for a sign of life from a worker.
    """

    settings: Settings
    strategy: str
    workers: int | None = None
    cover: tuple[str, ...] | None = None
    join_timeout: float = 300.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.strategy not in CHOICES:
            raise UsageError("--strategy", f"must be one of {', '.join(CHOICES)}", self.strategy)
        if self.strategy == "linear" and self.settings.aggregate != "mean":
            raise UsageError(
                "--strategy linear", "needs --aggregate mean, which is linear", self.settings.aggregate
            )
        if self.workers is None and self.cover is None:
            raise UsageError("--workers or --cover", "must say when to start", None)
        if self.workers is not None and self.workers < 1:
            raise UsageError("--workers", "must be at least 1", self.workers)
        check_positive(
            join_timeout=self.join_timeout,
            round_timeout=self.round_timeout,
            silence_timeout=self.silence_timeout,
        )


@dataclass(frozen=True)
class RoundRecord:
    """What one round took: wire bytes up and down, the objective at its beginning, seconds."""

    round: int
    objective: float
    up_bytes: int
    down_bytes: int
    seconds: float


@dataclass(frozen=True)
class Incident:
    """Something that went wrong in a round, was made good by a new plan, and cost that round's uplink."""

    round: int
    worker: str
    reason: str


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a finished run was and cost; `plan` is the last, if there was more than one."""

    run: str
    settings: Settings
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    problem: Problem
    vector_bytes: int
    broadcast_bytes: int
    rounds: tuple[RoundRecord, ...]
    ledger: Ledger
    kernel: Mapping[str, KernelCount]
    incidents: tuple[Incident, ...]
    seconds: float
