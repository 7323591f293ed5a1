"""The plan between a relay and the nodes right behind it (docs/theory.md, section 7).

Every update that these nodes store goes up once, uncoded. The relay stands in the plan as one more worker: it
stores all other updates, which it has from above, sends them, and wants nothing. What comes down is coded as
in every plan of the same strategy, so that the nodes need not know that they are behind a relay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.mending import decodable_plan
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import ATTEMPTS
from asyncdmtl.plan.rates.senders import choose_senders


def plan_below(
    above: Plan, relay: str, stored: Mapping[str, Sequence[str]], helpers: Collection[str] = ()
) -> Plan:
    """The plan for the nodes behind a relay, checked exactly for every node.

    Parameters
    ----------
    above : Plan
        The plan that the relay follows, in which it is a worker that stores what the nodes behind it do. It
        must code updates only.
    relay : str
        The relay's name in that plan.
    stored : mapping of node name to partitions
        The nodes right behind the relay, and the partitions that each stores.
    helpers : collection of str
        The nodes that want nothing.

    Returns
    -------
    Plan
        Of the same strategy and subpacketization. Its workers are the nodes and, last, the relay.

    Raises
    ------
    PlanError
        `above` codes other vectors than updates, the nodes store other partitions than it says, a node has
        the relay's name, or no matrices let every node decode.
    """
    if above.aggregated or above.sums or above.merged > 1 or above.silent:
        raise PlanError(f"a relay cannot follow a plan of {above.strategy} that codes more than updates")
    if relay in stored:
        raise PlanError(f"a worker behind the relay {relay!r} has its name")
    partitions = above.placement.partitions
    here = {name for names in stored.values() for name in names}
    said = above.placement.as_dict()[relay]
    if here != set(said):
        raise PlanError(
            f"the plan says that relay {relay!r} stores {said}, the nodes behind it {sorted(here)}"
        )
    rest = [name for name in partitions if name not in here]
    placement = Placement({**stored, relay: rest}, partitions)
    K, P = len(placement.workers), above.subpackets
    senders = choose_senders(placement)
    parameters = PlanParameters(
        placement=placement,
        tasks=above.tasks,
        strategy=above.strategy,
        subpackets=P,
        uplink_rows=tuple(P * senders.count(k) for k in range(K)),
        seed=above.seed,
        senders=senders,
        helpers=tuple(k for k, name in enumerate(placement.workers) if name in helpers or k == K - 1),
        matrices=above.matrices,
    )
    for seed in range(above.seed, above.seed + ATTEMPTS):
        if (plan := decodable_plan(replace(parameters, seed=seed))) is not None:
            return plan
    raise PlanError(f"no decodable matrices for the nodes behind relay {relay!r} among {ATTEMPTS} seeds")
