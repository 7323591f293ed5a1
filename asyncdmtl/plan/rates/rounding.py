"""Rates in whole packets for every strategy: packets per vector, and packets that each worker sends.

If the uplink's cost or time is minimised, the smallest number of packets is found exactly. For a
time `t` and `P` packets, worker `k` may send `⌊P·t·b_k⌋` packets, and rates exist iff these limits violate no
cut. The smallest cost in whole packets is a convex function of the total number of packets, and for a given
number the greedy algorithm is optimal. So the minimum is next to the fractional optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import violated_cut
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.cuts import MergedPartitions, serve
from asyncdmtl.plan.rates.demands import demanded_packets, demanded_packets_in_time
from asyncdmtl.plan.rates.integral import integral_rates
from asyncdmtl.plan.rates.makespan import fastest_rates, tolerant_time
from asyncdmtl.plan.rates.optimum import least_sum, smallest_subpackets, uplink_optimum
from asyncdmtl.plan.rates.senders import choose_senders
from asyncdmtl.plan.rates.stragglers import fewest_packets
from asyncdmtl.plan.validation import check_combination, per_worker

# A cut with its multiplier in a proof of a cost.
WeightedCut = tuple[tuple[int, ...], Fraction]


@dataclass(frozen=True)
class UplinkObjective:
    """The cost or the time of an uplink that was minimised instead of the load.

    Attributes
    ----------
    kind : "cost" or "time"
        `Σ_k c_k R_k` for prices `c`, or `max_k R_k / b_k` for speeds `b`.
    weights : tuple of K Fractions
        The prices or the speeds.
    value, bound : Fraction
        The value for the plan's rates, and the smallest value for any rates.
    certificate : tuple of (cut, multiplier) pairs
        The proof of the bound: `bounds.cost_bound` of all pairs is the smallest cost, or `bounds.time_bound`
        of the single cut is the shortest time. It is empty if units go up uncoded, as every unit then has a
        cheapest holder, and for plans that tolerate silent workers.
    """

    kind: str
    weights: tuple[Fraction, ...]
    value: Fraction
    bound: Fraction
    certificate: tuple[WeightedCut, ...]


@dataclass(frozen=True)
class PacketRates:
    """The packets of a vector, the packets that each worker sends, and the objective that they minimise."""

    subpackets: int
    rows: tuple[int, ...]
    objective: UplinkObjective | None = None


def plan_rates(
    placement: Placement,
    strategy: str,
    *,
    max_overhead: Fraction | int = 0,
    prices: Sequence[Fraction | int] | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    silent: int = 0,
    helpers: Sequence[int] = (),
) -> PacketRates:
    """The rates of a plan. Arguments are as for `make_plan`, with coded units as partitions."""
    check_combination(strategy, prices, speeds, silent)
    overhead = Fraction(max_overhead)
    if silent and speeds is not None:
        if helpers:
            rule = "cannot be given with silent where workers want nothing"
            raise UsageError("speeds", rule, [placement.workers[k] for k in helpers])
        b = per_worker("speeds", speeds, placement, positive=True)
        return tolerant_packets(placement, b, silent, overhead)
    costs = None if prices is None else per_worker("prices", prices, placement)
    if silent:
        lacking = [k for k in range(len(placement.workers)) if k not in set(helpers)]
        wanting = lacking if strategy == "relay" else None
        return _rates_with_silent_workers(placement, silent, overhead, wanting, costs)
    if strategy != "relay":
        senders = choose_senders(placement, costs)
        rows = tuple(senders.count(k) for k in range(len(placement.workers)))
        if costs is None:
            return PacketRates(1, rows)
        value = _dot(costs, [Fraction(count) for count in rows])
        return PacketRates(1, rows, UplinkObjective("cost", costs, value, value, ()))
    if helpers:
        return _rates_with_helpers(placement, helpers, overhead, costs, speeds)
    if costs is not None:
        return cheapest_packets(placement, costs, overhead)
    if speeds is not None:
        return fastest_packets(placement, per_worker("speeds", speeds, placement, positive=True), overhead)
    optimum = uplink_optimum(placement)
    subpackets = smallest_subpackets(optimum, overhead)
    return PacketRates(subpackets, integral_rates(placement, subpackets, optimum))


def _rates_with_silent_workers(
    placement: Placement,
    silent: int,
    overhead: Fraction,
    wanting: Sequence[int] | None,
    costs: tuple[Fraction, ...] | None,
) -> PacketRates:
    """The rates with the least load or cost that tolerate `silent` workers."""
    found = fewest_packets(placement, silent, overhead, wanting, costs)
    rows = tuple(int(rate * found.subpackets) for rate in found.rates)
    if costs is None:
        return PacketRates(found.subpackets, rows)
    return PacketRates(found.subpackets, rows, UplinkObjective("cost", costs, found.value, found.bound, ()))


def _rates_with_helpers(
    placement: Placement,
    helpers: Sequence[int],
    overhead: Fraction,
    costs: tuple[Fraction, ...] | None,
    speeds: Sequence[Fraction | int] | None,
) -> PacketRates:
    """The rates of a relay some of whose workers want nothing."""
    if speeds is None:
        found = demanded_packets(placement, helpers, overhead, costs)
        if costs is None:
            return PacketRates(found.subpackets, found.rows)
        value = _dot(costs, [Fraction(count, found.subpackets) for count in found.rows])
        objective = UplinkObjective("cost", costs, value, found.least, found.certificate)
        return PacketRates(found.subpackets, found.rows, objective)
    b = per_worker("speeds", speeds, placement, positive=True)
    found = demanded_packets_in_time(placement, helpers, overhead, b)
    value = longest([Fraction(count, found.subpackets) for count in found.rows], b)
    objective = UplinkObjective("time", b, value, found.least, found.certificate)
    return PacketRates(found.subpackets, found.rows, objective)


def cheapest_packets(placement: Placement, costs: Sequence[Fraction], max_overhead: Fraction) -> PacketRates:
    """Rates with the fewest packets whose cost exceeds the minimum by at most the share `max_overhead`.

    Raises
    ------
    PlanError
        More than `MOST_SUBPACKETS` packets are needed.
    """
    cheapest = cheapest_rates(placement, costs)
    load = sum(cheapest.rates, Fraction(0))
    least = uplink_optimum(placement).load
    order = sorted(range(len(costs)), key=lambda k: costs[k])
    merged = MergedPartitions.of(placement, order)
    for P in range(1, MOST_SUBPACKETS + 1):
        found = []
        for total in sorted({max(floor(P * load), ceil(P * least)), ceil(P * load)}):
            rows = serve(merged, P, P * merged.total - total, order).rates
            found.append((_dot(costs, [Fraction(count, P) for count in rows]), tuple(rows)))
        value, cheapest_rows = min(found)
        if value <= (1 + max_overhead) * cheapest.cost:
            objective = UplinkObjective("cost", tuple(costs), value, cheapest.cost, cheapest.certificate)
            return PacketRates(P, cheapest_rows, objective)
    raise _too_many_packets("cost")


def fastest_packets(placement: Placement, speeds: Sequence[Fraction], max_overhead: Fraction) -> PacketRates:
    """Rates with the fewest packets whose time exceeds the minimum by at most the share `max_overhead`.

    Of all such rates, these have the smallest sum.

    Raises
    ------
    PlanError
        More than `MOST_SUBPACKETS` packets are needed.
    """
    fastest = fastest_rates(placement, speeds)
    allowed = (1 + max_overhead) * fastest.time
    merged = MergedPartitions.of(placement)
    blocks = [frozenset(block) for block in uplink_optimum(placement).certificate]
    for P in range(1, MOST_SUBPACKETS + 1):
        limits = [floor(P * allowed * speed) for speed in speeds]
        if violated_cut(placement, limits, P) is None:
            rows = tuple(limits)
            if len(speeds) > 1:
                least = least_sum(merged, blocks, [Fraction(limit, P) for limit in limits])[0]
                slack = P * merged.total - ceil(P * least)
                rows = tuple(serve(merged, P, slack, range(len(speeds)), limits).rates)
            value = longest([Fraction(count, P) for count in rows], speeds)
            cut = ((fastest.certificate, Fraction(1)),) if fastest.certificate else ()
            return PacketRates(P, rows, UplinkObjective("time", tuple(speeds), value, fastest.time, cut))
    raise _too_many_packets("time")


def tolerant_packets(
    placement: Placement, speeds: Sequence[Fraction], silent: int, max_overhead: Fraction
) -> PacketRates:
    """Rates that tolerate `silent` workers, with the fewest packets whose time is within the overhead.

    Every worker sends as long as every other, up to a packet, or all that it stores. More rows than these
    would tell nothing more, and Hall's condition (`stragglers`) holds with the smaller rates, too.

    Raises
    ------
    PlanError
        More than `MOST_SUBPACKETS` packets are needed, or a partition has at most `silent` holders.
    """
    least = tolerant_time(placement, speeds, silent)
    for P in range(1, MOST_SUBPACKETS + 1):
        pairs = zip(speeds, placement.stored, strict=True)
        rows = tuple(min(ceil(P * least * speed), P * len(stored)) for speed, stored in pairs)
        value = longest([Fraction(count, P) for count in rows], speeds)
        if value <= (1 + max_overhead) * least:
            return PacketRates(P, rows, UplinkObjective("time", tuple(speeds), value, least, ()))
    raise _too_many_packets("time")


def _too_many_packets(what: str) -> PlanError:
    return PlanError(
        f"rates of the least {what} need more than {MOST_SUBPACKETS} packets per vector: "
        "allow some max_overhead"
    )


def _dot(prices: Sequence[Fraction], rates: Sequence[Fraction]) -> Fraction:
    return sum((Fraction(price) * rate for price, rate in zip(prices, rates, strict=True)), Fraction(0))


def longest(rates: Sequence[Fraction], speeds: Sequence[Fraction]) -> Fraction:
    """`max_k R_k / b_k`: the time that the uplink takes."""
    return max(rate / Fraction(speed) for rate, speed in zip(rates, speeds, strict=True))
