"""The smallest uplink of `relay` if some workers, the *helpers*, want nothing (docs/theory.md, section 7a).

Only the other workers must be able to decode. So only cut-set constraints with such a worker outside of the
cut remain: `Σ_{k∈S} R_k >= ex(S)` for every `S` that does not contain all of them. The smallest `Σ_k R_k` is
a linear program. Constraints are added when rates violate them: worker `k` can decode iff

    Σ_{j: M_j∩J≠∅} R_j >= |J|   for every set J of partitions outside M_k,

which is Hall's condition, and a minimum cut between these partitions and their holders finds a violated one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import PlanError
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.covering import integer_cover, proven_cover
from asyncdmtl.plan.rates.cuts import MergedPartitions, PacketAssignment
from asyncdmtl.plan.rates.integral import integral_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum

# Parts of a vector in which rates of the linear program are compared with constraints: they are floats.
_PARTS = 1 << 30

# The share by which rates that violate nothing may exceed the proven least cost, which then is the minimum:
# vertices of these programs have denominators far below its inverse.
_GAP = 1e-7

# The most numbers of packets that are tried: each takes an integer program.
_MOST_TRIED = 24

# The most integer programs for rates near fractional ones.
_MOST_STEPS = 60

# A cut with its multiplier in a proof.
WeightedCut = tuple[tuple[int, ...], Fraction]


class Demands:
    """The constraints of the workers that want models, which are found when rates violate them."""

    def __init__(self, placement: Placement, helpers: Collection[int]) -> None:
        self.workers, self._placement = len(placement.workers), placement
        self.sizes: dict[frozenset[int], int] = {}
        # Rates that violate nothing, the cheapest known.
        self._inner: Floats = np.full(self.workers, float(len(placement.partitions)))
        self._groups = Counter(placement.holders)
        stores = {frozenset(M) for k, M in enumerate(placement.stored) if k not in set(helpers)}
        # If a worker's store contains another's, its constraints follow from those of the other worker.
        poorest = [M for M in stores if not any(other < M for other in stores)]
        self._lacked = [self._lacked_by(placement, M) for M in sorted(poorest, key=sorted)]

    def _lacked_by(self, placement: Placement, store: frozenset[int]) -> MergedPartitions:
        """The partitions outside of a store, merged where holders are equal."""
        missing = Counter(H for n, H in enumerate(placement.holders) if n not in store)
        stored: list[list[int]] = [[] for _ in range(self.workers)]
        for group, H in enumerate(missing):
            for k in H:
                stored[k].append(group)
        return MergedPartitions(
            self.workers, tuple(missing), tuple(missing.values()), tuple(map(tuple, stored))
        )

    def violated(self, rows: Sequence[int], packets: int) -> list[frozenset[int]]:
        """Sets of workers that send too few rows, each of one of `packets` packets of a vector."""
        found = []
        for lacked in self._lacked:
            assignment = PacketAssignment(lacked, packets)
            for k, count in enumerate(rows):
                assignment.draw(k, count)
            if assignment.free:
                groups = assignment.unassigned()
                found.append(frozenset(k for group in groups for k in lacked.holders[group]))
        return found

    def _add(self, violated: Iterable[frozenset[int]]) -> bool:
        """Add constraints; False if all are known."""
        known = len(self.sizes)
        for S in violated:
            if S not in self.sizes:
                self.sizes[S] = sum(count for H, count in self._groups.items() if S.issuperset(H))
        return len(self.sizes) > known

    def cheapest(self, costs: Sequence[Fraction] | None = None) -> tuple[Fraction, tuple[WeightedCut, ...]]:
        """The least `Σ_k c_k R_k`, or load if no costs are given, and multipliers that prove it.

        Many rates have the least cost under the known constraints, and most of them violate others. So
        constraints are looked for half way to rates that violate none, which are those for all workers at
        first (in-out separation, Ben-Ameur and Neto 2007).
        """
        weights = np.array([float(c) for c in costs or [Fraction(1)] * self.workers])
        everyone = (
            uplink_optimum(self._placement) if costs is None else cheapest_rates(self._placement, costs)
        )
        inner = np.array([float(rate) for rate in everyone.rates])
        self._inner = inner
        while True:
            rates, proof = proven_cover(self.workers, self.sizes, costs)
            value = sum((y * self.sizes[S] for S, y in proof.items()), Fraction(0))
            middle = (rates + inner) / 2
            if not self._add(self.violated(_rounded_up(middle), _PARTS)):
                self._inner = inner = middle
                close = float(weights @ inner) <= float(value) + _GAP * max(1.0, float(value))
                if close or not self._add(self.violated(_rounded_up(rates), _PARTS)):
                    return value, tuple(sorted((tuple(sorted(S)), y) for S, y in proof.items()))

    def fastest(self, speeds: Sequence[Fraction]) -> tuple[Fraction, tuple[WeightedCut, ...]]:
        """The least `max_k R_k / b_k`, and the cut that proves it.

        Rates `τ·b_k` violate no constraint iff `τ >= |J| / b(S)` for every one; a violated one gives the next
        `τ` (Dinkelbach 1967).
        """
        time, cut = Fraction(0), frozenset[int]()
        while True:
            limits = [time * speed for speed in speeds]
            unit = lcm(*(limit.denominator for limit in limits))
            violated = self.violated([int(limit * unit) for limit in limits], unit)
            if not violated:
                return time, (((tuple(sorted(cut))), Fraction(1)),) if cut else ()
            self._add(violated)
            time, cut = max(
                ((self.sizes[S] / sum((speeds[k] for k in S), Fraction(0)), S) for S in violated),
                key=lambda pair: pair[0],
            )

    def packets_near(
        self, subpackets: int, allowed: Fraction, costs: Sequence[Fraction] | None = None
    ) -> tuple[int, ...] | None:
        """Rates in packets that cost at most `allowed`, near those that `cheapest` found; None if it fails.

        Few whole rates are near those, so that violated constraints are found in few steps.
        """
        most = [ceil(subpackets * rate) + 1 for rate in self._inner.tolist()]
        for _ in range(_MOST_STEPS):
            rows, _ = integer_cover(self.workers, self.sizes, subpackets=subpackets, most=most, costs=costs)
            if _cost(rows, costs) > allowed:
                return None
            if not self._add(self.violated(rows, subpackets)):
                return rows
        return None

    def packets(
        self,
        subpackets: int,
        costs: Sequence[Fraction] | None = None,
        limits: Sequence[int] | None = None,
    ) -> tuple[int, ...]:
        """Rates in packets of the least sum or cost, within the limits of the workers, if there are any.

        If constraints are still found after many integer programs, rates that suffice are lowered one by one.
        """
        for _ in range(2 * _MOST_STEPS):
            rows, _ = integer_cover(self.workers, self.sizes, subpackets=subpackets, most=limits, costs=costs)
            if not self._add(self.violated(rows, subpackets)):
                return rows
        enough = integral_rates(self._placement, subpackets) if limits is None else limits
        return self._lowered(list(enough), subpackets)

    def _lowered(self, rows: list[int], subpackets: int) -> tuple[int, ...]:
        """Rates of which none can be lower, from rates that suffice."""
        for k in range(self.workers):
            low, high = 0, rows[k]
            while low < high:
                rows[k] = (low + high) // 2
                low, high = (rows[k] + 1, high) if self.violated(rows, subpackets) else (low, rows[k])
            rows[k] = high
        return tuple(rows)


@dataclass(frozen=True)
class DemandedRates:
    """Rates in packets, the least load, cost or time in vectors, and the cuts that prove it."""

    subpackets: int
    rows: tuple[int, ...]
    least: Fraction
    certificate: tuple[WeightedCut, ...]


def demanded_packets(
    placement: Placement,
    helpers: Collection[int],
    max_overhead: Fraction,
    costs: Sequence[Fraction] | None = None,
) -> DemandedRates:
    """The fewest packets, and rates in packets, that exceed the least load or cost by this share at most.

    Raises
    ------
    PlanError
        No tried number of packets suffices.
    """
    demands = Demands(placement, helpers)
    least, proof = demands.cheapest(costs)
    tried, P = 0, 0
    while tried < _MOST_TRIED and P < MOST_SUBPACKETS:
        P += 1
        if costs is None and ceil(P * least) > (1 + max_overhead) * P * least:
            continue
        tried += 1
        allowed = (1 + max_overhead) * P * least
        rows = demands.packets_near(P, allowed, costs) or demands.packets(P, costs)
        if _cost(rows, costs) <= allowed:
            return DemandedRates(P, rows, least, proof)
    raise _too_many_packets("load" if costs is None else "cost", least)


def demanded_packets_in_time(
    placement: Placement, helpers: Collection[int], max_overhead: Fraction, speeds: Sequence[Fraction]
) -> DemandedRates:
    """The fewest packets whose rates exceed the least time by this share at most, of the least sum.

    Raises
    ------
    PlanError
        More than `MOST_SUBPACKETS` packets are needed.
    """
    demands = Demands(placement, helpers)
    least, proof = demands.fastest(speeds)
    for P in range(1, MOST_SUBPACKETS + 1):
        limits = [floor(P * (1 + max_overhead) * least * speed) for speed in speeds]
        if not demands.violated(limits, P):
            return DemandedRates(P, demands.packets(P, limits=limits), least, proof)
    raise _too_many_packets("time", least)


def _cost(rows: Sequence[int], costs: Sequence[Fraction] | None) -> Fraction:
    """What these rates in packets cost together; their sum if no costs are given."""
    prices = costs or [Fraction(1)] * len(rows)
    return sum((c * count for c, count in zip(prices, rows, strict=True)), Fraction(0))


def _rounded_up(rates: Floats) -> list[int]:
    """Rates in whole parts, one part more: the solver's last digit shall not show as a violation."""
    return [int(part) + 1 + _PARTS // 1_000_000 for part in np.ceil(np.maximum(rates, 0.0) * _PARTS)]


def _too_many_packets(what: str, least: Fraction) -> PlanError:
    return PlanError(
        f"rates of the least {what} {least} need more packets per vector than were tried: "
        "allow some max_overhead"
    )
