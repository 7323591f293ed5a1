"""The choice of the units that a plan codes, of the packets per unit, and of each worker's uplink rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.aggregates import Choice, best_units, cheapest_units, fewest_units
from asyncdmtl.plan.rates.rounding import PacketRates, plan_rates
from asyncdmtl.plan.rates.stragglers import check_copies, silent_rates
from asyncdmtl.plan.units import UNIT_KINDS, UnitKind, Units

# The most columns of matrices for which units with equal holders are not merged: small matrices cost little,
# and packets of single units balance the work of the workers better.
MOST_UNMERGED_COLUMNS = 256


@dataclass(frozen=True)
class UplinkWishes:
    """The arguments of `make_plan` of the same names, which determine the choice of the uplink."""

    max_overhead: Fraction = Fraction(0)
    prices: Sequence[Fraction] | None = None
    speeds: Sequence[Fraction] | None = None
    silent: int = 0
    units: UnitKind = "tasks"
    helpers: tuple[int, ...] = ()
    merge: bool = True


def choose_units(placement: Placement, tasks: Sequence[int], strategy: str, wishes: UplinkWishes) -> Units:
    """The units with the least load, cost or time: aggregates of tasks stored whole, sums, and updates."""
    if strategy == "uncoded" or wishes.units == "updates":
        choice = Choice()
    elif strategy == "relay":
        choice = best_units(placement, tasks, wishes.helpers, wishes.prices, wishes.speeds, wishes.units)
    elif wishes.prices is not None:
        choice = cheapest_units(placement, tasks, wishes.prices, wishes.units)
    else:
        choice = fewest_units(placement, tasks, wishes.units, least_holders=wishes.silent + 1)
    units = Units.of(placement, tasks, choice.aggregated, sums=choice.sums)
    if wishes.silent:
        if min(map(len, units.holders)) <= wishes.silent:
            check_copies(placement, wishes.silent)
        if choice != Choice() and min(map(len, placement.holders)) > wishes.silent:
            return _least_with_silent_workers(placement, tasks, units, strategy, wishes)
    return units


def _least_with_silent_workers(
    placement: Placement, tasks: Sequence[int], units: Units, strategy: str, wishes: UplinkWishes
) -> Units:
    """Of these units and the fewest of each kind, those whose uplink is the smallest with silent workers."""
    choices = [units]
    for kind in UNIT_KINDS[: UNIT_KINDS.index(wishes.units) + 1][::-1]:
        choice = fewest_units(placement, tasks, kind, least_holders=wishes.silent + 1)
        choices.append(Units.of(placement, tasks, choice.aggregated, sums=choice.sums))
    # The best units without silent workers may have too few holders.
    possible = [some for some in choices if min(map(len, some.holders)) > wishes.silent]
    helpers = set(wishes.helpers)
    wanting = None if strategy != "relay" else [k for k in range(len(placement.workers)) if k not in helpers]
    return min(
        possible, key=lambda some: silent_rates(some.blocks, wishes.silent, 1, wanting, wishes.prices).bound
    )


def choose_rates(units: Units, strategy: str, wishes: UplinkWishes) -> tuple[Units, PacketRates]:
    """Rates for these units, and the units, merged if that makes large matrices smaller."""

    def rates(of: Units) -> PacketRates:
        return plan_rates(
            of.blocks,
            strategy,
            max_overhead=wishes.max_overhead,
            prices=wishes.prices,
            speeds=wishes.speeds,
            silent=wishes.silent,
            helpers=wishes.helpers,
        )

    # With so many units, a plan without merging is never small, so that its rates need not be computed.
    whole = strategy != "relay" or not wishes.merge
    if whole or len(units.holders) <= MOST_UNMERGED_COLUMNS or units.largest_merge() == 1:
        found = rates(units)
        small = found.subpackets * len(units.holders) <= MOST_UNMERGED_COLUMNS
        if whole or small or found.subpackets == 1 or units.largest_merge() == 1:
            return units, found
    merged = replace(units, merged=units.largest_merge())
    return merged, _scaled(rates(merged), merged.merged)


def _scaled(rates: PacketRates, merged: int) -> PacketRates:
    """The rates of blocks, with cost or time in units of vectors."""
    objective = rates.objective
    if objective is None:
        return rates
    scaled = replace(objective, value=objective.value * merged, bound=objective.bound * merged)
    return replace(rates, objective=scaled)
