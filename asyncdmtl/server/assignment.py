"""An assignment: a plan, and the workers that follow it, from some round on."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from asyncdmtl.digests import CONFIRMATION_KEY_BYTES
from asyncdmtl.errors import UsageError
from asyncdmtl.exchange.sides import ServerSide, SideOptions
from asyncdmtl.exchange.strategies import (
    EXCHANGE_STRATEGIES,
    ExchangeStrategy,
    codable_units,
    strategy_of,
)
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.multicast.datagrams import MAX_ROW_NUMBERS
from asyncdmtl.plan.building import wanted_models
from asyncdmtl.plan.codes.repair import multicast_delivery
from asyncdmtl.plan.compare import Candidate, compare
from asyncdmtl.plan.links import EQUAL_LINKS
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.rates.stragglers import check_copies
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.plan.units import UnitKind
from asyncdmtl.plan.uplink_choice import UplinkWishes
from asyncdmtl.plan.validation import helpers_of
from asyncdmtl.protocol.messages.peers import Peer
from asyncdmtl.server.downlink_choice import DownlinkChoice, choose_downlink
from asyncdmtl.server.member import Member
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.wants import served_strategy

# The partitions that a worker stores, and the models that it wants, as in `Member`.
Declared = tuple[tuple[str, ...], str]


@dataclass(frozen=True, eq=False)
class Assignment:
    """A plan, and the workers that follow it.

    Attributes
    ----------
    number : int
        The plan's number in the run.
    members : tuple of Member
        The members, in the order of the plan.
    plan : Plan or LinearPlan
    candidates : tuple of Candidate
        The loads of each strategy with these workers.
    side : ServerSide
    listeners : tuple of str
        The members that receive their rows from the group.
    network : str
        The reason for this choice of listeners; empty if no member receives the group.
    detailed : bool
        Whether members send all their values, rather than confirm those that others tell.
    exchanging : frozenset of str
        The members that take rows from other members.
    carried : bool
        Whether coded rows go through the server, because some member needs them.
    downlink : DownlinkChoice or None
        The choice how rows come to members, if the server has one.
    keys : mapping of int to bytes
        The keys with which members confirm what others tell, by their index; none if all tell their values.
    """

    number: int
    members: tuple[Member, ...]
    plan: AnyPlan
    candidates: tuple[Candidate, ...]
    side: ServerSide
    listeners: tuple[str, ...] = ()
    network: str = ""
    detailed: bool = False
    exchanging: frozenset[str] = frozenset()
    carried: bool = True
    downlink: DownlinkChoice | None = None
    keys: Mapping[int, bytes] = field(default_factory=dict)

    def peers_of(self, member: Member) -> tuple[Peer, ...]:
        """The workers from which a member takes rows; none if its rows come from the server."""
        if member.name not in self.exchanging or not isinstance(self.plan, Plan):
            return ()
        wanted, units = self.plan.deliveries[self.position(member)].wanted, self.plan.units
        holders = {k for unit in wanted for k in units.holders[unit]}
        found = (other for k, other in enumerate(self.members) if k in holders and other is not member)
        return tuple(other.place.peer(other.name, member.name) for other in found if other.place is not None)

    def position(self, member: Member) -> int:
        """The index of a member in the plan."""
        return self.plan.placement.workers.index(member.name)

    def suits(self, members: Sequence[Member]) -> bool:
        """Whether the plan has these members, and they store all that it says."""
        said = self.plan.placement.as_dict()
        return all(set(said.get(member.name, [""])) <= set(member.partitions) for member in members)

    @property
    def strategy(self) -> ExchangeStrategy:
        """The strategy of the plan."""
        return strategy_of(self.plan)


def make_assignment(number: int, members: Sequence[Member], progress: TrainingProgress) -> Assignment:
    """Plan for these workers, which hold every partition even without distrusted copies.

    If the run has ended, the plan includes the workers that it had then, which may be gone.

    Parameters
    ----------
    number : int
        The number of the plan.
    members : sequence of Member
    progress : TrainingProgress
        Its strategy is used. For "auto", it is the exact strategy with the lowest cost, counting each row
        once for all members that receive the group.
    """
    problem, ending = progress.problem, progress.ending
    declared: dict[str, Declared] = {member.name: (member.partitions, member.wants) for member in members}
    if ending is not None:
        declared = {**ending.workers, **declared}
    stored = _stored(declared, progress)
    wants = {name: declared.get(name, ((), ""))[1] or "all" for name in stored}
    placement = Placement(stored, [info.id for info in problem.infos])
    # Relays know single updates. After the end, they may come back to a plan made while they were away.
    relayed = progress.over or any(member.behind for member in members)
    units: UnitKind = "updates" if relayed else codable_units(problem.settings)
    links = EQUAL_LINKS if progress.over else progress.links
    weights = links.weights(placement)
    silent = 0 if relayed else _tolerable(placement, progress)
    candidates = compare(placement, problem.task_of, units=units, wants=wants, silent=silent, **weights)
    # After the end no rows are sent.
    hearing = [k for k, member in enumerate(members) if ending is None and member.hears and not member.helps]
    name = served_strategy(progress.strategy, {name: what for name, (_, what) in declared.items()})
    timed = progress.links.speeds or progress.links.learned
    exchanged = not progress.chooses_downlink and any(member.exchanges for member in members)
    if name == "auto" and (timed or exchanged):
        # The time of the uplink is what counts, and only `relay` shortens it; or workers exchange rows.
        name = "relay"
    possible = [c for c in candidates if c.strategy == name]
    if name == "auto":
        possible = _possible(candidates, problem, wants, placement)
    choice = None
    if progress.chooses_downlink and possible and ending is None and not relayed:
        wishes = UplinkWishes(units=units, helpers=helpers_of(placement, wants), **weights)
        choice = choose_downlink(placement, problem.task_of, possible, wishes, members, progress.links)
        name = choice.chosen.strategy
    elif name == "auto":
        name = min(possible, key=lambda c: c.mixed_cost(hearing)).strategy
    strategy = EXCHANGE_STRATEGIES[name]
    if progress.checked and _serves(checking := strategy.checking(blind=progress.blind), problem.settings):
        strategy = checking
    plan = strategy.make_plan(placement, problem, wants, links, silent, relayed=relayed)
    kind = None if choice is None else choice.chosen.kind
    listeners, reason = choose_listeners(plan, hearing) if kind in (None, "multicast") else ((), "")
    # A value that one worker tells for all would be missing if that worker is late. Relays need all values.
    detailed = progress.detailed or progress.checked or silent > 0 or relayed
    exchanging: frozenset[str] = frozenset()
    direct = not _compares_masked(plan, progress, relayed=relayed, detailed=detailed)
    if ending is None and direct and kind in (None, "peers"):
        exchanging = choose_exchanging(plan, members)
    carried = not exchanging or not served_by_peers(plan, exchanging)
    keys = {} if detailed else _confirmation_keys(len(placement.workers))
    options = SideOptions(bool(listeners), progress.digest, detailed, carried, progress.blind, keys=keys)
    side = strategy.server_side(plan, problem, progress.trainer, options)
    return Assignment(
        number,
        tuple(members),
        plan,
        candidates,
        side,
        listeners,
        reason,
        detailed,
        exchanging,
        carried,
        choice,
        keys,
    )


def _compares_masked(plan: AnyPlan, progress: TrainingProgress, *, relayed: bool, detailed: bool) -> bool:
    """Whether a blind server or a relay compares masked units, for which all of them must pass the server."""
    if not progress.blind:
        return False
    return relayed or (detailed and isinstance(plan, Plan) and plan.strategy == "uncoded")


def _confirmation_keys(count: int) -> dict[int, bytes]:
    """A key for each of `count` workers, which no other worker knows."""
    return {k: secrets.token_bytes(CONFIRMATION_KEY_BYTES) for k in range(count)}


def _stored(declared: Mapping[str, Declared], progress: TrainingProgress) -> dict[str, Sequence[str]]:
    """The partitions that each worker of a plan stores, without distrusted copies.

    After the last round nothing is coded, and one more worker stands for holders that are gone for good.
    """
    stored: dict[str, Sequence[str]] = {
        name: [part for part in held if (name, part) not in progress.distrusted]
        for name, (held, _) in declared.items()
    }
    held = {part for parts in stored.values() for part in parts}
    lost = [info.id for info in progress.problem.infos if info.id not in held]
    if progress.over and lost:
        stored[next(name for n in count() if (name := f"gone{n}") not in stored)] = lost
    return stored


def _possible(
    candidates: Sequence[Candidate],
    problem: Problem,
    wants: Mapping[str, str],
    placement: Placement,
) -> list[Candidate]:
    """The strategies from which "auto" may choose."""
    possible = [c for c in candidates if _serves(EXCHANGE_STRATEGIES[c.strategy], problem.settings)]
    # No strategy is chosen by which the models of some task would end nowhere.
    complete = len(set().union(*wanted_models(placement, problem.task_of, helpers_of(placement, wants))))
    if complete < len(problem.tasks):
        possible = [c for c in possible if c.strategy != "personal"]
    return possible


def choose_exchanging(plan: AnyPlan, members: Sequence[Member]) -> frozenset[str]:
    """The names of the members that can take all vectors that they lack from others."""
    if not isinstance(plan, Plan) or plan.strategy not in ("relay", "uncoded"):
        return frozenset()
    giving = {k for k, member in enumerate(members) if member.place is not None}
    held = [giving.intersection(holders) for holders in plan.units.holders]
    return frozenset(
        member.name
        for k, (member, delivery) in enumerate(zip(members, plan.deliveries, strict=True))
        if member.exchanges and all(held[unit] - {k} for unit in delivery.wanted)
    )


def served_by_peers(plan: AnyPlan, exchanging: Collection[str]) -> bool:
    """Whether no worker under a plan needs rows of the server."""
    assert isinstance(plan, Plan)
    return all(
        name in exchanging or not delivery.rows
        for name, delivery in zip(plan.placement.workers, plan.deliveries, strict=True)
    )


def _tolerable(placement: Placement, progress: TrainingProgress) -> int:
    """The number of silent workers that the next plan tolerates.

    Later plans tolerate fewer if lost workers held copies. While the server looks for the worker that sends
    wrong rows, it waits for all, since rows that tolerate silent workers do not show their sender.

    Raises
    ------
    PlacementError
        Before the first round, partitions have at most `progress.silent` holders.
    """
    if progress.checked or progress.ending is not None:
        return 0
    if not progress.plans:
        check_copies(placement, progress.silent)
    fewest = min(map(len, placement.holders))
    silent = max(0, min(progress.silent, fewest - 1, len(placement.workers) - 1))
    if silent < progress.silent:
        reason = f"plans tolerate {silent} late workers instead of {progress.silent}: copies are lost"
        progress.note("", "Intolerant", reason)
    return silent


def _serves(strategy: ExchangeStrategy, settings: Settings) -> bool:
    """Whether a strategy can serve these settings."""
    try:
        strategy.check(settings)
    except UsageError:
        return False
    return True


def choose_listeners(plan: AnyPlan, hearing: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """The names of the workers that receive their rows from the group under a plan, and the reason in words.

    Parameters
    ----------
    plan : Plan or LinearPlan
        The rows of a linear plan never go to a group.
    hearing : sequence of int
        The indices of the workers that receive the group.
    """
    if not hearing or not isinstance(plan, Plan):
        return (), ""
    rows = {number for k in hearing for number in multicast_delivery(plan, k).rows}
    copies = sum(len(plan.deliveries[k].rows) for k in hearing)
    told = f"{len(rows) * plan.packet_load} vectors to the group"
    if len(plan.combined) > MAX_ROW_NUMBERS // 2:
        return (), f"{len(plan.combined)} rows are more than datagrams can number"
    if len(rows) >= copies:
        return (), f"{told} are no less than {copies * plan.packet_load} over TCP"
    names = tuple(plan.placement.workers[k] for k in hearing)
    return names, f"{told} instead of {copies * plan.packet_load} over TCP"
