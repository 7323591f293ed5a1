"""Linear targets: the uplink with the smallest load that several searches find.

There are three searches: subspaces (or, with silent workers, codes), rows one by one, and numerical
decomposition. For each of them there are targets for which only it meets the bound. Every uplink is checked
for every set of responders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError
from asyncdmtl.plan.linear.decomposition import EFFORT, Decomposer
from asyncdmtl.plan.linear.matrices import FAIR_CONDITION, build_uplink, checked_uplink
from asyncdmtl.plan.linear.rowwise import uplink_row_by_row
from asyncdmtl.plan.linear.targets import Bound, Target, cut_bound

# The largest number of packets per vector that `max_overhead` tries: each costs an integer program.
MOST_TRIED_SUBPACKETS = 24

# The largest number of packets per vector that is tried where none is asked for.
MOST_DEFAULT_SUBPACKETS = 6

# Columns of uplink matrices, partitions × packets, up to which it is tried: programs grow with them.
MOST_DEFAULT_COLUMNS = 48


@dataclass(frozen=True, eq=False)
class WantedTarget:
    """The checked arguments of `make_linear_plan`."""

    matrix: Floats
    reduced: Target
    silent: int
    seed: int
    responders: list[tuple[int, ...]]


# The most columns (partitions × packets) of combinations for which subspaces and codes with more packets are
# tried by default: with 24 columns they take ten seconds and seldom save anything.
MOST_STRUCTURED_COLUMNS = 18


@dataclass(frozen=True, eq=False)
class Uplink:
    """Uplink matrices (R_k·P, N·P) by worker, their worst condition number, and the bound on their rows."""

    matrices: list[Floats]
    condition: float
    subpackets: int
    bound: Bound

    @property
    def packets(self) -> int:
        """The number of rows of all workers together."""
        return sum(map(len, self.matrices))

    @property
    def load(self) -> Fraction:
        """`Σ R_k` in vectors."""
        return Fraction(self.packets, self.subpackets)


def cheapest_uplink(wanted: WantedTarget) -> Uplink:
    """The uplink with the smallest load over a few numbers of packets; at a tie, with the fewest."""
    best = find_uplink(wanted, 1)
    most = min(MOST_DEFAULT_SUBPACKETS, MOST_DEFAULT_COLUMNS // len(wanted.reduced.placement.partitions))
    whole = best.bound.fractional.denominator
    # Rates may be fractions although their sum is whole: halves and thirds are tried, too.
    for P in dict.fromkeys((whole, 2 * whole, 2, 3)):
        if best.load == best.bound.fractional:
            break
        if 1 < P <= most:
            best = _cheaper(wanted, P, best)
    return best


def fewest_subpackets(wanted: WantedTarget, max_overhead: Fraction) -> int:
    """The fewest packets whose bound exceeds `fractional_bound` by at most this share."""
    best: tuple[Fraction, int] | None = None
    for P in range(1, MOST_TRIED_SUBPACKETS + 1):
        bound = cut_bound(wanted.reduced, subpackets=P, silent=wanted.silent)
        load = Fraction(bound.packets, P)
        if best is None or load < best[0]:
            best = load, P
        if load <= bound.fractional * (1 + max_overhead):
            break
    assert best is not None
    return best[1]


def find_uplink(wanted: WantedTarget, P: int) -> Uplink:
    """The uplink with `P` packets per vector and the fewest rows, well conditioned if possible."""
    search = _Decompositions(wanted, P)
    if (found := search.first(search.bound.packets, 3 * EFFORT)) is not None:
        return found
    best = _structured(wanted, search.bound, P)
    # With the same number of rows, another uplink is better only if this one is badly conditioned.
    return search.fewest(best.packets - (best.condition <= FAIR_CONDITION)) or best


def uplink_with_load(wanted: WantedTarget, P: int, load: Fraction) -> Uplink | None:
    """An uplink with `P` packets per vector and this load, if one is found.

    For a load that `cheapest_uplink` has reached with another seed, this takes a small part of its time.
    """
    search = _Decompositions(wanted, P)
    found = search.first(int(load * P)) or _structured(wanted, search.bound, P)
    return found if found.load == load else None


def _cheaper(wanted: WantedTarget, P: int, best: Uplink) -> Uplink:
    """An uplink with `P` packets per vector and a smaller load than `best`, or `best`."""
    search = _Decompositions(wanted, P)
    most = math.ceil(best.load * P) - 1
    if most < search.bound.packets:
        return best
    found = search.first(search.bound.packets, 3 * EFFORT) or search.fewest(most)
    # Subspaces and codes take long with many packets: they are tried only if decomposition is not possible.
    whole = search.bound.fractional.denominator
    small = len(wanted.reduced.placement.partitions) * P <= MOST_STRUCTURED_COLUMNS
    if found is None and (wanted.reduced.rank == 1 or (max(2, whole) == P and small)):
        found = min(best, _structured(wanted, search.bound, P), key=lambda each: each.load)
    return found or best


def _structured(wanted: WantedTarget, bound: Bound, P: int) -> Uplink:
    """An uplink from subspaces or codes, or from the target's rows one by one if its load is smaller."""
    reduced, responders, silent = wanted.reduced, wanted.responders, wanted.silent
    rng = np.random.default_rng(wanted.seed)
    best = Uplink(*build_uplink(reduced, bound, responders, rng, P, silent), P, bound)
    if best.packets > bound.packets and reduced.rank > 1:
        rng = np.random.default_rng(wanted.seed)
        single = uplink_row_by_row(
            reduced.placement, reduced, wanted.matrix, responders, rng, subpackets=P, silent=silent
        )
        if single is not None and sum(map(len, single[0])) < best.packets:
            best = Uplink(*single, P, bound)
    return best


class _Decompositions:
    """The search for numerical decompositions with `P` packets per vector."""

    def __init__(self, wanted: WantedTarget, P: int) -> None:
        self.wanted, self.subpackets = wanted, P
        self.bound = cut_bound(wanted.reduced, subpackets=P, silent=wanted.silent)
        self.decomposer = Decomposer(wanted.reduced, self.bound, wanted.responders, P, wanted.silent)

    def fewest(self, most: int) -> Uplink | None:
        """The decomposition with the fewest rows, at most `most`, searched downwards until none is found."""
        best = None
        for total in range(most, self.bound.packets, -1):
            if (found := self.first(total)) is None:
                break
            best = found
        return best

    def first(self, total: int, effort: int = EFFORT) -> Uplink | None:
        """The first well-conditioned decomposition with this number of rows."""
        wanted, P = self.wanted, self.subpackets
        rng = np.random.default_rng([wanted.seed, total])
        for W in self.decomposer.matrices(total, rng, effort):
            try:
                matrices, condition = checked_uplink(wanted.reduced, wanted.responders, P, W, 1.0)
            except CodingError:
                continue
            if condition <= FAIR_CONDITION:
                return Uplink(matrices, condition, P, self.bound)
        return None
