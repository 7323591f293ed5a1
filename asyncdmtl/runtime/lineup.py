"""Who takes part from some round on, and under which plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.exchange import ServerSide
from asyncdmtl.linear_exchange import LinearServerSide
from asyncdmtl.plan.compare import Candidate, cheapest, compare
from asyncdmtl.plan.linear import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipes import AnyPlan
from asyncdmtl.runtime.member import Member
from asyncdmtl.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class Lineup:
    """Who takes part under which plan; `number` counts the plans of a run."""

    number: int
    members: tuple[Member, ...]
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    side: ServerSide | LinearServerSide

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


def make_lineup(number: int, members: Sequence[Member], progress: Progress) -> Lineup:
    """Plan for these workers, who hold every partition even where they are not distrusted."""
    problem, distrusted = progress.problem, progress.distrusted
    stored = {m.name: [name for name in m.partitions if (m.name, name) not in distrusted] for m in members}
    placement = Placement(stored, [info.id for info in problem.infos])
    candidates = compare(placement, problem.task_of)
    if progress.strategy == "linear":
        linear = make_linear_plan(placement, problem.linear_target)
        return Lineup(number, tuple(members), linear, candidates, LinearServerSide(linear, problem))
    auto = progress.strategy == "auto"
    strategy: Any = cheapest(candidates, "unicast").strategy if auto else progress.strategy
    plan = make_plan(placement, strategy, tasks=problem.task_of)
    return Lineup(number, tuple(members), plan, candidates, ServerSide(plan, problem, progress.trainer))
