"""Who takes part from some round on, and under which plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from asyncdmtl.exchange.coded import ServerSide
from asyncdmtl.exchange.linear import LinearServerSide
from asyncdmtl.multicast.datagrams import MAX_ROW_NUMBERS
from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.plan.compare import Candidate, compare
from asyncdmtl.plan.linear.plan import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.server.member import Member
from asyncdmtl.server.progress import Progress

# The strategies by which workers aggregate.
RELAYED = ("relay", "uncoded")

# With more packets than these in all, coding would cost more than the last percent of the load is worth.
MOST_PACKETS, OVERHEAD = 256, Fraction(1, 100)


@dataclass(frozen=True, eq=False)
class Assignment:
    """Who takes part under which plan; `number` counts the plans of a run.

    `listeners` are the members that are sent their rows by a group, and `network` says why these.
    """

    number: int
    members: tuple[Member, ...]
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    side: ServerSide | LinearServerSide
    listeners: tuple[str, ...] = ()
    network: str = ""

    def position(self, member: Member) -> int:
        """The index of a member in the plan."""
        return self.plan.placement.workers.index(member.name)

    def suits(self, members: Sequence[Member]) -> bool:
        """Whether the plan has these members."""
        return {member.name for member in members} <= set(self.plan.placement.workers)

    @property
    def strategy(self) -> str:
        """The plan's: a word of `CHOICES`, but not "auto"."""
        return self.plan.strategy if isinstance(self.plan, Plan) else "linear"


def make_assignment(number: int, members: Sequence[Member], progress: Progress) -> Assignment:
    """Plan for these workers, who hold every partition even where they are not distrusted.

    "auto" is the strategy of least cost where those who hear a group are sent each row once, together.
    """
    problem, distrusted = progress.problem, progress.distrusted
    stored = {m.name: [name for name in m.partitions if (m.name, name) not in distrusted] for m in members}
    placement = Placement(stored, [info.id for info in problem.infos])
    candidates = compare(placement, problem.task_of)
    if progress.strategy == "linear":
        linear = make_linear_plan(placement, problem.linear_target)
        return Assignment(number, tuple(members), linear, candidates, LinearServerSide(linear, problem))
    hearing = [k for k, member in enumerate(members) if member.hears]
    auto = progress.strategy == "auto"
    # A server that aggregates would have to unpack what is compressed.
    possible = [c for c in candidates if problem.settings.compression == "none" or c.strategy in RELAYED]
    strategy: Any = min(possible, key=lambda c: c.mixed_cost(hearing)).strategy if auto else progress.strategy
    plan = make_plan(placement, strategy, tasks=problem.task_of, max_overhead=affordable(placement))
    listeners, reason = choose_listeners(plan, hearing)
    side = ServerSide(plan, problem, progress.trainer, grouped=bool(listeners))
    return Assignment(number, tuple(members), plan, candidates, side, listeners, reason)


def affordable(placement: Placement) -> Fraction:
    """By what share a run's uplink may exceed the least: by none if that takes few packets, else by 1 %.

    With cyclic placements the least takes one packet for each worker but one, and 20 workers × 60 partitions
    matrices of 1,140 columns; within 1 % of it is a plan of two packets for each vector.
    """
    packets = uplink_optimum(placement).load.denominator * len(placement.partitions)
    return Fraction(0) if packets <= MOST_PACKETS else OVERHEAD


def choose_listeners(plan: Plan, hearing: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """Who is sent rows by a group under a plan, of those who hear one; and why, in words."""
    if not hearing:
        return (), ""
    rows = {number for k in hearing for number in multicast_delivery(plan, k).rows}
    copies = sum(len(plan.deliveries[k].rows) for k in hearing)
    told = f"{Fraction(len(rows), plan.subpackets)} vectors to the group"
    if len(plan.combined) > MAX_ROW_NUMBERS // 2:
        return (), f"{len(plan.combined)} rows are more than datagrams can number"
    if len(rows) >= copies:
        return (), f"{told} are no less than {Fraction(copies, plan.subpackets)} over TCP"
    names = tuple(plan.placement.workers[k] for k in hearing)
    return names, f"{told} instead of {Fraction(copies, plan.subpackets)} over TCP"
