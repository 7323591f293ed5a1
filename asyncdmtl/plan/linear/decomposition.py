"""Linear targets by numerical decomposition: uplink rows found as the zeros of a least-squares problem.

Given the rows per worker, the uplink matrix `W` (Σ R_k·P rows) is free where a worker stores the column, and
0 elsewhere. It works iff for every set `B` of responders the rows of `T = A ⊗ I_P` lie in the row space of
`W_B`. That is a matrix decomposition `D_B · W_B = T` with a given support; its squared residual

    Σ_B ‖T − T·W_B⁺·W_B‖²

is minimised over the free entries by Levenberg-Marquardt steps on the projected problem (Kaufman's form of
variable projection: `D_B = T·W_B⁺` is eliminated). This finds plans in which subspaces of workers are
intersections of spans of columns, and others that no list of candidate subspaces contains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.field import real
from asyncdmtl.plan.linear.targets import Bound, Target, packet_columns
from asyncdmtl.plan.rates.covering import sampled_covers

# The most free entries of W for which a decomposition is tried: the cost of a step is their third power.
MAX_ENTRIES = 400

# The most rate vectors with one sum for which all are listed and ranked.
_MAX_LISTED = 50_000

# With more rate vectors, a few are drawn at random, unless W had more than so many times `MAX_ENTRIES` in it
# if the worker that stores most sent all rows.
_MAX_SAMPLED = 2

# The number of rate vectors that are tried for one sum.
_TRIED_RATES = 8

# The number of random starts for each rate vector, and for one sum: a single vector gets all of them.
_STARTS, _ALL_STARTS = 3, 16

# The most multiplications of all steps for one number of rows: some half a second.
EFFORT = 500_000_000

# The overhead of a step, and of each set of responders in it, in multiplications: the calls of NumPy.
_STEP_OVERHEAD, _RESPONDERS_OVERHEAD = 200_000, 200_000

# The most steps of one start, and the number of steps after which the residual must have become small.
_STEPS = 80
_TRIAL_STEPS = 30
_TRIAL_RESIDUAL = 1e-2

# The largest residual (of unit columns) of a decomposition: rounding leaves some 1e-14.
_FOUND = 1e-12


class Decomposer:
    """Decompositions for one target, with P packets per vector and any `silent` workers silent."""

    def __init__(
        self, target: Target, bound: Bound, responders: Sequence[tuple[int, ...]], P: int, silent: int
    ) -> None:
        self.target, self.bound, self.silent, self.subpackets = target, bound, silent, P
        used = [[n for n in M if target.line_of[n] >= 0] for M in target.placement.stored]
        self.columns = tuple(packet_columns(M, P) for M in used)
        self.responders = tuple(responders)
        self._listed: dict[int, list[tuple[int, ...]]] = {}

    @cached_property
    def wanted(self) -> Floats:
        """`T` (r·P, N·P)."""
        return real.kron_identity(self.target.columns, self.subpackets)

    def matrices(self, total: int, rng: np.random.Generator, effort: int = EFFORT) -> Iterator[list[Floats]]:
        """Uplink matrices (R_k·P, N·P) of all workers with `total` rows, searched until `effort` is spent."""
        vectors = self.rate_vectors(total) if total else []
        starts = max(_STARTS, _ALL_STARTS // max(1, len(vectors)))
        for rates in [rates for _ in range(starts) for rates in vectors]:
            entries = self._entries(rates)
            if not 0 < entries <= MAX_ENTRIES:
                continue
            each = _RESPONDERS_OVERHEAD + 4 * (entries**2 + total * self.wanted.size)
            cost = _STEP_OVERHEAD + entries**3 // 3 + len(self.responders) * each
            if cost > effort:
                return
            descent = _Descent(self, rates, rng)
            found = descent.run(min(_STEPS, effort // cost))
            effort -= (1 + descent.steps) * cost
            if found is not None:
                yield found

    def _entries(self, rates: Sequence[int]) -> int:
        """The number of free entries of W."""
        return sum(rows * len(held) for rows, held in zip(rates, self.columns, strict=True))

    def rate_vectors(self, total: int) -> list[tuple[int, ...]]:
        """The most promising vectors of packets per worker with this sum that meet every cut."""
        target, P, K = self.target, self.subpackets, len(self.target.placement.workers)
        if (known := self._listed.get(total)) is not None:
            return known
        most = [target.span_rank(lines) * P for lines in target.stored_lines]
        if math.comb(total + K - 1, K - 1) > _MAX_LISTED:
            if total * max(map(len, self.columns)) > _MAX_SAMPLED * MAX_ENTRIES:
                return []
            sampled = sampled_covers(
                K, self.bound.demands, total, most, subpackets=P, silent=self.silent, samples=_TRIED_RATES
            )
            listed = np.array(sampled, dtype=np.int64).reshape(-1, K)
        else:
            listed = np.array(list(_vectors(total, most)), dtype=np.int64).reshape(-1, K)
        for S, rank in self.bound.demands.items():
            inside = np.sort(listed[:, sorted(S)], axis=1)
            listed = listed[inside[:, : len(S) - self.silent].sum(axis=1) >= rank * P]
        order = np.argsort(-self._freedom(listed), kind="stable")[:_TRIED_RATES]
        ranked = self._listed[total] = [tuple(rates) for rates in listed[order].tolist()]
        return ranked

    def _freedom(self, rates: NDArray[np.int64]) -> NDArray[np.int64]:
        """The dimension of the choice of subspaces, minus the number of conditions from the needs."""
        size, P = self.target.rank * self.subpackets, self.subpackets
        free: NDArray[np.int64] = (rates * np.maximum(0, size - rates)).sum(axis=1)
        for _, H in self.target.needs:
            free -= P * np.maximum(0, size - rates[:, sorted(H)].sum(axis=1))
        return free


def _vectors(total: int, most: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All vectors of non-negative whole numbers with this sum and these upper limits, in order."""
    if len(most) == 1:
        if total <= most[0]:
            yield (total,)
        return
    for first in range(max(0, total - sum(most[1:])), min(total, most[0]) + 1):
        yield from ((first, *others) for others in _vectors(total - first, most[1:]))


class _Descent:
    """Levenberg-Marquardt steps from one random start."""

    def __init__(self, problem: Decomposer, rates: Sequence[int], rng: np.random.Generator) -> None:
        self.problem, self.rates, self.steps = problem, rates, 0
        width = problem.wanted.shape[1]
        owner = np.repeat(np.arange(len(rates)), rates)
        self.rows_of = [np.flatnonzero(np.isin(owner, B)) for B in problem.responders]
        self.owner = owner
        held = [problem.columns[k] for k in owner]
        self.row = np.concatenate([np.full(len(columns), i) for i, columns in enumerate(held)])
        self.column = np.concatenate(held)
        self.W = np.zeros((len(owner), width))
        self.W[self.row, self.column] = rng.standard_normal(len(self.row))
        self._normalise()

    def run(self, most: int) -> list[Floats] | None:
        """The matrices; None if the residual does not vanish within `_STEPS`."""
        damping, (error, gradient, normal) = 1e-2, self._linearised()
        while True:
            if error < _FOUND**2:
                return [self.W[self.owner == k] for k in range(len(self.rates))]
            if self.steps >= most or (self.steps >= _TRIAL_STEPS and error > _TRIAL_RESIDUAL**2):
                return None
            before = self.W.copy()
            while True:
                self.steps += 1
                damped = normal + damping * np.diag(np.diag(normal) + 1e-6)
                try:
                    delta = np.linalg.solve(damped, gradient)
                except np.linalg.LinAlgError:
                    return None
                self.W[self.row, self.column] += delta
                self._normalise()
                after = self._linearised()
                if after[0] < error:
                    error, gradient, normal = after
                    damping = max(damping / 5, 1e-13)
                    break
                self.W[:] = before
                damping *= 4
                if damping > 1e6:
                    return None

    def _normalise(self) -> None:
        """Make the rows of every worker orthonormal, since only their span matters."""
        for k, rows in enumerate(self.rates):
            if rows:
                mine, columns = self.owner == k, self.problem.columns[k]
                Q, _ = np.linalg.qr(self.W[np.ix_(mine, columns)].T)
                self.W[np.ix_(mine, columns)] = Q.T

    def _linearised(self) -> tuple[float, Floats, Floats]:
        """Squared residual, descent direction (minus half the gradient), and the normal matrix."""
        wanted, error = self.problem.wanted, 0.0
        gradient, normal = np.zeros(len(self.row)), np.zeros((len(self.row), len(self.row)))
        for rows in self.rows_of:
            inside = np.zeros(len(self.W), dtype=np.int64) - 1
            inside[rows] = np.arange(len(rows))
            entries = np.flatnonzero(inside[self.row] >= 0)
            i, j = inside[self.row[entries]], self.column[entries]
            left, values, right = np.linalg.svd(self.W[rows], full_matrices=False)
            kept = values > 1e-9
            left, values, right = left[:, kept], values[kept], right[kept]
            residual = wanted - (wanted @ right.T) @ right
            D = ((wanted @ right.T) / values) @ left.T
            error += float(np.sum(residual**2))
            gradient[entries] += (D.T @ residual)[i, j]
            complement = np.eye(wanted.shape[1]) - right.T @ right
            normal[np.ix_(entries, entries)] += (D.T @ D)[np.ix_(i, i)] * complement[np.ix_(j, j)]
        return error, gradient, normal
