"""Linear targets: the reduced form of the target matrix, and the lower bound of the uplink.

The target is `A·V` with `A` of size C × N and rank r (docs/theory.md, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.field import real
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.covering import Constraints, fractional_cover, integer_cover, minimise

# The most sets of workers for which all cut constraints are listed. With more, a search finds violated ones.
MAX_UNIONS = 2048

# The most rounds of the search for violated constraints. Each round solves a program.
_SEARCH_ROUNDS = 20

# The most workers for which the programs of the search are solved in whole numbers.
_MAX_INTEGER = 30

# A line (its index) and a set of workers that must reach it.
Need = tuple[int, frozenset[int]]


class Target:
    """The reduced form of the matrix `A`: a row basis, and the directions of its columns.

    Attributes
    ----------
    columns : (r, N) float64
        Columns of a row basis of `A`, each of length 1 (or 0).
    scales : (N,) float64
        The lengths of these columns: `A = lift @ (columns * scales)`, where `columns * scales` has
        orthonormal rows.
    lift : (C, r) float64
        Coordinates of the rows of `A` in that basis.
    row_scale : (C, 1) float64
        The largest entry of each row of `A` (1 for a zero row).
    lines : (r, L) float64
        The distinct directions among the columns, as unit vectors.
    line_of : tuple of int
        For each partition, the index of its direction; −1 for a zero column.
    needs : tuple of Need
        Lines, each with workers that must reach it. Needs that follow from others are left out.
    """

    def __init__(self, placement: Placement, matrix: Floats) -> None:
        self.placement = placement
        largest = np.max(np.abs(matrix), axis=1, keepdims=True)
        self.row_scale: Floats = np.where(largest > 0, largest, 1.0)
        rows = matrix / self.row_scale
        basis = real.row_basis(real.unit_columns(rows.T).T)
        self.rank = basis.shape[0]
        self.lift: Floats = self.row_scale * (rows @ basis.T)
        self.columns = real.unit_columns(np.where(np.abs(matrix).max(axis=0, initial=0.0) > 0, basis, 0.0))
        self.scales: Floats = np.sum(self.columns * basis, axis=0)
        self.lines, self.line_of = _directions(self.columns)
        self.needs = self._needs()

    def _needs(self) -> tuple[Need, ...]:
        smallest: dict[int, list[frozenset[int]]] = {}
        partitions = sorted((len(H), n) for n, H in enumerate(self.placement.holders) if self.line_of[n] >= 0)
        for _, n in partitions:
            H, known = frozenset(self.placement.holders[n]), smallest.setdefault(self.line_of[n], [])
            if not any(other <= H for other in known):
                known.append(H)
        return tuple((line, H) for line in sorted(smallest) for H in smallest[line])

    @cached_property
    def need_bits(self) -> tuple[tuple[int, int], ...]:
        """The needs, with the workers as a bit set."""
        return tuple((line, bit_set(H)) for line, H in self.needs)

    @cached_property
    def needs_of_line(self) -> dict[int, list[frozenset[int]]]:
        """A mapping of each line to the sets of workers that must reach it."""
        grouped: dict[int, list[frozenset[int]]] = {}
        for line, H in self.needs:
            grouped.setdefault(line, []).append(H)
        return grouped

    @cached_property
    def partitions_of_holders(self) -> dict[tuple[int, ...], list[int]]:
        """A mapping of each holder set H to the partitions with these holders and a non-zero column."""
        grouped: dict[tuple[int, ...], list[int]] = {}
        for n, H in enumerate(self.placement.holders):
            if self.line_of[n] >= 0:
                grouped.setdefault(H, []).append(n)
        return grouped

    @cached_property
    def stored_lines(self) -> tuple[int, ...]:
        """For each worker, the lines of its partitions, as a bit set."""
        return tuple(
            bit_set(line for n in M if (line := self.line_of[n]) >= 0) for M in self.placement.stored
        )

    def span_rank(self, lines: int) -> int:
        """Rank of a bit set of lines."""
        known = self._ranks.get(lines)
        if known is None:
            count = lines.bit_count()
            known = count if count < 2 or self.rank == 0 else real.rank(self.lines[:, list(members(lines))])
            self._ranks[lines] = known
        return known

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {}


@dataclass(frozen=True)
class Bound:
    """The bound from the cut constraints `Σ_{k∈S} R_k ≥ rank(A on the columns that only S holds)`.

    With s silent workers the constraint holds for S without any s of its workers.

    Attributes
    ----------
    packets : int
        The smallest whole number of packets that meets them: a bound for every linear scheme with as many
        packets per vector.
    fractional : Fraction
        The value of the linear program, in vectors: a bound for every linear scheme with any number of
        packets.
    complete : bool
        Whether all constraints are included, or only those that a search found (many workers).
    demands : dict of set of workers to rank
        The constraints that were used.
    """

    packets: int
    fractional: Fraction
    complete: bool
    demands: dict[frozenset[int], int]


def cut_bound(
    target: Target, *, subpackets: int = 1, silent: int = 0, helpers: Collection[int] | None = None
) -> Bound:
    """The lower bound of the uplink, see `Bound`.

    If `helpers` are given, only the other workers need the target, so that one of them is outside of `S`.
    """
    K = len(target.placement.workers)
    wanting = None if helpers is None else bit_set(set(range(K)).difference(helpers))
    demands = _all_demands(target, wanting)
    complete = demands is not None
    if demands is None:
        demands, complete = _searched_demands(target, subpackets, silent)
        if wanting is not None:
            demands = {S: rank for S, rank in demands.items() if bit_set(S) & wanting != wanting}
            complete = False
    _, fractional = fractional_cover(K, demands, silent=silent)
    packets = math.ceil(fractional * subpackets)
    if complete or K <= _MAX_INTEGER:
        packets = max(packets, integer_cover(K, demands, subpackets=subpackets, silent=silent)[1])
    return Bound(packets, fractional, complete, demands)


def _all_demands(target: Target, wanting: int | None = None) -> dict[frozenset[int], int] | None:
    """All cut constraints, or those that do not contain all of `wanting`; None if there are too many."""
    unions = {0}
    for H in {bit_set(H) for _, H in target.needs}:
        unions |= {H | union for union in unions}
        if len(unions) > MAX_UNIONS:
            return None
    kept: dict[int, int] = {}
    for S in sorted(unions - {0}, key=int.bit_count):
        if wanting is not None and S & wanting == wanting:
            continue
        rank = target.span_rank(_lines_within(target, S))
        if not any(f >= rank and T | S == S for T, f in kept.items()):
            kept[S] = rank
    return {frozenset(members(S)): rank for S, rank in kept.items()}


def _searched_demands(target: Target, subpackets: int, silent: int) -> tuple[dict[frozenset[int], int], bool]:
    """Demands of the holder sets, and of further sets that the optimum under known demands violates."""
    K = len(target.placement.workers)
    everyone = (1 << K) - 1
    start = {bit_set(H) for _, H in target.needs} | {everyone}
    demands = {frozenset(members(S)): target.span_rank(_lines_within(target, S)) for S in sorted(start)}
    for _ in range(_SEARCH_ROUNDS if K <= _MAX_INTEGER else _SEARCH_ROUNDS // 4):
        if K > _MAX_INTEGER:
            rates, _ = fractional_cover(K, demands, silent=silent)
        else:
            rates = np.array(integer_cover(K, demands, subpackets=subpackets, silent=silent)[0]) / subpackets
        found = _grown(target, rates, silent)
        if not found:
            if silent or K > _MAX_INTEGER:
                break
            S, certain = _violated(target, rates)
            if S is None:
                return demands, certain
            found = {S: target.span_rank(_lines_within(target, bit_set(S)))}
            if rates[list(S)].sum() > found[S] - 1e-9:
                break
        demands |= found
    return demands, False


def _grown(target: Target, rates: Floats, silent: int) -> dict[frozenset[int], int]:
    """Violated sets, grown greedily from each need by the holders whose rates are smallest."""
    sets = list(dict.fromkeys(H for _, H in target.needs))
    holds = np.zeros((len(sets), len(rates)), dtype=np.bool_)
    for i, H in enumerate(sets):
        holds[i, list(H)] = True
    found = {}
    for start in range(len(sets)):
        S = holds[start].copy()
        while True:
            rank = target.span_rank(_lines_within(target, bit_set(np.flatnonzero(S))))
            if np.sort(rates[S])[: S.sum() - silent].sum() < rank - 1e-9:
                found[frozenset(np.flatnonzero(S).tolist())] = rank
                break
            new = holds & ~S
            costs = np.where(new.any(axis=1), new @ rates, np.inf)
            if rank == target.rank or np.isinf(costs.min()):
                break
            S |= holds[np.argmin(costs)]
    return found


def _violated(target: Target, rates: Floats) -> tuple[frozenset[int] | None, bool]:
    """The set S whose rates are farthest below its rank, if lines were in general position.

    It is the solution of an integer program: a worker in S costs its rate, a line counts if all holders of
    one of its needs are in S, and at most r lines count.
    """
    K, L = len(rates), target.lines.shape[1]
    lines, needs = range(K, K + L), range(K + L, K + L + len(target.needs))
    rows = Constraints()
    for need, (_, H) in zip(needs, target.needs, strict=True):
        rows.add([*((k, 1.0) for k in H), (need, -float(len(H)))], 0.0)
    of_line: list[list[tuple[int, float]]] = [[] for _ in lines]
    for need, (line, _) in zip(needs, target.needs, strict=True):
        of_line[line].append((need, 1.0))
    for line, terms in zip(lines, of_line, strict=True):
        rows.add([*terms, (line, -1.0)], 0.0)
    rows.add([(line, -1.0) for line in lines], -target.rank)
    costs = np.concatenate([rates, -np.ones(L), np.zeros(len(needs))])
    outcome = minimise(costs, rows, np.ones(len(costs)))
    if outcome is None:
        return None, False
    S = frozenset(int(k) for k in np.flatnonzero(outcome.values[:K]))
    if float(costs @ outcome.values) > -1e-6:
        return None, outcome.optimal
    return S, True


def packet_columns(partitions: Sequence[int], P: int) -> NDArray[np.int64]:
    """The columns of the packets of these partitions, among N·P columns."""
    return (np.array(partitions, dtype=np.int64)[:, None] * P + np.arange(P)).ravel()


def members(bits: int) -> Iterator[int]:
    """The positions of the bits that are set, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def bit_set(members: Iterable[int]) -> int:
    """The bit set of these positions, the inverse of `members`."""
    bits = 0
    for member in members:
        bits |= 1 << int(member)
    return bits


def _lines_within(target: Target, S: int) -> int:
    return bit_set(line for line, H in target.need_bits if H | S == S)


def _directions(columns: Floats) -> tuple[Floats, tuple[int, ...]]:
    found: list[int] = []
    line_of = []
    for n, column in enumerate(columns.T):
        known = columns[:, found]
        signs = np.where(known.T @ column < 0, -1.0, 1.0)
        close = np.flatnonzero(np.linalg.norm(known * signs - column[:, None], axis=0) < 1e-10)
        if not column.any():
            line_of.append(-1)
        elif close.size:
            line_of.append(int(close[0]))
        else:
            line_of.append(len(found))
            found.append(n)
    return columns[:, found], tuple(line_of)
