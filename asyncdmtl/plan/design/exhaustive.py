"""The best placement by exhaustive search, if partitions, workers and copies are few.

Partitions are interchangeable, so a placement is a multiset of `N` sets of `c` holders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations, combinations_with_replacement

from asyncdmtl.plan.design.initial import downlink_time, least_uplink_time
from asyncdmtl.plan.design.swaps import Stores

# The most multisets of holder sets that are tried: a second or two.
MOST_PLACEMENTS = 3_000


def fastest_stores(
    m: Sequence[int],
    N: int,
    copies: int,
    b: Sequence[Fraction],
    uplink_time: Callable[[Stores], Fraction],
) -> Stores | None:
    """The stores with the shortest time of uplink plus downlink; None if there are too many placements.

    Parameters
    ----------
    m : sequence of K ints
        The capacities, which suffice for `copies` copies of `N` partitions.
    N, copies : int
        The numbers of partitions, and of holders of each.
    b : sequence of K positive Fractions
        The speeds of the links.
    uplink_time : callable
        The makespan of the uplink for given stores.
    """
    holder_sets = list(combinations(range(len(m)), copies))
    if math.comb(len(holder_sets) + N - 1, N) > MOST_PLACEMENTS:
        return None
    best: tuple[Fraction, Stores] | None = None
    bounds: dict[tuple[int, ...], Fraction] = {}
    for holders in combinations_with_replacement(holder_sets, N):
        stored: Stores = [{n for n, H in enumerate(holders) if k in H} for k in range(len(m))]
        sizes = tuple(map(len, stored))
        if any(size > most for size, most in zip(sizes, m, strict=True)):
            continue
        down = downlink_time(sizes, b, N)
        if sizes not in bounds:
            bounds[sizes] = down + least_uplink_time(sizes, b, N)
        if best is not None and bounds[sizes] >= best[0]:
            continue
        time = down + uplink_time(stored)
        if best is None or time < best[0]:
            best = time, stored
    return None if best is None else best[1]
