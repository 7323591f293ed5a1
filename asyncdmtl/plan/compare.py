"""All strategies side by side for one placement, in the cost that the user declares (docs/theory.md, section
2).

Loads follow from the placement without matrices, so that a comparison is quick even if planning is slow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, get_args

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.building import forwarded, wanted_models
from asyncdmtl.plan.parameters import CODED, STRATEGIES, Strategy
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.aggregates import least_uplink
from asyncdmtl.plan.rates.bounds import lacking
from asyncdmtl.plan.rates.job import job_bound, job_bound_with_silent_workers, job_downlink_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.rates.rounding import PacketRates
from asyncdmtl.plan.units import UnitKind, Units
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_rates, choose_units
from asyncdmtl.plan.validation import (
    a_placement,
    check_combination,
    helpers_of,
    numbered_tasks,
    per_worker,
    rational,
    unit_kind,
    wants_of,
    whole_number,
)

Network = Literal["unicast", "multicast"]
NETWORKS: tuple[Network, ...] = get_args(Network)

# Shares by which a candidate's cost or time may exceed the minimum, tried in this order if the minimum takes
# too many packets.
_WIDER = (Fraction(1, 1000), Fraction(1, 100), Fraction(1, 10), Fraction(1), Fraction(1000))


@dataclass(frozen=True)
class Candidate:
    """One strategy's loads, in vectors per round.

    Attributes
    ----------
    strategy : str
    uplink_load, downlink_load : Fraction
        Loads, with each row of the broadcast counted once.
    uplink_bound, downlink_bound : Fraction
        The job's own bounds: no scheme that gives every worker all models has lower loads. Those of
        `personal` are for schemes whose server has all aggregates, and every model somewhere.
    unicast_load : Fraction
        The downlink with every worker's copy counted, as on links without multicast.
    subpackets : int
    limits : str
        The reasons why the loads are not lower, in words.
    uplink_cost, unicast_cost : Fraction
        `Σ_k c_k·(load on worker k's link)`, for the uplink, and for a unicast downlink; the loads if all
        `c_k = 1`.
    unicast_costs : tuple of Fraction, length K
        The share of each worker in `unicast_cost`; empty if it is not known.
    rates, copies : tuple of Fraction, length K
        The uplink load of each worker, and its part of `unicast_load`; empty if they are not known.
    """

    strategy: str
    uplink_load: Fraction
    uplink_bound: Fraction
    downlink_load: Fraction
    downlink_bound: Fraction
    unicast_load: Fraction
    subpackets: int
    limits: str
    uplink_cost: Fraction
    unicast_cost: Fraction
    unicast_costs: tuple[Fraction, ...] = ()
    rates: tuple[Fraction, ...] = ()
    copies: tuple[Fraction, ...] = ()

    def cost(self, network: Network) -> Fraction:
        """The cost of a round, uplink and downlink; a row of a multicast downlink costs 1."""
        return self.uplink_cost + (self.downlink_load if network == "multicast" else self.unicast_cost)

    def mixed_cost(self, listeners: Collection[int]) -> Fraction:
        """The cost of a round in which `listeners` may receive a multicast, if that is cheaper."""
        heard = sum((self.unicast_costs[k] for k in listeners), Fraction(0))
        return self.uplink_cost + self.unicast_cost - heard + min(heard, self.downlink_load)

    @property
    def overhead(self) -> Fraction:
        """The share by which the uplink load exceeds its bound."""
        return self.uplink_load / self.uplink_bound - 1 if self.uplink_bound else Fraction(0)


def compare(
    placement: Placement,
    tasks: Sequence[int] | None = None,
    *,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
    units: UnitKind = "tasks",
    wants: Mapping[str, str] | Sequence[str] | None = None,
) -> tuple[Candidate, ...]:
    """The exact strategies for `placement`, each with its loads and their bounds.

    Parameters
    ----------
    placement : Placement
    tasks : sequence of int, length N, optional
        The task of each partition. Default: each partition is a task.
    max_overhead : Fraction
        As for `make_plan`.
    prices : sequence of K numbers, optional
        `c_k`: the cost of a vector on the link of worker `k`, in either direction. Default: 1.
    speeds : sequence of K numbers, optional
        As for `make_plan`: `relay` minimises the time of its uplink.
    silent : int
        The number of workers that may stay silent. Above 0 only strategies that tolerate it are compared.
    units : "updates", "tasks" or "sums"
        As for `make_plan`: the vectors that may be coded.
    wants : mapping of worker name to "all", "own" or "none", or sequence of K such words, optional
        As for `make_plan`: workers that want nothing are sent nothing. If some worker wants the models of its
        own tasks only, `personal` is the only strategy.

    Raises
    ------
    UsageError
        Prices are not K numbers of at least 0, or another argument breaks its rule.
    PlacementError
        A partition has at most `silent` holders.
    """
    placement = a_placement(placement)
    tasks = numbered_tasks(placement, tasks)
    overhead = rational("max_overhead", max_overhead)
    silent = whole_number("silent", silent)
    kind = unit_kind(units)
    helpers = helpers_of(placement, wants)
    costs = per_worker("prices", [1] * len(placement.workers) if prices is None else prices, placement)
    link_speeds = None if speeds is None else per_worker("speeds", speeds, placement, positive=True)
    strategies: tuple[Strategy, ...] = CODED if silent else STRATEGIES
    if "own" in wants_of(placement, wants):
        if silent:
            raise UsageError("wants", "cannot be own with silent workers", wants)
        strategies = ("personal",)
    candidates = []
    for strategy in strategies:
        wishes = UplinkWishes(
            overhead,
            None if prices is None else costs,
            link_speeds if strategy == "relay" else None,
            silent,
            kind,
            helpers,
        )
        check_combination(strategy, wishes.prices, wishes.speeds, silent)
        coded = choose_units(placement, tasks, strategy, wishes)
        merged, found = _affordable_rates(coded, strategy, wishes)
        rates = [Fraction(count * merged.merged, found.subpackets) for count in found.rows]
        view = _VIEWS[strategy](placement, tasks, coded, helpers)
        limits = view.limits
        paid = tuple(Fraction(c * copies) for c, copies in zip(costs, view.copies, strict=True))
        if silent:
            least = least_uplink(coded.blocks, helpers) if strategy == "relay" else len(coded.holders)
            limits = f"any {silent} may stay silent: uplink {sum(rates)} instead of {least}; {limits}"
        candidates.append(
            Candidate(
                strategy,
                sum(rates, Fraction(0)),
                _uplink_bound(placement, tasks, strategy, silent, helpers),
                Fraction(view.downlink),
                Fraction(view.downlink_bound),
                Fraction(sum(view.copies)),
                found.subpackets,
                limits,
                sum((c * rate for c, rate in zip(costs, rates, strict=True)), Fraction(0)),
                sum(paid, Fraction(0)),
                paid,
                tuple(rates),
                tuple(map(Fraction, view.copies)),
            )
        )
    return tuple(candidates)


def _uplink_bound(
    placement: Placement, tasks: Sequence[int], strategy: str, silent: int, helpers: Sequence[int]
) -> Fraction:
    """The job's bound on the uplink."""
    if silent:
        at_server = strategy != "relay"
        return job_bound_with_silent_workers(
            placement, tasks, silent, at_server=at_server, helpers=helpers
        ).load
    return job_bound(placement, tasks, at_server=strategy == "personal", helpers=helpers).load


def _affordable_rates(units: Units, strategy: str, wishes: UplinkWishes) -> tuple[Units, PacketRates]:
    """Rates within the permitted overhead, or within the next one of `_WIDER` that takes few packets."""
    overhead = wishes.max_overhead
    for allowed in (overhead, *(wider for wider in _WIDER if wider > overhead)):
        try:
            return choose_rates(units, strategy, replace(wishes, max_overhead=allowed))
        except PlanError:
            if (wishes.prices is None and wishes.speeds is None) or allowed >= _WIDER[-1]:
                raise
    raise AssertionError("the last overhead returns or raises")


def cheapest(candidates: Sequence[Candidate], network: Network) -> Candidate:
    """The candidate with the lowest cost; the first one of several with equal costs.

    Raises
    ------
    UsageError
        `network` is unknown.
    PlanError
        There is no candidate.
    """
    if not isinstance(network, str) or network not in NETWORKS:
        raise UsageError("network", f"must be one of {', '.join(NETWORKS)}", network)
    if not candidates:
        raise PlanError("there is no strategy to choose from")
    return min(candidates, key=lambda candidate: candidate.cost(network))


def certificate_in_words(
    coded: Placement, certificate: Sequence[Sequence[int]], named: Placement | None = None
) -> str:
    """The proof that no scheme has a smaller uplink, in words: groups of workers, and what each lacks."""
    if len(certificate) < 2:
        return "a single worker lacks nothing"
    lacks = [lacking(coded, block) for block in certificate]
    value = Fraction(sum(lacks), len(certificate) - 1)
    names = (named or coded).workers
    if len(certificate) == len(coded.workers):
        groups = f"all {len(certificate)} workers by themselves"
    else:
        groups = f"{len(certificate)} groups of workers"
    described = "; ".join(
        f"{_names([names[k] for k in block])} {'lacks' if len(block) == 1 else 'lack'} {lack}"
        for block, lack in list(zip(certificate, lacks, strict=True))[:_SHOWN]
    )
    rest = f"; and {len(certificate) - _SHOWN} more" if len(certificate) > _SHOWN else ""
    others = len(certificate) - 1
    helped = f"the {others} others" if others > 1 else "the other"
    return (
        f"{groups} lack {sum(lacks)} vectors in sum ({described}{rest}); what one sends helps at most "
        f"{helped}, so {sum(lacks)}/{others}"
        + (f" = {value}" if value.denominator != others or others == 1 else "")
        + " vectors are the least uplink"
    )


# The most names, and groups of workers, that a sentence lists; it then says how many more there are.
_SHOWN = 8


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


@dataclass(frozen=True)
class _View:
    """The downlink of a strategy, its bound, and the reasons for both loads."""

    downlink: int
    downlink_bound: int
    copies: list[int]
    limits: str


def _relay(placement: Placement, tasks: Sequence[int], units: Units, helpers: Sequence[int]) -> _View:
    copies = _sent([len(units.holders) - len(held) for held in units.held], helpers)
    neediest = copies.index(max(copies))
    limits = (
        f"uplink: {relay_limit_in_words(placement, units, helpers)}. Downlink: worker "
        f"{placement.workers[neediest]} stores only {len(units.held[neediest])} of {len(units.holders)} "
        f"{_kinds(units)}."
    )
    return _View(max(copies), job_downlink_bound(placement, tasks, helpers), copies, limits)


def relay_limit_in_words(placement: Placement, units: Units, helpers: Sequence[int]) -> str:
    """The reason why the uplink of these units is not smaller."""
    if not helpers:
        return certificate_in_words(units.blocks, uplink_optimum(units.blocks).certificate, placement)
    wanting = [name for k, name in enumerate(placement.workers) if k not in set(helpers)]
    return f"{_names(wanting)} must learn all {_kinds(units)} from the others; the other workers want nothing"


def _sent(copies: list[int], helpers: Sequence[int]) -> list[int]:
    """The number of vectors that each worker is sent, 0 if it wants nothing."""
    return [0 if k in set(helpers) else count for k, count in enumerate(copies)]


def _central(placement: Placement, tasks: Sequence[int], units: Units, helpers: Sequence[int]) -> _View:
    T = max(tasks) + 1
    copies = _sent([T - len(whole_tasks(stored, tasks)) for stored in placement.stored], helpers)
    neediest = copies.index(max(copies))
    limits = (
        f"uplink: the server needs every one of {len(units.holders)} {_kinds(units)}. "
        f"Downlink: worker {placement.workers[neediest]} stores only {T - max(copies)} of {T} tasks whole."
    )
    return _View(max(copies), max(copies), copies, limits)


def _personal(placement: Placement, tasks: Sequence[int], units: Units, helpers: Sequence[int]) -> _View:
    T = max(tasks) + 1
    models = wanted_models(placement, tasks, helpers)
    wanted, hosted = len(set().union(*models)), [len(own) for own in models]
    each = f"every one of {T}" if wanted == T else f"{wanted} of {T}"
    limits = (
        f"uplink: the server needs every one of {len(units.holders)} {_kinds(units)}. Downlink: {each} "
        f"models {'is' if wanted == T else 'are'} wanted somewhere; a worker is sent {_range(hosted)}."
    )
    return _View(wanted, wanted, hosted, limits)


def _uncoded(placement: Placement, tasks: Sequence[int], units: Units, helpers: Sequence[int]) -> _View:
    limits = "nothing is coded: every update goes up once and down once."
    if unsent := len(placement.partitions) - len(down := forwarded(placement, helpers)):
        limits = (
            f"nothing is coded: every update goes up once, and all but {unsent} that nobody needs go down."
        )
    copies = _sent([len(placement.partitions) - len(stored) for stored in placement.stored], helpers)
    bound = job_downlink_bound(placement, tasks, helpers)
    return _View(len(down), bound, copies, limits)


_VIEWS = {"relay": _relay, "central": _central, "personal": _personal, "uncoded": _uncoded}


def _kinds(units: Units) -> str:
    """The kinds of the units in words, for sentences."""
    kinds = {"updates": units.updates, "sums": units.sums, "aggregates": units.aggregated}
    *others, last = [kind for kind, some in kinds.items() if some]
    return f"{', '.join(others)} and {last}" if others else last


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def whole_tasks(stored: Collection[int], tasks: Sequence[int]) -> set[int]:
    """The tasks with all their partitions among `stored`."""
    held = set(stored)
    broken = {task for n, task in enumerate(tasks) if n not in held}
    return set(tasks) - broken
