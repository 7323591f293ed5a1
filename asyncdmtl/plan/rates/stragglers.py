"""Uplink rates that tolerate silent workers: the rows of any K − s responders suffice.

`asyncdmtl.plan.linear` has its own rates for `linear`. Under `central`, the server decodes all updates. The
condition is Hall's, for every set `A` of K − s responders (docs/theory.md, section 6):

    Σ_{k∈A, M_k∩J≠∅} R_k ≥ |J|   for every set J of partitions

Under `relay`, every worker decodes what it lacks, so that the condition is for every set `J` that some worker
lacks altogether. That worker may be one of the silent ones: it catches up later, and it needs the same rows.

It is a cut-set bound, so it holds for every scheme. It suffices, too: with rows that have generic
coefficients at the stored partitions, the server, or every worker, decodes from every `A`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import PlacementError, PlanError, UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.covering import fractional_cover, integer_cover, scale_of
from asyncdmtl.plan.validation import whole_number

# The most sets of responders, which are checked one by one: a few minutes. A plan with more of them is
# refused, because every plan must be checked.
MAX_RESPONDER_SETS = 5000

# The largest number of packets per vector up to which `fewest_packets` tries every number.
FEW_SUBPACKETS = 8

# The largest number of packets per vector that `fewest_packets` tries in the end.
LARGEST_DENOMINATOR = 256

# The most workers for which all cuts of a relay are listed: a thousand sets. Flows for each worker and set
# of responders take longer.
MOST_LISTED = 10

# The most cuts that are added before the program is solved again: more would only make it slower.
_CUTS_PER_ROUND = 8

# The most units of all capacities together: SciPy's flows are 32-bit integers.
_FLOW_SCALE = 1 << 28


@dataclass(frozen=True)
class SilentRates:
    """Uplink rates that tolerate `silent` silent workers.

    Attributes
    ----------
    rates : tuple of Fraction
        `R_k` in vectors, multiples of 1/`subpackets`.
    value, bound : Fraction
        `Σ R_k`, or `Σ c_k R_k` for costs, and the smallest such sum with any number of packets: the linear
        program over all responder sets, a lower bound for every scheme.
    packet_bound : Fraction
        The smallest sum in multiples of 1/`subpackets`. Equal to `value` unless the integer program met
        its node limit.
    costs : tuple of Fraction or None
        `c_k`; None for 1 each.
    denominator : int
        The least number of packets in which the rates of the linear program are whole.
    """

    rates: tuple[Fraction, ...]
    subpackets: int
    silent: int
    bound: Fraction
    packet_bound: Fraction
    costs: tuple[Fraction, ...] | None = None
    denominator: int = 1

    @property
    def value(self) -> Fraction:
        """The load, or the cost."""
        if self.costs is None:
            return self.load
        return sum((cost * rate for cost, rate in zip(self.costs, self.rates, strict=True)), Fraction(0))

    @property
    def load(self) -> Fraction:
        """`Σ R_k` in vectors."""
        return sum(self.rates, Fraction(0))


def check_copies(placement: Placement, silent: int) -> None:
    """Check that every partition has more than `silent` holders.

    Raises
    ------
    UsageError
        `silent` is not a whole number from 0 to K − 1.
    PlacementError
        Partitions have at most `silent` holders; the message names them.
    """
    K = len(placement.workers)
    whole_number("silent", silent, 0, K - 1)
    scarce = [
        name for name, H in zip(placement.partitions, placement.holders, strict=True) if len(H) <= silent
    ]
    if scarce:
        shown = ", ".join(scarce[:20]) + (f" and {len(scarce) - 20} more" if len(scarce) > 20 else "")
        rule = f"must be smaller than the number of workers that store each partition ({shown} would be lost)"
        raise PlacementError("silent", rule, silent)


def responder_sets(workers: int, silent: int) -> Iterator[tuple[int, ...]]:
    """All sets of `workers − silent` workers, each ascending.

    Raises
    ------
    UsageError
        There are more than `MAX_RESPONDER_SETS`.
    """
    if (count := math.comb(workers, silent)) > MAX_RESPONDER_SETS:
        raise UsageError(
            "silent",
            f"must leave at most {MAX_RESPONDER_SETS} sets of responders to check; "
            f"{workers} workers have {count}",
            silent,
        )
    return combinations(range(workers), workers - silent)


def silent_rates(
    placement: Placement,
    silent: int,
    subpackets: int = 1,
    wanting: Sequence[int] | None = None,
    costs: Sequence[Fraction] | None = None,
) -> SilentRates:
    """The smallest uplink rates with which the rows of any K − `silent` responders suffice.

    They are found by cutting planes: if a set of responders does not suffice, its violated cut (a minimum cut
    between partitions and responders) becomes a constraint, until all sets suffice.

    Parameters
    ----------
    placement : Placement
    silent : int
    subpackets : int
    wanting : sequence of int, optional
        The workers each of which decodes the updates that it lacks; default: the server decodes all updates.
    costs : sequence of K Fractions, optional
        The price of a vector on each worker's link, more than 0: rates cost the least, instead of being few.

    Raises
    ------
    UsageError
        A cost is not more than 0, `silent` is outside 0…K−1, `subpackets` is below 1, or there are more than
        `MAX_RESPONDER_SETS` responder sets.
    PlacementError
        A partition has at most `silent` holders.
    """
    check_copies(placement, silent)
    if isinstance(subpackets, bool) or not isinstance(subpackets, int) or subpackets < 1:
        raise UsageError("subpackets", "must be a whole number, at least 1", subpackets)
    if costs is not None and min(costs) <= 0:
        raise UsageError("prices", "must be more than 0 with silent workers", float(min(costs)))
    K, P, N = len(placement.workers), subpackets, len(placement.partitions)
    networks = _networks(placement, wanting)
    responders = list(responder_sets(K, silent))
    demands: dict[frozenset[int], int] = {}
    if wanting is not None and K <= MOST_LISTED:
        demands, networks = _all_cuts(placement, wanting), []
    scale = _FLOW_SCALE // N
    while True:
        fraction, bound = fractional_cover(K, demands, silent=silent, costs=costs)
        # Rounding up by one unit, so that the solver's rounding errors do not look like violated cuts.
        capacity = np.ceil(fraction * scale).astype(np.int64) + 1
        if not _add_cuts(networks, responders, np.minimum(capacity, 2 * _FLOW_SCALE), scale, demands):
            break
    while True:
        packets, least = integer_cover(K, demands, subpackets=P, silent=silent, costs=costs)
        if not _add_cuts(networks, responders, np.array(packets), P, demands):
            break
    rates = tuple(Fraction(rows, P) for rows in packets)
    return SilentRates(
        rates=rates,
        subpackets=P,
        silent=silent,
        bound=bound,
        packet_bound=max(Fraction(least, P * scale_of(costs)), bound),
        costs=None if costs is None else tuple(costs),
        denominator=math.lcm(*(_simple(rate).denominator for rate in fraction)),
    )


def _simple(rate: float) -> Fraction:
    """A rate of the linear program, without the last digits of the solver."""
    return Fraction(float(rate)).limit_denominator(LARGEST_DENOMINATOR)


def fewest_packets(
    placement: Placement,
    silent: int,
    max_overhead: Fraction | int = 0,
    wanting: Sequence[int] | None = None,
    costs: Sequence[Fraction] | None = None,
) -> SilentRates:
    """The result of `silent_rates` with few packets and a value within the share `max_overhead` of the bound.

    The number of packets is the smallest one up to `FEW_SUBPACKETS` that suffices, else the denominator of
    the bound, or with costs that of the rates.

    Raises
    ------
    UsageError
        As `silent_rates`.
    PlanError
        No tried number suffices.
    """
    found = silent_rates(placement, silent, 1, wanting, costs)
    # This number often suffices if no small one does.
    last = found.bound.denominator if costs is None else found.denominator
    for P in [*range(1, FEW_SUBPACKETS + 1), min(last, LARGEST_DENOMINATOR)]:
        if P > 1:
            found = silent_rates(placement, silent, P, wanting, costs)
        if found.value <= (1 + max_overhead) * found.bound:
            return found
    what = "load" if costs is None else "cost"
    raise PlanError(
        f"rates near the bound {found.bound} need more packets per vector than were tried "
        f"(with {found.subpackets} the {what} is {found.value}): allow a larger max_overhead"
    )


class ResponderNetwork:
    """The flow network by which one checks whether workers can send all demanded vectors.

    It runs from a source to groups of partitions, to their holders, and to a sink. `holders[i]` are the
    workers that can send group `i`, `sizes[i]` is its number of vectors.
    """

    def __init__(self, workers: int, holders: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> None:
        self.workers, self.holders = workers, list(holders)
        self.sizes = np.array(sizes, dtype=np.int64)
        self._groups = np.repeat(np.arange(len(holders)), [len(H) for H in holders])
        self._holders = np.array([k for H in holders for k in H], dtype=np.int64)

    def cut(
        self, responders: tuple[int, ...], capacity: NDArray[np.int64], unit: int = 1
    ) -> list[int] | None:
        """Groups that `responders` cannot send together, or None if they can send everything.

        `capacity` per worker and `unit` per vector are in the same whole numbers.
        """
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        G, K = len(self.holders), self.workers
        source, sink = G + K, G + K + 1
        open_ = np.zeros(K, dtype=np.int64)
        open_[list(responders)] = capacity[list(responders)]
        tails = np.concatenate([np.full(G, source), self._groups, G + np.arange(K)])
        heads = np.concatenate([np.arange(G), G + self._holders, np.full(K, sink)])
        flows = np.concatenate([self.sizes * unit, self.sizes[self._groups] * unit, open_]).astype(np.int32)
        graph = csr_array((flows, (tails, heads)), shape=(sink + 1, sink + 1))
        flow = maximum_flow(graph, source, sink)
        if flow.flow_value == int(self.sizes.sum()) * unit:
            return None
        residual = csr_array(graph - flow.flow)
        residual.eliminate_zeros()
        reached = breadth_first_order(residual, source, return_predecessors=False)
        return [int(node) for node in reached if node < G]


def _all_cuts(placement: Placement, wanting: Sequence[int]) -> dict[frozenset[int], int]:
    """The updates that only `S` holds, for each set `S` without some of the workers that want them.

    Sets are left out of which fewer workers hold as many.
    """
    subsets, holders = np.arange(1 << len(placement.workers)), Counter(placement.holders)
    counts = np.zeros(len(subsets), np.int64)
    for H, number in holders.items():
        bits = sum(1 << k for k in H)
        counts[subsets & bits == bits] += number
    wanted = sum(1 << k for k in wanting)
    cuts = {}
    for S in np.flatnonzero((counts > 0) & (subsets & wanted != wanted)):
        members = [k for k in range(len(placement.workers)) if S >> k & 1]
        if all(counts[S & ~(1 << k)] < counts[S] for k in members):
            cuts[frozenset(members)] = int(counts[S])
    return cuts


def _networks(placement: Placement, wanting: Sequence[int] | None) -> list[ResponderNetwork]:
    """The network of what the server decodes, or one for each set of updates that a worker lacks."""
    lacked = [frozenset[int]()] if wanting is None else [frozenset(placement.stored[k]) for k in wanting]
    networks = []
    # A worker that stores more than another one needs no network of its own.
    for stored in dict.fromkeys(some for some in lacked if not any(other < some for other in lacked)):
        groups = Counter(H for n, H in enumerate(placement.holders) if n not in stored)
        if groups:
            networks.append(ResponderNetwork(len(placement.workers), list(groups), list(groups.values())))
    return networks


def _add_cuts(
    networks: Sequence[ResponderNetwork],
    responders: list[tuple[int, ...]],
    capacity: NDArray[np.int64],
    unit: int,
    demands: dict[frozenset[int], int],
) -> bool:
    """Add cuts violated by `capacity` (per worker, in units of 1/`unit` vector); False if there are none."""
    added = 0
    for network, A in product(networks, responders):
        J = network.cut(A, capacity, unit)
        if J is None:
            continue
        neighbours = frozenset(k for g in J for k in network.holders[g])
        demand = int(network.sizes[J].sum())
        if demands.get(neighbours, 0) < demand:
            demands[neighbours] = demand
            added += 1
        if added >= _CUTS_PER_ROUND:
            break
    return added > 0
