"""The smallest uplink of `relay` if some workers, the *helpers*, want nothing (docs/theory.md, section 7a).

Only the other workers must be able to decode. So only cut-set constraints with such a worker outside of the
cut remain: `Σ_{k∈S} R_k >= ex(S)` for every `S` that does not contain all of them. The smallest `Σ_k R_k` is
a linear program. Constraints are added when rates violate them: worker `k` can decode iff

    Σ_{j: M_j∩J≠∅} R_j >= |J|   for every set J of partitions outside M_k,

which is Hall's condition, and a minimum cut between these partitions and their holders finds a violated one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.covering import fractional_cover, integer_cover
from asyncdmtl.plan.rates.stragglers import ResponderNetwork

# The scale of capacities for fractional rates, which become whole numbers, so that cuts are exact.
_FLOW_SCALE = 1 << 26

# The most numbers of packets that are tried: each takes an integer program.
_MOST_TRIED = 24


class Demands:
    """The constraints of the workers that want models, which are found when rates violate them."""

    def __init__(self, placement: Placement, helpers: Collection[int]) -> None:
        self.workers = len(placement.workers)
        self.sizes: dict[frozenset[int], int] = {}
        self._groups = Counter(placement.holders)
        stores = {frozenset(M) for k, M in enumerate(placement.stored) if k not in set(helpers)}
        # If a worker's store contains another's, its constraints follow from those of the other worker.
        poorest = [M for M in stores if not any(other < M for other in stores)]
        self._networks = []
        for M in poorest:
            missing = Counter(H for n, H in enumerate(placement.holders) if n not in M)
            if missing:
                self._networks.append(ResponderNetwork(self.workers, list(missing), list(missing.values())))
        self._total = sum(self._groups.values())

    def load(self) -> Fraction:
        """The smallest `Σ_k R_k` in vectors, proven by a solution of the dual program."""
        scale = max(1, _FLOW_SCALE // max(1, self._total))
        while True:
            rates, least = fractional_cover(self.workers, self.sizes)
            # Rounding up by one unit, so that the solver's rounding errors do not look like violated
            # constraints.
            capacity = np.ceil(rates * scale).astype(np.int64) + 1
            if not self._add_violated(np.minimum(capacity, _FLOW_SCALE), scale):
                return least

    def packets(self, subpackets: int) -> tuple[int, ...]:
        """Rates in packets with the smallest sum, for `subpackets` packets per vector."""
        while True:
            rows, _ = integer_cover(self.workers, self.sizes, subpackets=subpackets)
            if not self._add_violated(np.array(rows, dtype=np.int64), subpackets):
                return rows

    def _add_violated(self, capacity: NDArray[np.int64], unit: int) -> bool:
        """Add the constraints that `capacity`, in units of 1/`unit` vector, violates; False if none is."""
        everyone, added = tuple(range(self.workers)), False
        for network in self._networks:
            J = network.cut(everyone, capacity, unit)
            if J is None:
                continue
            S = frozenset(k for group in J for k in network.holders[group])
            size = sum(count for H, count in self._groups.items() if S.issuperset(H))
            if self.sizes.get(S, 0) < size:
                self.sizes[S] = size
                added = True
        return added


def least_demanded_load(placement: Placement, helpers: Collection[int]) -> Fraction:
    """The smallest uplink load in vectors, with any number of packets, if `helpers` want nothing."""
    return Demands(placement, helpers).load()


def demanded_packets(
    placement: Placement, helpers: Collection[int], max_overhead: Fraction
) -> tuple[int, tuple[int, ...]]:
    """The fewest packets, and rates in packets, whose load exceeds the minimum by at most `max_overhead`.

    Raises
    ------
    PlanError
        No tried number of packets suffices.
    """
    demands = Demands(placement, helpers)
    least = demands.load()
    tried, P = 0, 0
    while tried < _MOST_TRIED and P < MOST_SUBPACKETS:
        P += 1
        if ceil(P * least) > (1 + max_overhead) * P * least:
            continue
        tried += 1
        rows = demands.packets(P)
        if sum(rows) <= (1 + max_overhead) * P * least:
            return P, rows
    raise PlanError(
        f"rates of the least load {least} need more packets per vector than were tried: "
        "allow some max_overhead"
    )
