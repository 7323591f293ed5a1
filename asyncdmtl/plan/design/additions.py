"""The next copies of partitions to add: those that lower the load, cost or time of a round most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.building import wanted_models
from asyncdmtl.plan.parameters import Strategy
from asyncdmtl.plan.placement import Placement, counted
from asyncdmtl.plan.rates.aggregates import least_uplink
from asyncdmtl.plan.units import UnitKind
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_units
from asyncdmtl.plan.validation import a_placement, helpers_of, numbered_tasks, per_worker, wants_of


@dataclass(frozen=True)
class Addition:
    """One more copy, and the loads of a round with it and all earlier additions.

    Attributes
    ----------
    worker, partition : str
    uplink_load : Fraction
        The load in vectors; or the uplink's cost or time, if that is minimised.
    downlink_load : Fraction
        The load in vectors, with each row of the broadcast counted once; or the cost of all workers' copies;
        or the time of the slowest link.
    """

    worker: str
    partition: str
    uplink_load: Fraction
    downlink_load: Fraction


class RoundLoads:
    """The load, cost or time of a round, as a function of placements of the same workers and partitions.

    The strategy is `relay`; or `personal`, if some worker wants the models of its own tasks only.

    Parameters
    ----------
    placement : Placement
        One such placement.
    tasks, wants, prices, speeds : as for `make_plan`

    Raises
    ------
    UsageError
        An argument breaks its rule.
    """

    def __init__(
        self,
        placement: Placement,
        tasks: Sequence[int] | None = None,
        *,
        wants: Mapping[str, str] | Sequence[str] | None = None,
        prices: Sequence[Fraction | int] | None = None,
        speeds: Sequence[Fraction | int] | None = None,
    ) -> None:
        self.tasks = numbered_tasks(a_placement(placement), tasks)
        self._helpers = helpers_of(placement, wants)
        self.strategy: Strategy = "personal" if "own" in wants_of(placement, wants) else "relay"
        if speeds is not None and self.strategy == "personal":
            shown = [str(speed) for speed in speeds]
            raise UsageError("speeds", "are for the strategy relay, under which no worker wants own", shown)
        if prices is not None and speeds is not None:
            raise UsageError("prices and speeds", "cannot both be given", (prices, speeds))
        self._prices = None if prices is None else per_worker("prices", prices, placement)
        self._speeds = None if speeds is None else per_worker("speeds", speeds, placement, positive=True)

    def of(self, placement: Placement) -> tuple[Fraction, Fraction]:
        """Uplink and downlink, whose sum is minimised."""
        if self.strategy == "personal":
            return self._personal(placement)
        return self._loads(placement, self._helpers)

    def _loads(
        self, placement: Placement, helpers: tuple[int, ...], kind: UnitKind = "tasks"
    ) -> tuple[Fraction, Fraction]:
        """Uplink and downlink of `relay`, with these units."""
        prices, speeds = self._prices, self._speeds
        wishes = UplinkWishes(units=kind, prices=prices, speeds=speeds, helpers=helpers)
        units = choose_units(placement, self.tasks, "relay", wishes)
        uplink = least_uplink(units.blocks, helpers, prices, speeds)
        lacked = [
            Fraction(0 if k in helpers else len(units.holders) - len(held))
            for k, held in enumerate(units.held)
        ]
        if prices is not None:
            return uplink, sum((c * count for c, count in zip(prices, lacked, strict=True)), Fraction(0))
        if speeds is not None:
            return uplink, max(count / speed for count, speed in zip(lacked, speeds, strict=True))
        return uplink, max(lacked)

    def _personal(self, placement: Placement) -> tuple[Fraction, Fraction]:
        """Every unit goes up once, from its cheapest holder; models to workers that store their data."""
        units = choose_units(placement, self.tasks, "personal", UplinkWishes(prices=self._prices))
        models = wanted_models(placement, self.tasks, self._helpers)
        prices = self._prices
        if prices is None:
            return Fraction(len(units.holders)), Fraction(len(set().union(*models)))
        sent = sum((min(prices[k] for k in H) for H in units.holders), Fraction(0))
        return sent, sum((c * len(own) for c, own in zip(prices, models, strict=True)), Fraction(0))


def best_additions(
    placement: Placement, count: int, loads: RoundLoads | None = None
) -> tuple[Placement, tuple[Addition, ...]]:
    """Add copies one by one, each so that the sum of uplink and downlink becomes smallest.

    This is greedy: each copy is the best next one, but `count` copies together need not be the best set.

    Parameters
    ----------
    placement : Placement
    count : int
        Copies to add; fewer are added if every worker then stores everything.
    loads : RoundLoads, optional
        The loads to minimise. Default: those for which every partition is a task and every worker wants all
        models (docs/theory.md, section 3).

    Returns
    -------
    placement : Placement
        The placement with the new copies.
    additions : tuple of Addition
        The new copies, the most useful first.

    Raises
    ------
    PlacementError
        `count` is no whole number, or below 1.
    """
    counted("count", count)
    loads = loads or RoundLoads(a_placement(placement))
    added: list[Addition] = []
    while len(added) < count and (tried := _candidates(placement, loads)):
        best = min(tried, key=lambda pair: pair[1].uplink_load + pair[1].downlink_load)
        placement = best[0]
        added.append(best[1])
    return placement, tuple(added)


def _candidates(placement: Placement, loads: RoundLoads) -> list[tuple[Placement, Addition]]:
    """All placements with one more copy. Of interchangeable partitions, only the first is tried."""
    tried = []
    alone = len(set(loads.tasks)) == len(loads.tasks)
    for k, worker in enumerate(placement.workers):
        seen = set()
        for n in placement.missing(k):
            kind = placement.holders[n], None if alone else loads.tasks[n]
            if kind in seen:
                continue
            seen.add(kind)
            partition = placement.partitions[n]
            stored = placement.as_dict()
            stored[worker] = [*stored[worker], partition]
            more = Placement(stored, placement.partitions)
            tried.append((more, Addition(worker, partition, *loads.of(more))))
    return tried
