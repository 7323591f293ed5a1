"""The choice of the tasks that are coded as aggregates, so that loads are minimal.

A task that some worker stores whole can travel as its aggregate, one vector, held by such workers only; or as
the updates of its partitions, more vectors, which have more holders. For `central` and `personal`, the
aggregate is better, since one vector goes up instead of several, unless it is dearer. For `relay`, either may
be better, and a search decides: it tries all combinations if there are few such tasks, else one change at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from itertools import combinations

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.demands import Demands
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.units import Units, whole_holders

# The most tasks for which all combinations are tried.
ALL_COMBINATIONS_TASKS = 7

# The most combinations that are tried for a small placement: they take some seconds.
MOST_TRIALS = 300

# The most trials × copies of partitions, so that fewer combinations are tried for larger placements.
TRIAL_EFFORT = 100_000

Loads = tuple[Fraction, int, int, int]


def aggregable_tasks(placement: Placement, tasks: Sequence[int], least_holders: int = 1) -> tuple[int, ...]:
    """The tasks of several partitions that at least `least_holders` workers store whole, ascending."""
    sizes = [0] * (max(tasks) + 1)
    for task in tasks:
        sizes[task] += 1
    whole = whole_holders(placement, tasks)
    return tuple(t for t, H in enumerate(whole) if len(H) >= least_holders and sizes[t] > 1)


def cheap_aggregates(
    placement: Placement, tasks: Sequence[int], prices: Sequence[Fraction]
) -> tuple[int, ...]:
    """The aggregable tasks whose aggregate costs no more than the updates of all their partitions, ascending.

    Each vector is sent by its cheapest holder.
    """
    whole = whole_holders(placement, tasks)
    single = [Fraction(0)] * len(whole)
    for task, H in zip(tasks, placement.holders, strict=True):
        single[task] += min(prices[k] for k in H)
    return tuple(
        t for t in aggregable_tasks(placement, tasks) if min(prices[k] for k in whole[t]) <= single[t]
    )


def least_uplink(
    placement: Placement,
    helpers: Collection[int] = (),
    prices: Sequence[Fraction] | None = None,
    speeds: Sequence[Fraction] | None = None,
) -> Fraction:
    """The least load of the uplink of `relay`; or its least cost, or shortest time."""
    if helpers:
        demands = Demands(placement, helpers)
        return demands.cheapest(prices)[0] if speeds is None else demands.fastest(speeds)[0]
    if prices is not None:
        return cheapest_rates(placement, prices).cost
    return uplink_optimum(placement).load if speeds is None else fastest_rates(placement, speeds).time


def best_aggregates(
    placement: Placement,
    tasks: Sequence[int],
    helpers: Sequence[int] = (),
    prices: Sequence[Fraction] | None = None,
    speeds: Sequence[Fraction] | None = None,
) -> tuple[int, ...]:
    """The tasks that `relay` codes as aggregates, for the smallest uplink, then downlink, then unicast load.

    With prices the uplink's cost counts, with speeds its time. The workers `helpers` want nothing. The result
    is the best of all combinations if there are at most `ALL_COMBINATIONS_TASKS` such tasks. Otherwise it is
    the best that a search finds, which starts from all of them and from none.
    """
    candidates = aggregable_tasks(placement, tasks)
    if not candidates:
        return ()
    trials = _Trials(
        placement, tasks, set(helpers), lambda units: least_uplink(units, helpers, prices, speeds)
    )
    if len(candidates) <= ALL_COMBINATIONS_TASKS:
        sizes = range(len(candidates), -1, -1)
        every = [chosen for size in sizes for chosen in combinations(candidates, size)]
        return min(every, key=trials.loads)
    best = min([candidates, ()], key=trials.loads)
    improved = True
    while improved:
        improved = False
        for task in candidates:
            changed = tuple(sorted(set(best) ^ {task}))
            if trials.left and trials.loads(changed) < trials.loads(best):
                best, improved = changed, True
    return best


class _Trials:
    """Loads of `relay` for choices of aggregated tasks, computed once each."""

    def __init__(
        self,
        placement: Placement,
        tasks: Sequence[int],
        helpers: Collection[int],
        uplink: Callable[[Placement], Fraction],
    ) -> None:
        self._placement, self._tasks, self._helpers, self._uplink = placement, tasks, helpers, uplink
        self._known: dict[tuple[int, ...], Loads] = {}
        self._most = max(4, min(MOST_TRIALS, TRIAL_EFFORT // sum(map(len, placement.stored))))

    @property
    def left(self) -> bool:
        """Whether more choices may be tried."""
        return len(self._known) < self._most

    def loads(self, aggregated: tuple[int, ...]) -> Loads:
        """The loads to minimise, the most important first."""
        if aggregated not in self._known:
            units = Units.of(self._placement, self._tasks, aggregated).blocks
            lacked = [
                len(units.partitions) - len(stored)
                for k, stored in enumerate(units.stored)
                if k not in self._helpers
            ]
            self._known[aggregated] = (self._uplink(units), max(lacked), sum(lacked), -len(aggregated))
        return self._known[aggregated]
