"""Linear targets: the number of combinations that each worker sends, and their subspaces.

Worker `k` owns a subspace `U_k` of the r-dimensional target space and sends `R_k = dim U_k` combinations.
The server can decode iff every column `A_n` lies in `Σ_{k∈H_n} U_k` (docs/theory.md, section 5).

Subspaces are composed of generic pieces of *flats*: the lines through single columns, the whole space, and
some spans of several columns in between. Holders reach a column if their pieces of some flat that contains
the column fill that flat. Choosing the pieces is an integer program. With packets, everything happens in the
target space ⊗ ℝ^P. No worker is silent here; `asyncdmtl.plan.linear.erasure` has plans for silent workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.field import real
from asyncdmtl.plan.linear.targets import Bound, Target, bit_set, members
from asyncdmtl.plan.rates.covering import Constraints, integer_cover, minimise

# The most variables of an integer program. If a program would have more, a simpler plan is used.
MAX_VARIABLES = 1500

# The most lines for which the span of every set of lines is a candidate flat.
_FEW_LINES_FOR_ALL_SPANS = 5

# The most spans of several lines that are candidate flats.
_MAX_SPANS = 40


@dataclass(frozen=True)
class Flat:
    """A span of columns in the target space: orthonormal `basis` (r, rank), `lines` in it (bit set)."""

    basis: Floats
    lines: int

    @property
    def rank(self) -> int:
        """Its dimension."""
        return int(self.basis.shape[1])


# A mapping of (worker, index of a flat) to the dimensions of the worker's piece of that flat, in packets.
Pieces = dict[tuple[int, int], int]


def candidate_flats(target: Target) -> list[Flat]:
    """All lines, in order; then the whole space and spans of several lines, smaller ones first."""
    L = target.lines.shape[1]
    flats = [Flat(target.lines[:, [line]], 1 << line) for line in range(L)]
    everything = (1 << L) - 1
    spans = {everything} | set(target.stored_lines)
    if L <= _FEW_LINES_FOR_ALL_SPANS:
        spans |= set(range(1, everything + 1))
    else:
        by_holders: dict[frozenset[int], int] = {}
        for line, H in target.needs:
            by_holders[H] = by_holders.get(H, 0) | 1 << line
        spans |= set(sorted(by_holders.values(), key=int.bit_count, reverse=True)[:_MAX_SPANS])
    found = {1 << line for line in range(L)}
    larger = []
    for span in sorted(spans):
        if span.bit_count() < 2:
            continue
        basis = real.column_basis(target.lines[:, list(members(span))])
        inside = np.linalg.norm(target.lines - basis @ (basis.T @ target.lines), axis=0) < 1e-9
        closed = bit_set(np.flatnonzero(inside))
        if closed not in found:
            found.add(closed)
            larger.append(Flat(basis, closed))
    larger.sort(key=lambda flat: (flat.rank, flat.lines))
    return flats + (larger[: _MAX_SPANS - 1] + larger[-1:] if len(larger) > _MAX_SPANS else larger)


def assign_everything(target: Target, *, subpackets: int) -> Pieces:
    """The plan without generic pieces: for each of its needs, one holder sends the whole line."""
    pieces: Pieces = {}
    for line, holders in target.needs_of_line.items():
        if len(holders) == 1:
            pieces[min(holders[0]), line] = subpackets
            continue
        chosen, _ = integer_cover(len(target.placement.workers), dict.fromkeys(holders, 1), most=1)
        pieces |= {(k, line): subpackets for k, sends in enumerate(chosen) if sends}
    return pieces


def fill_everything(target: Target, flats: Sequence[Flat], *, subpackets: int) -> Pieces:
    """The plan without lines: the holders of every need fill the whole space."""
    demands = {H: target.rank for _, H in target.needs}
    packets, _ = integer_cover(len(target.placement.workers), demands, subpackets=subpackets)
    return {(k, len(flats) - 1): rows for k, rows in enumerate(packets) if rows}


class PieceProgram:
    """The integer program for the pieces. Constraints may be added between solutions.

    Variables: `g[k, F]` packets of worker `k` in flat `F`, and per need and flat a choice `y`. Constraints:

        Σ_F y ≥ 1 per need;   Σ_{k∈H} Σ_{F'⊆F} g[k, F'] ≥ P·rank(F)·y;   Σ_{k∈S} R_k ≥ demand of S

    Pieces of smaller flats count in a larger one as if they were independent; `exclude` corrects the cases in
    which they are not.
    """

    def __init__(self, target: Target, flats: Sequence[Flat], bound: Bound, *, subpackets: int) -> None:
        K = len(target.placement.workers)
        self.target, self.flats, self.subpackets = target, flats, subpackets
        self._rows, self._upper = Constraints(), list[float]()
        self._capped: dict[tuple[int, frozenset[int]], int] = {}
        self._pieces = {
            (k, f): self._variable(flat.rank * subpackets)
            for f, flat in enumerate(flats)
            for k, stored in enumerate(target.stored_lines)
            if stored & flat.lines
        }
        if len(self._pieces) > MAX_VARIABLES:
            return
        for line, H in target.needs:
            self._add_need(line, H)
        # R_k as variables of their own keep the cuts sparse.
        rates = [self._variable(target.rank * subpackets) for _ in range(K)]
        for k, rate in enumerate(rates):
            mine = [v for (worker, _), v in self._pieces.items() if worker == k]
            self._rows.add([*((v, 1.0) for v in mine), (rate, -1.0)], 0.0)
            self._rows.add([*((v, -1.0) for v in mine), (rate, 1.0)], 0.0)
        for S, rank in bound.demands.items():
            self._rows.add([(rates[k], 1.0) for k in S], rank * subpackets)
        self._rows.add([(rate, 1.0) for rate in rates], bound.packets)

    def solve(self) -> Pieces | None:
        """The pieces with the smallest sum, or None if the program is too large or the search ended early."""
        if not self._upper:
            return {}
        if len(self._upper) > MAX_VARIABLES:
            return None
        costs = np.zeros(len(self._upper))
        costs[list(self._pieces.values())] = 1.0
        outcome = minimise(costs, self._rows, np.array(self._upper))
        if outcome is None:
            return None
        return {key: int(n) for key, v in self._pieces.items() if (n := outcome.values[v]) > 0}

    def exclude(self, line: int, H: frozenset[int], reached: Floats) -> None:
        """Demand further pieces of `H`: the span of its pieces (orthonormal `reached`, (r·P, j)) misses
        `line`.

        Some piece outside that span is needed: either a flat that closes the gap alone, or pieces that fill
        the whole space. Rare other solutions are excluded, too; at worst, the plan is no longer optimal.
        """
        P, dimension = self.subpackets, self.target.rank * self.subpackets
        rest = np.eye(dimension) - reached @ reached.T
        wanted = rest @ real.kron_identity(self.target.lines[:, [line]], P)
        gap = dimension - reached.shape[1]
        coefficients: dict[int, float] = {}
        for f in {f for k, f in self._pieces if k in H}:
            fresh = real.column_basis(_clean(rest @ real.kron_identity(self.flats[f].basis, P)))
            if fresh.shape[1]:
                closes = np.linalg.norm(wanted - fresh @ (fresh.T @ wanted)) < 1e-8
                coefficients[f] = gap / fresh.shape[1] if closes else 1.0
        terms = [(v, coefficients[f]) for (k, f), v in self._pieces.items() if k in H and f in coefficients]
        self._rows.add(terms, gap)

    def _variable(self, upper: float) -> int:
        self._upper.append(upper)
        return len(self._upper) - 1

    def _add_need(self, line: int, H: frozenset[int]) -> None:
        choices = []
        for f, flat in enumerate(self.flats):
            if flat.lines >> line & 1:
                choice = self._variable(1.0)
                terms = [term for g in self._within[f] for term in self._contribution(g, H, alone=g == f)]
                self._rows.add([*terms, (choice, -float(flat.rank * self.subpackets))], 0.0)
                choices.append((choice, 1.0))
        self._rows.add(choices, 1.0)

    def _contribution(self, f: int, H: frozenset[int], *, alone: bool) -> list[tuple[int, float]]:
        """Terms for the dimensions of `H`'s pieces in a flat, alone or as part of a larger flat."""
        terms = [(v, 1.0) for k in sorted(H) if (v := self._pieces.get((k, f))) is not None]
        if alone or len(terms) < 2 or f not in self._repeated:
            return terms
        # A line that several workers send counts as one dimension only.
        if (f, H) not in self._capped:
            cap = self._capped[f, H] = self._variable(self.subpackets)
            self._rows.add([*terms, (cap, -1.0)], 0.0)
        return [(self._capped[f, H], 1.0)]

    @cached_property
    def _repeated(self) -> frozenset[int]:
        """Lines with more than one need. It is useless to send any other line twice."""
        return frozenset(line for line, H in self.target.needs_of_line.items() if len(H) > 1)

    @cached_property
    def _within(self) -> list[list[int]]:
        return [
            [g for g, small in enumerate(self.flats) if small.lines | large.lines == large.lines]
            for large in self.flats
        ]


def _clean(matrix: Floats) -> Floats:
    """Set the rounding noise of a projection to zero, so that it does not count as a direction."""
    matrix[:, np.linalg.norm(matrix, axis=0) < 1e-9] = 0.0
    return matrix
