"""The side of a relay under each strategy, with the plan for the nodes behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from asyncdmtl.digests import Digest
from asyncdmtl.exchange.coded_server import RelayServerSide
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.plan import Plan
from asyncdmtl.relay.aggregate_sides import AggregatingSide, BelowAggregates, BelowPersonal, PersonalSide
from asyncdmtl.relay.sides import ForwardingSide, RelaySide, said_below


def make_relay_side(
    plan: Plan,
    relay: str,
    stored: Mapping[str, Sequence[str]],
    problem: Problem,
    digest: Digest,
    helpers: Collection[str] = (),
    *,
    grouped: bool = False,
    trainer: Trainer | None = None,
) -> RelaySide:
    """The side of a relay under its parent's plan, with a plan for the nodes behind it.

    Parameters
    ----------
    plan : Plan
    relay : str
        The relay's name.
    stored, helpers
        The nodes, as for `plan_below`. What the plan does not give the relay is left out.
    problem : Problem
    digest : Digest
    grouped : bool
        Whether rows of the parent's plan go to a multicast group, which decides about ranges.
    trainer : Trainer, optional
        Holds the models so far under `personal`; default: the initial models.

    Raises
    ------
    PlanError
        A relay cannot follow the plan.
    """
    below = said_below(plan, relay, stored, problem, helpers)
    index, options = plan.placement.workers.index(relay), SideOptions(grouped, digest)
    if plan.strategy == "central":
        return AggregatingSide(plan, index, BelowAggregates(below, problem, options), problem, digest)
    if plan.strategy == "personal":
        return PersonalSide(plan, index, BelowPersonal(below, problem, trainer, options), problem, digest)
    return ForwardingSide(plan, index, RelayServerSide(below, problem, options), problem, digest)
