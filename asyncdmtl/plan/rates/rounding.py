"""Rates of every strategy in whole packets: packets per vector, and how many each worker sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.integral import integral_rates
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import smallest_subpackets, uplink_optimum
from asyncdmtl.plan.rates.senders import choose_senders
from asyncdmtl.plan.rates.stragglers import fewest_packets
from asyncdmtl.plan.validation import check_combination, per_worker


def plan_rates(
    placement: Placement,
    strategy: str,
    *,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
) -> tuple[int, tuple[int, ...]]:
    """Packets per vector, and how many of them each worker sends up; arguments as for `make_plan`."""
    check_combination(strategy, prices, speeds, silent)
    overhead = Fraction(max_overhead)
    if silent:
        tolerant = fewest_packets(placement, silent, overhead)
        return tolerant.subpackets, tuple(int(rate * tolerant.subpackets) for rate in tolerant.rates)
    costs = None if prices is None else per_worker("prices", prices, placement)
    if strategy != "relay":
        senders = choose_senders(placement, costs)
        return 1, tuple(senders.count(k) for k in range(len(placement.workers)))
    if costs is not None:
        cheapest = cheapest_rates(placement, costs)
        return _rounded_up(cheapest.rates, lambda rates: _dot(costs, rates), overhead)
    if speeds is not None:
        quick = per_worker("speeds", speeds, placement, positive=True)
        fastest = fastest_rates(placement, quick)
        return _rounded_up(fastest.rates, lambda rates: longest(rates, quick), overhead)
    optimum = uplink_optimum(placement)
    subpackets = smallest_subpackets(optimum, overhead)
    return subpackets, integral_rates(placement, subpackets, optimum)


def _rounded_up(
    rates: Sequence[Fraction], cost: Callable[[Sequence[Fraction]], Fraction], max_overhead: Fraction
) -> tuple[int, tuple[int, ...]]:
    """The fewest packets for which `rates`, rounded up, cost at most the share `max_overhead` more.

    Rates that are rounded up violate no cut, because no cut has an upper limit. (Other optimal rates may need
    fewer packets.)
    """
    allowed = (1 + max_overhead) * cost(rates)
    for P in range(1, MOST_SUBPACKETS + 1):
        rows = tuple(ceil(P * rate) for rate in rates)
        if cost([Fraction(count, P) for count in rows]) <= allowed:
            return P, rows
    raise PlanError(
        f"the optimal rates need more than {MOST_SUBPACKETS} packets per vector: allow some max_overhead"
    )


def _dot(prices: Sequence[Fraction], rates: Sequence[Fraction]) -> Fraction:
    return sum((Fraction(price) * rate for price, rate in zip(prices, rates, strict=True)), Fraction(0))


def longest(rates: Sequence[Fraction], speeds: Sequence[Fraction]) -> Fraction:
    """`max_k R_k / b_k`: the time that the uplink takes."""
    return max(rate / Fraction(speed) for rate, speed in zip(rates, speeds, strict=True))
