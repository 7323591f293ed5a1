"""Placement design for a topology: the loads between relays and server become as small as can be.

A node that is connected to the server, a relay or a worker, counts as one worker that stores `U_h`, the union
of what the workers behind it store (docs/theory.md, section 7). If each worker is behind one such node, a
placement for them is designed first, with the sums of the workers' capacities; each site then spreads its
`U_h` over its workers, so that no partition is stored twice at a site before all others are stored there.
Otherwise, and where that is impossible, exchanges of copies improve a placement that was made without regard
to relays. The loads of a design are computed, not assumed; the bounds are those of `design_placement` for the
nodes at the server.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.additions import RoundLoads
from asyncdmtl.plan.design.initial import even_stores, sizes_of_least_load
from asyncdmtl.plan.design.search import (
    EFFORT,
    MOST_STEPS,
    checked_capacities,
    checked_copies,
    design_placement,
    least_uplink_load,
)
from asyncdmtl.plan.design.swaps import Stores, move
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement, counted
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.validation import helpers_of


@dataclass(frozen=True)
class HierarchyDesign:
    """A placement on a topology, and the loads of `relay` between relays and server.

    Attributes
    ----------
    topology : Topology
        With the placement.
    uplink_rates : tuple of Fraction
        The uplink load of each node that is connected to the server, as `topology.top`, in vectors.
    uplink_load, downlink_load : Fraction
        `R_CO({U_h})` and `N − min_h |U_h|`, in vectors.
    uplink_bound, downlink_bound : Fraction
        Lower bounds of these loads over all placements with these capacities and copies.
    flat_uplink_load, flat_downlink_load : Fraction
        The same loads of the placement that `design_placement` makes without regard to relays.
    """

    topology: Topology
    uplink_rates: tuple[Fraction, ...]
    uplink_load: Fraction
    downlink_load: Fraction
    uplink_bound: Fraction
    downlink_bound: Fraction
    flat_uplink_load: Fraction
    flat_downlink_load: Fraction

    @property
    def gap(self) -> Fraction:
        """The total load minus its bound."""
        return self.uplink_load + self.downlink_load - self.uplink_bound - self.downlink_bound

    @property
    def optimal(self) -> bool:
        """Whether the bounds prove the placement optimal. If False, a better one need not exist."""
        return self.gap == 0


def design_hierarchy(
    relays: Mapping[str, Iterable[str]],
    capacities: Mapping[str, int] | Sequence[int],
    partitions: int,
    *,
    copies: int | None = None,
    seed: int = 0,
) -> HierarchyDesign:
    """A placement with minimal total load between relays and server among those that respect `capacities`.

    Parameters
    ----------
    relays : mapping of relay name to an iterable of names
        As for `Topology`.
    capacities, partitions, copies, seed
        As for `design_placement`; the capacities are those of workers.

    Raises
    ------
    PlacementError
        As for `design_placement` and `Topology`.
    """
    N, seed = counted("partitions", partitions), counted("seed", seed, 0)
    names, m = checked_capacities(capacities, N)
    total = checked_copies(m, N, copies)
    flat = design_placement(dict(zip(names, m, strict=True)), N, copies=copies, seed=seed).placement
    problem = _Problem(Topology(flat, relays), m, N, copies, random.Random(seed))
    first = problem.trial([set(own) for own in flat.stored])
    bounds = problem.bounds(total)
    best = problem.improved(
        min(first, problem.trial(problem.start()), key=lambda t: t.key), sum(bounds, Fraction(0))
    )
    return HierarchyDesign(
        best.topology, best.rates, best.uplink, best.downlink, *bounds, first.uplink, first.downlink
    )


@dataclass(frozen=True)
class _Trial:
    """Stores that were measured; `key` orders them."""

    topology: Topology
    stored: Stores
    rates: tuple[Fraction, ...]
    uplink: Fraction
    downlink: Fraction
    key: tuple[Fraction, int]


class _Problem:
    """A topology with capacities `m`, `N` partitions, and the copies of each if they are prescribed."""

    def __init__(
        self, topology: Topology, m: Sequence[int], N: int, copies: int | None, rng: random.Random
    ) -> None:
        self._topology, self._m, self._N, self._copies, self._rng = topology, m, N, copies, rng
        workers = topology.placement.workers
        # The workers behind each node at the server.
        self._groups = [
            [k for k, worker in enumerate(workers) if worker in topology.workers_behind(node)]
            for node in topology.top
        ]

    def trial(self, stored: Stores) -> _Trial:
        """The loads between relays and server."""
        placement = self._topology.placement
        names = placement.partitions
        made = Placement(
            {w: [names[n] for n in own] for w, own in zip(placement.workers, stored, strict=True)}, names
        )
        topology = Topology(made, self._topology.relays)
        above = topology.placement_of(topology.top)
        least = uplink_optimum(above)
        downlink = Fraction(downlink_bound(above))
        key = least.load + downlink, len(least.certificate)
        return _Trial(topology, stored, least.rates, least.load, downlink, key)

    def bounds(self, total: int) -> tuple[Fraction, Fraction]:
        """Lower bounds of uplink and downlink; `total` copies are stored by workers."""
        N, m = self._N, self._m
        room = [min(N, sum(m[k] for k in group)) for group in self._groups]
        # A copy at a worker that is behind several nodes counts at each of them.
        most = max(sum(k in group for group in self._groups) for k in range(len(m)))
        copies = total if self._copies is None else N * self._copies
        stored = min(sum(room), copies * most)
        smallest = min(sizes_of_least_load(room, stored))
        return least_uplink_load(len(room), stored, N, smallest), Fraction(N - smallest)

    def start(self) -> Stores:
        """Stores that are designed for the nodes at the server, if each worker is behind one of them."""
        N, copies = self._N, self._copies
        room = [min(N, sum(self._m[k] for k in group)) for group in self._groups]
        apart = sum(map(len, self._groups)) == len(self._m)
        fits = copies is None or (copies <= len(room) and sum(room) >= N * copies)
        if not (apart and fits and sum(room) >= N):
            total = sum(self._m) if copies is None else N * copies
            sizes = sizes_of_least_load(self._m, total)
            return even_stores(sizes, N, self._rng, range(len(sizes)))
        sites = design_placement(room, N, copies=copies, seed=self._rng.randrange(2**32)).placement.stored
        stored: Stores = [set() for _ in self._m]
        for group, own in zip(self._groups, sites, strict=True):
            m = [min(self._m[k], len(own)) for k in group]
            sizes = tuple(m) if copies is None else sizes_of_least_load(m, len(own))
            spread = even_stores(sizes, len(own), self._rng, range(len(group)))
            for k, places in zip(group, spread, strict=True):
                stored[k] = {own[place] for place in places}
        return stored

    def improved(self, trial: _Trial, target: Fraction) -> _Trial:
        """The best stores that exchanges of copies lead to; `target` is a lower bound of the total load."""
        steps = min(MOST_STEPS, EFFORT // max(1, sum(map(len, trial.stored))))
        for _ in range(steps):
            if trial.uplink + trial.downlink == target:
                break
            ways = [self._exchange] if self._copies is None else [self._exchange, self._move]
            self._rng.shuffle(ways)
            changed = next((made for way in ways if (made := way(trial.stored)) is not None), None)
            if changed is None:
                break
            tried = self.trial(changed)
            if tried.key <= trial.key:
                trial = tried
        return trial

    def _move(self, stored: Stores) -> Stores | None:
        """Stores with one copy moved to another worker that has room."""
        return move(stored, self._m, self._rng)

    def _exchange(self, stored: Stores) -> Stores | None:
        """Stores with one copy of a partition exchanged for one of another, which is new to some node."""
        # What is stored behind each node.
        held = [set[int]().union(*(stored[k] for k in group)) for group in self._groups]
        found = [
            (k, n, x)
            for k, own in enumerate(stored)
            for x in set(range(self._N)) - own
            if any(k in group and x not in union for group, union in zip(self._groups, held, strict=True))
            for n in own
        ]
        self._rng.shuffle(found)
        for k, n, x in found:
            changed = [set(own) for own in stored]
            changed[k] = changed[k] - {n} | {x}
            if self._copies is not None:
                givers = [j for j, own in enumerate(stored) if j != k and x in own and n not in own]
                if not givers:
                    continue
                j = self._rng.choice(givers)
                changed[j] = changed[j] - {x} | {n}
            if all(any(p in own for own in changed) for p in (n, x)):
                return changed
        return None


class HierarchyLoads(RoundLoads):
    """The loads between relays and server, as a function of placements of the same workers and partitions.

    Parameters
    ----------
    topology : Topology
    tasks, wants : as for `make_plan`

    Raises
    ------
    UsageError
        An argument breaks its rule, or a worker wants its own models only: then the loads between relays and
        server are the same for every placement.
    """

    def __init__(
        self,
        topology: Topology,
        tasks: Sequence[int] | None = None,
        *,
        wants: Sequence[str] | None = None,
    ) -> None:
        super().__init__(topology.placement, tasks, wants=wants)
        if self.strategy == "personal":
            rule = "must not be own where there are relays: their loads are then those of every placement"
            raise UsageError("wants", rule, list(wants or ()))
        self._relays, self._words = topology.relays, topology.wants(wants)

    def of(self, placement: Placement) -> tuple[Fraction, Fraction]:
        """Uplink and downlink, whose sum is minimised."""
        topology = Topology(placement, self._relays)
        above = topology.placement_of(topology.top)
        helpers = helpers_of(above, {node: self._words[node] for node in topology.top})
        return self._loads(above, helpers, "updates")
