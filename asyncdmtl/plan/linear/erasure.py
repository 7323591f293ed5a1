"""Linear targets with s silent workers: erasure codes whose rows respect the placement.

A code has `rows[k]` rows at worker `k`, a matrix `S` that keeps its full column rank L without the rows of
any s workers, and a map `Λ` from ℝ^L into the target space. The coefficients of partition `n` are a codeword
`S·x_n` that vanishes outside H_n and has `Λ·x_n = A_n`. Any K − s responders then determine `Σ_n x_n·v_n`,
whose image under `Λ` is the target.

`S` has two kinds of columns. An *unknown* (a line and a set T of workers) is generic on the rows of T; `Λ`
maps it to the line, so all partitions on that line whose holders include T may use it. The other `extra`
columns are generic in all rows and have generic images: a set of workers H reaches the whole target space
through them if `L − (rows outside H) ≥ r`.

A plan is one code for the whole target space, and one (all extra) for each line that costs less alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError
from asyncdmtl.field import real
from asyncdmtl.plan.linear.conditioning import well_conditioned
from asyncdmtl.plan.linear.pieces import MAX_VARIABLES
from asyncdmtl.plan.linear.subspaces import RESIDUAL
from asyncdmtl.plan.linear.targets import Bound, Need, Target, packet_columns
from asyncdmtl.plan.rates.covering import Constraints, integer_cover, minimise
from asyncdmtl.plan.rates.stragglers import ResponderNetwork

# The most solutions of the integer program that are drawn and corrected.
_CODE_ROUNDS = 25

# The most lines for which every line may have a code of its own. With more lines, only lines with several
# needs may.
_FEW_LINES = 12

# The most intersections of holder sets that are candidate unknowns of a line, besides the holder sets
# themselves.
_MAX_SHARED = 30

# The largest coefficient of a codeword: a larger one would lose too many digits.
_LARGEST_COEFFICIENT = 1e5


@dataclass(frozen=True)
class Code:
    """One code: packets per worker, the subspace that it serves (r, ρ), its unknowns and extra columns."""

    rows: tuple[int, ...]
    space: Floats
    unknowns: tuple[Need, ...]
    extra: int


def find_codes(
    target: Target,
    bound: Bound,
    responders: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
    *,
    subpackets: int,
    silent: int,
) -> list[Code]:
    """The codes with the fewest rows among those that the search finds."""
    best = codes_of_lines(target, subpackets=subpackets, silent=silent)
    program = CodeProgram(target, bound, subpackets=subpackets, silent=silent)
    for _ in range(_CODE_ROUNDS):
        codes = program.solve()
        if codes is None or total(codes) >= total(best):
            break
        overloaded = {S for code in codes for S in _overloaded(code, responders, subpackets)}
        for S in sorted(overloaded, key=sorted):
            program.require(S)
        if overloaded:
            continue
        _, _, missed = _draw_codes(target, codes, rng, subpackets)
        if not missed:
            return codes
        for need in missed:
            program.forbid_extra(need)
    return best


def codes_of_lines(target: Target, *, subpackets: int, silent: int) -> list[Code]:
    """A plan that is always valid: a code for every line, with s + 1 workers at each of its needs."""
    K, codes = len(target.placement.workers), []
    for line, holders in target.needs_of_line.items():
        if len(holders) == 1:
            rows = tuple(subpackets * (k in sorted(holders[0])[: silent + 1]) for k in range(K))
        else:
            chosen, _ = integer_cover(K, dict.fromkeys(holders, silent + 1), most=1)
            rows = tuple(subpackets * sends for sends in chosen)
        codes.append(Code(rows, target.lines[:, [line]], (), sum(rows) - silent * subpackets))
    return codes


def total(codes: Sequence[Code]) -> int:
    """The total number of packets."""
    return sum(sum(code.rows) for code in codes)


def uplink_from_codes(
    target: Target,
    codes: Sequence[Code],
    rng: np.random.Generator,
    *,
    subpackets: int,
    responders: Sequence[tuple[int, ...]] = (),
) -> tuple[list[Floats], float]:
    """Uplink matrices (R_k·P, N·P), and the worst condition number among the solves.

    With `responders`, random codes are changed so that these and the holders of columns have well-conditioned
    systems. That takes long.

    Raises
    ------
    CodingError
        The holders of some column do not reach it.
    """
    W, condition, missed = _draw_codes(target, codes, rng, subpackets, responders)
    if missed:
        raise CodingError("the codes do not reach every column of the target")
    return W, condition


def _draw_codes(
    target: Target,
    codes: Sequence[Code],
    rng: np.random.Generator,
    P: int,
    responders: Sequence[tuple[int, ...]] = (),
) -> tuple[list[Floats], float, set[Need]]:
    """Uplink matrices, condition, and the lines that some holders do not reach."""
    K, N = len(target.placement.workers), len(target.placement.partitions)
    parts: list[list[Floats]] = [[np.zeros((0, N * P))] for _ in range(K)]
    remaining, condition = dict(target.partitions_of_holders), 1.0
    for code in codes:
        owner = np.repeat(np.arange(K), code.rows)
        S, Lambda = _draw(target, code, owner, rng, P)
        W = np.zeros((len(owner), N * P))
        off = target.columns - code.space @ (code.space.T @ target.columns)
        within = np.linalg.norm(off, axis=0) < RESIDUAL
        if responders:
            served_here = [H for H, partitions in remaining.items() if within[partitions].any()]
            outsides = [np.flatnonzero(~np.isin(owner, H)) for H in served_here]
            present = [np.flatnonzero(np.isin(owner, B)) for B in responders]
            S = well_conditioned(S, Lambda, outsides, present)
        for H, partitions in remaining.items():
            candidates = [n for n in partitions if within[n]]
            if not candidates:
                continue
            outside = ~np.isin(owner, H)
            system = np.vstack([S[outside], Lambda])
            wanted = real.kron_identity(code.space.T @ target.columns[:, candidates], P)
            x, served = _codewords(system, wanted, P)
            if served.any():
                inside = [n for n, is_served in zip(candidates, served, strict=True) if is_served]
                W[np.ix_(~outside, packet_columns(inside, P))] = S[~outside] @ x[:, np.repeat(served, P)]
                remaining[H] = [n for n in partitions if n not in set(inside)]
                condition = max(condition, real.condition_number(system))
        for k in range(K):
            parts[k].append(W[owner == k])
    missed = {(target.line_of[n], frozenset(H)) for H, partitions in remaining.items() for n in partitions}
    return [np.vstack(part) for part in parts], condition, missed


def _codewords(system: Floats, wanted: Floats, P: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The x with `system @ x = [0; wanted]`, and the partitions (P columns each) with small enough x."""
    right = np.vstack([np.zeros((len(system) - len(wanted), wanted.shape[1])), wanted])
    x = real.solve(system, right)
    miss = np.linalg.norm(system @ x - right, axis=0)
    size = np.abs(x).max(axis=0, initial=0.0)
    served = (miss < RESIDUAL) & (size < _LARGEST_COEFFICIENT)
    return x, served.reshape(-1, P).all(axis=1)


def _draw(
    target: Target, code: Code, owner: NDArray[np.int64], rng: np.random.Generator, P: int
) -> tuple[Floats, Floats]:
    """Draw the matrices S and Λ of a code."""
    size = code.space.shape[1] * P
    S, Lambda = [], []
    for line, T in code.unknowns:
        generic = rng.standard_normal((len(owner), P)) * np.isin(owner, list(T))[:, None]
        S.append(real.unit_columns(generic))
        Lambda.append(real.kron_identity(code.space.T @ target.lines[:, [line]], P))
    S.append(real.random_orthonormal(rng, len(owner), code.extra))
    Lambda.append(real.random_orthonormal(rng, size, code.extra))
    return np.hstack(S), np.hstack(Lambda)


def _overloaded(code: Code, responders: Sequence[tuple[int, ...]], P: int) -> set[frozenset[int]]:
    """Sets of workers that have more unknowns than rows for some set of responders (Hall's condition)."""
    K = len(code.rows)
    holders = [tuple(sorted(T)) for _, T in code.unknowns] + [tuple(range(K))]
    network = ResponderNetwork(K, holders, [P] * len(code.unknowns) + [code.extra])
    found = set()
    for A in responders:
        J = network.cut(A, np.array(code.rows, dtype=np.int64))
        if J is not None:
            found.add(frozenset(k for j in J for k in holders[j]))
    return found


class CodeProgram:
    """The integer program for the codes. `require` adds Hall's condition for single sets of workers.

    Variables: rows `g[k]` of the common code, `extra`, and for every candidate unknown whether it is used;
    rows `h[k, line]` of the codes of single lines. A need (line, H) is met if one of these holds:

        an unknown of that line with T ⊆ H,
        g(H) ≥ g(everyone) − L + P·r,       L = P·(number of unknowns) + extra
        h(H) ≥ P + (the s largest of h)
    """

    def __init__(self, target: Target, bound: Bound, *, subpackets: int, silent: int) -> None:
        K = len(target.placement.workers)
        self.target, self.subpackets, self.silent = target, subpackets, silent
        self._rows, self._upper = Constraints(), list[float]()
        self._through_extra: dict[Need, int] = {}
        self._most = float((silent + 1) * target.rank * subpackets)
        self._common = [self._variable(self._most) for _ in range(K)]
        self._extra = self._variable(self._most * K)
        self._unknowns = {unknown: self._variable(1.0) for unknown in _candidates(target, silent)}
        if len(self._unknowns) > MAX_VARIABLES:
            return
        few = target.lines.shape[1] <= _FEW_LINES
        self._alone = {
            line: {k: self._variable(subpackets) for k in sorted(frozenset[int]().union(*holders))}
            for line, holders in target.needs_of_line.items()
            if few or len(holders) > 1
        }
        lost = {line: self._lost(list(h.values())) for line, h in self._alone.items()}
        for line, H in target.needs:
            self._add_need(line, H, lost.get(line, []))
        self.require(frozenset(range(K)))
        everything = [*self._common, *(v for h in self._alone.values() for v in h.values())]
        self._rows.add([(v, 1.0) for v in everything], bound.packets)
        self._costs = everything

    def require(self, S: frozenset[int]) -> None:
        """Require that any |S| − s workers of `S` have a row for every unknown within `S`."""
        mine = [self._common[k] for k in sorted(S)]
        terms = [(v, 1.0) for v in mine] + [(v, -c) for v, c in self._lost(mine)]
        terms += [(v, -float(self.subpackets)) for (_, T), v in self._unknowns.items() if T <= S]
        if len(S) == len(self._common):
            terms.append((self._extra, -1.0))
        self._rows.add(terms, 0.0)

    def forbid_extra(self, missed: Need) -> None:
        """Forbid that `missed` is met by extra columns, because a draw showed that they do not suffice.

        The images of lines that depend on each other are not generic. The need is then met in another way; at
        worst, the plan is no longer optimal.
        """
        line, H = missed
        for (other, smaller), choice in self._through_extra.items():
            if other == line and smaller <= H:
                self._upper[choice] = 0.0

    def solve(self) -> list[Code] | None:
        """The codes with the fewest rows, or None if the program is too large or the search ended early."""
        if not self._unknowns or len(self._upper) > MAX_VARIABLES:
            return None
        costs = np.zeros(len(self._upper))
        costs[self._costs] = 1.0
        outcome = minimise(costs, self._rows, np.array(self._upper))
        if outcome is None:
            return None
        x, K = outcome.values, len(self._common)
        unknowns = tuple(unknown for unknown, v in self._unknowns.items() if x[v])
        common = tuple(int(x[v]) for v in self._common)
        codes = [Code(common, np.eye(self.target.rank), unknowns, int(x[self._extra]))]
        for line, h in self._alone.items():
            rows = tuple(int(x[h[k]]) if k in h else 0 for k in range(K))
            extra = sum(rows) - sum(sorted(rows)[K - self.silent :])
            if extra > 0:
                codes.append(Code(rows, self.target.lines[:, [line]], (), extra))
        return codes

    def _variable(self, upper: float) -> int:
        self._upper.append(upper)
        return len(self._upper) - 1

    def _lost(self, rates: list[int]) -> list[tuple[int, float]]:
        """Terms that are at least the s largest of `rates`: `s·τ + Σ max(rate − τ, 0)`."""
        tau = self._variable(self._most)
        terms = [(tau, float(self.silent))]
        for rate in rates:
            excess = self._variable(self._most)
            self._rows.add([(excess, 1.0), (tau, 1.0), (rate, -1.0)], 0.0)
            terms.append((excess, 1.0))
        return terms

    def _add_need(self, line: int, H: frozenset[int], lost: list[tuple[int, float]]) -> None:
        P, size = self.subpackets, self.subpackets * self.target.rank
        choices = [(v, 1.0) for (other, T), v in self._unknowns.items() if other == line and T <= H]
        through_extra = self._through_extra[line, H] = self._variable(1.0)
        choices.append((through_extra, 1.0))
        slack = size + self._most * len(self._common)
        terms = [(v, -1.0) for k, v in enumerate(self._common) if k not in H]
        terms += [(v, float(P)) for v in self._unknowns.values()]
        terms += [(self._extra, 1.0), (through_extra, -slack)]
        self._rows.add(terms, size - slack)
        if line in self._alone:
            alone = self._variable(1.0)
            choices.append((alone, 1.0))
            h, slack = self._alone[line], float(P * (1 + self.silent))
            terms = [(h[k], 1.0) for k in sorted(H)] + [(v, -c) for v, c in lost] + [(alone, -slack)]
            self._rows.add(terms, P - slack)
        self._rows.add(choices, 1.0)


def _candidates(target: Target, silent: int) -> list[Need]:
    """All needs, and intersections of a line's needs that have more than s workers."""
    found = []
    for line, holders in target.needs_of_line.items():
        sets = set(holders)
        for T, H in combinations(holders, 2):
            if len(sets) < len(holders) + _MAX_SHARED and len(T & H) > silent:
                sets.add(T & H)
        for T in [T for T in sets if T not in set(holders)]:
            sets |= {
                T & H for H in holders if len(T & H) > silent and len(sets) < 2 * _MAX_SHARED + len(holders)
            }
        found += [(line, T) for T in sorted(sets, key=sorted)]
    return found
