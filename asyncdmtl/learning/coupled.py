"""Solves coupled quadratic problems (`quadratic`) by a method for each coupling, with an error bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.sums import mean, sum_of_squares, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning import direct, interior
from asyncdmtl.learning.couplings.base import Coupling, NoCoupling
from asyncdmtl.learning.couplings.clustered import Clustered
from asyncdmtl.learning.couplings.graphs import ChainLaplacian, GraphLaplacian, laplacian_spectrum
from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.couplings.low_rank import NuclearNorm, SparseLowRank, TaskCovariance
from asyncdmtl.learning.couplings.means import MeanRegularised, PlainMean
from asyncdmtl.learning.couplings.ridge import Ridge
from asyncdmtl.learning.penalties import (
    Columns,
    HalfSquaredNuclear,
    Nuclear,
    Pairs,
    Penalty,
    Smoothness,
    SparsePlusLowRank,
    squared_norm,
)
from asyncdmtl.learning.quadratic import Accuracy, Quadratics, QuadraticTerms
from asyncdmtl.learning.splitting import Split, iterate, residual_gap, split

Terms = TypeVar("Terms", bound=QuadraticTerms)
Method = Callable[[QuadraticTerms, Floats, Accuracy, Floats | None], Split]

# Relative to the objective.
TOLERANCE = 1e-10

_PENALTIES: dict[type[Coupling], type[Penalty]] = {
    NuclearNorm: Nuclear,
    TaskCovariance: HalfSquaredNuclear,
    L21Norm: Columns,
    SparseLowRank: SparsePlusLowRank,
}

# The most numbers that the elimination for a graph holds at a time: 256 MB of float64.
_BLOCKS = 1 << 25

# The most numbers of the split variable that are computed at a time: 8 MB, of which acceleration keeps some
# twenty copies.
_SPLIT = 1 << 20

# The most numbers of the matrices of data sets that are solved together: 32 MB, of which there are some ten
# copies, cut into slices.
_MATRICES = 1 << 22


@dataclass(frozen=True, eq=False)
class Solution:
    """The models of `K` data sets at `L` strengths, and bounds of their errors.

    Attributes
    ----------
    W : (K, L, T, C) float64 array
    value : (K, L) float64 array
        The objective, `f(W) + λ R(W)`.
    gap : (K, L) float64 array
        A bound of the distance of `value` from the minimum: the duality gap, or for quadratic penalties and
        "clustered" the residual times `‖W‖`, which is a bound if `W` is no farther from the optimum than from
        0.
    """

    W: Floats
    value: Floats
    gap: Floats


def solve(
    coupling: Coupling,
    quadratics: QuadraticTerms,
    strengths: Sequence[float] | Floats,
    *,
    tolerance: float = TOLERANCE,
    enough: float | Floats = 0.0,
    near: Floats | None = None,
) -> Solution:
    """Solve a problem for each of its data sets and each λ.

    Parameters
    ----------
    coupling : Coupling
        The coupling; its own strength is ignored.
    quadratics : QuadraticTerms
        Those of low rank suit all couplings but "mean" and "clustered".
    strengths : (L,) sequence of float, or (K, L) float64 array
        λ, at least 0, perhaps for each data set. Those of a data set should be within a factor of ten. Of one
        place in the sequence, either all or none are 0.
    tolerance : float
        The permitted gap, relative to the objective. Rounding leaves some 1e-13.
    enough : float or (K,) float64 array
        An absolute gap that suffices in any case, perhaps for each data set.
    near : (K, L, T, C) or (K, 1, T, C) float64 array, optional
        Models from which iterations start; with 1 in place of L, the same models for all λ.

    Raises
    ------
    UsageError
        λ of one place is 0 for some data sets, but not for all.
    """
    given = np.asarray(strengths, dtype=np.float64)
    lambdas = np.broadcast_to(given, (len(quadratics.b), given.shape[-1]))
    accuracy = Accuracy(tolerance, enough)
    if not isinstance(quadratics, Quadratics):
        return _with_low_rank(coupling, quadratics, lambdas, accuracy, near)
    if isinstance(coupling, NoCoupling) or (not lambdas.any() and not isinstance(coupling, PlainMean)):
        return _certified(quadratics, _for_all(direct.apart(quadratics), lambdas), lambdas, ())
    if isinstance(coupling, PlainMean):
        W = _for_all(direct.together(quadratics), lambdas)
        residual = mean(quadratics.products(W) - quadratics.b[:, None], 2)[:, :, None] + 0.0 * W
        return Solution(W, quadratics.value(W), residual_gap(residual, W))
    if not lambdas.all():
        return _with_zeros(coupling, quadratics, lambdas, accuracy)
    if isinstance(coupling, MeanRegularised):
        return _certified(quadratics, direct.near_mean(quadratics, lambdas, accuracy), lambdas, None)
    if isinstance(coupling, Ridge):
        return _shrunk(quadratics, direct.towards_zero(quadratics, lambdas, coupling.arithmetic), lambdas)
    if isinstance(coupling, ChainLaplacian | GraphLaplacian):
        return _on_graph(coupling, quadratics, lambdas, accuracy, near)
    if isinstance(coupling, Clustered):
        pairs = quadratics.b.shape[1] * (quadratics.b.shape[1] - 1) // 2
        if not pairs:
            return _certified(quadratics, _for_all(direct.apart(quadratics), lambdas), lambdas, ())
        size = pairs * quadratics.b.shape[2]
        return _in_groups(_clustered, quadratics, lambdas, accuracy, near, size)

    if interior.suits(coupling, quadratics):
        found = interior.solve(coupling, quadratics, lambdas, accuracy)
        return Solution(found.W, found.value, found.gap)

    return _in_groups(_by_penalty(coupling), quadratics, lambdas, accuracy, near)


def _with_low_rank(
    coupling: Coupling, quadratics: QuadraticTerms, lambdas: Floats, accuracy: Accuracy, near: Floats | None
) -> Solution:
    """Solve a problem whose matrices are diagonal but for few directions, by products with them alone."""
    if isinstance(coupling, NoCoupling | Ridge) or not lambdas.any():
        found = [
            quadratics.resolvent(strength).times(quadratics.b[:, None])[:, 0]
            for strength in (0.0 * lambdas if isinstance(coupling, NoCoupling) else lambdas).T
        ]
        W = np.stack(found, axis=1)
        if isinstance(coupling, Ridge):
            return _shrunk(quadratics, W, lambdas)
        return _certified(quadratics, W, lambdas, ())
    if type(coupling) in _PENALTIES:
        return _in_groups(_by_penalty(coupling), quadratics, lambdas, accuracy, near)
    T = quadratics.b.shape[1]
    if isinstance(coupling, MeanRegularised):
        edges: Sequence[tuple[int, int, float]] = [(s, t, 1.0 / T) for s in range(T) for t in range(s + 1, T)]
    elif isinstance(coupling, ChainLaplacian | GraphLaplacian):
        edges = _edges(coupling, T)
    else:
        raise UsageError("coupling", "must not be mean or clustered with matrices of low rank", coupling)
    return _in_groups(_by_smoothness(T, edges), quadratics, lambdas, accuracy, near)


def _by_penalty(coupling: Coupling) -> Method:
    """Splitting with the penalty of a coupling."""

    def one(quadratics: QuadraticTerms, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
        penalty = _PENALTIES[type(coupling)](lambdas, coupling.arithmetic)
        return split(quadratics, penalty, _weights(penalty, quadratics), accuracy, near)

    return one


def _by_smoothness(tasks: int, edges: Sequence[tuple[int, int, float]]) -> Method:
    """Splitting with the penalty of a graph."""

    def one(quadratics: QuadraticTerms, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
        penalty = Smoothness(lambdas, *laplacian_spectrum(tasks, edges))
        scales = quadratics.scales
        rho = np.clip(np.sqrt(_middle(lambdas) / scales), 0.05, 1.6) * scales
        return split(quadratics, penalty, rho, accuracy, near, residuals=True)

    return one


def _edges(coupling: ChainLaplacian | GraphLaplacian, tasks: int) -> Sequence[tuple[int, int, float]]:
    if isinstance(coupling, GraphLaplacian):
        return coupling.edges
    return tuple((t, t + 1, 1.0) for t in range(tasks - 1))


def _weights(penalty: Penalty, quadratics: QuadraticTerms) -> Floats:
    """`ρ` (K,) of the splitting: grows with the root of λ; by trial on the school data."""
    scales = quadratics.scales
    if isinstance(penalty, HalfSquaredNuclear):
        share = _middle(penalty.strengths) / scales
    else:
        # The largest λ that has an effect: computed for a `Z` so large that the bound on it is what matters.
        largest = np.abs(quadratics.b).max(axis=(1, 2), initial=0.0)
        factor = 1e9 / np.where(largest > 0.0, largest, 1.0)
        bounds, _ = penalty.dual(quadratics.b[:, None] * factor[:, None, None, None])
        share = 9.0 * _middle(bounds) * factor
        share[largest == 0.0] = 1.0
    return np.clip(np.sqrt(share), 0.02, 1.6) * scales


def _middle(strengths: Floats) -> Floats:
    """The geometric means (K,) of the least and the largest of the strengths (K, L)."""
    middle: Floats = np.sqrt(strengths.min(axis=1)) * np.sqrt(strengths.max(axis=1))
    return middle


def _for_all(W: Floats, lambdas: Floats) -> Floats:
    return np.repeat(W[:, None], lambdas.shape[1], axis=1)


def _with_zeros(coupling: Coupling, quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy) -> Solution:
    """Solve for strengths of which some are 0 for all data sets, where no coupling acts."""
    tied = lambdas.any(axis=0)
    if not lambdas[:, tied].all():
        raise UsageError("strengths", "must be 0 for all data sets or for none", lambdas.tolist())
    relative, absolute = accuracy
    solved = solve(coupling, quadratics, lambdas[:, tied], tolerance=relative, enough=absolute)
    apart = solve(coupling, quadratics, np.zeros(1), tolerance=relative, enough=absolute)
    W, value, gap = (np.repeat(part, lambdas.shape[1], axis=1) for part in (apart.W, apart.value, apart.gap))
    W[:, tied], value[:, tied], gap[:, tied] = solved.W, solved.value, solved.gap
    return Solution(W, value, gap)


def _shrunk(quadratics: QuadraticTerms, W: Floats, lambdas: Floats) -> Solution:
    """Value and residual under squares of models."""
    products, pull = quadratics.products(W), lambdas[:, :, None, None]
    residual = products - quadratics.b[:, None] + pull * W
    value = quadratics.value(W, products) + 0.5 * lambdas * squared_norm(W)
    return Solution(W, value, residual_gap(residual, W))


def _certified(
    quadratics: QuadraticTerms, W: Floats, lambdas: Floats, edges: Sequence[tuple[int, int, float]] | None
) -> Solution:
    """Value and residual under squares of differences along edges, or, without edges, from the mean."""
    products = quadratics.products(W)
    residual = products - quadratics.b[:, None]
    value = quadratics.value(W, products)
    pull = lambdas[:, :, None, None]
    if edges is None:
        offsets = W - mean(W, 2)[:, :, None]
        residual = residual + pull * offsets
        value = value + 0.5 * lambdas * squared_norm(offsets)
    elif edges:
        for s, t, weight in edges:
            offset = W[:, :, s] - W[:, :, t]
            value = value + 0.5 * weight * lambdas * sum_of_squares(offset, axis=2)
            residual[:, :, s] += weight * pull[:, :, 0] * offset
            residual[:, :, t] -= weight * pull[:, :, 0] * offset
    return Solution(W, value, residual_gap(residual, W))


def _on_graph(
    coupling: ChainLaplacian | GraphLaplacian,
    quadratics: Quadratics,
    lambdas: Floats,
    accuracy: Accuracy,
    near: Floats | None,
) -> Solution:
    """Solve for a graph: by elimination if the eliminated graph stays sparse, else by splitting."""
    K, T, C = quadratics.b.shape
    edges = _edges(coupling, T)
    order = direct.elimination(T, edges)
    if order.blocks * K * C * C <= _BLOCKS:
        at_once = max(1, _BLOCKS // (order.blocks * K * C * C or 1))
        parts = [lambdas[:, i : i + at_once] for i in range(0, lambdas.shape[1], at_once)]
        W = np.concatenate([direct.along_edges(quadratics, part, edges, order) for part in parts], axis=1)
        return _certified(quadratics, W, lambdas, edges)

    return _in_groups(_by_smoothness(T, edges), quadratics, lambdas, accuracy, near)


def _in_groups(
    one: Callable[[Terms, Floats, Accuracy, Floats | None], Split],
    quadratics: Terms,
    lambdas: Floats,
    accuracy: Accuracy,
    near: Floats | None,
    size: int = 0,
) -> Solution:
    """Solve in groups that fit in memory; a group has some of the data sets, with all strengths."""
    K, T, C = quadratics.b.shape
    L = lambdas.shape[1]
    at_once = max(1, min(_SPLIT // max(1, (size or T * C) * L), _MATRICES // max(1, T * C * C)))
    found = []
    for first in range(0, K, at_once):
        chosen = slice(first, first + at_once)
        begin = None if near is None else near[chosen]
        if begin is not None and begin.shape[1] != L:
            begin = np.repeat(begin, L, axis=1)
        found.append(one(quadratics.of(chosen), lambdas[chosen], accuracy.of(chosen), begin))
    return Solution(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("W", "value", "gap"))
    )


def _clustered(quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
    """Solve for "clustered": split between the models and the differences of all pairs."""
    K, T, C = quadratics.b.shape
    # The pull on a pair is at most λ/T.
    largest = np.abs(quadratics.b).max(axis=(1, 2), initial=0.0)
    share = 4.0 * _middle(lambdas) / np.where(largest > 0.0, largest, 1.0)
    rho = np.clip(np.sqrt(share), 0.02, 1.6) * quadratics.scales / T
    term = _Differences(quadratics, rho)
    S = np.zeros((K, lambdas.shape[1], 1, T * (T - 1) // 2, C))
    if near is not None:
        downhill = quadratics.b[:, None] - quadratics.products(near)
        S = term.differences(near + downhill / (T * rho)[:, None, None, None])
    return iterate(term, Pairs(lambdas, T), rho, S, accuracy)


class _Differences:
    """The data term as a function of the differences (K, L, 1, pairs, C) of the models of all pairs."""

    def __init__(self, quadratics: Quadratics, rho: Floats) -> None:
        self._quadratics, self._rho = quadratics, rho
        self._tasks = quadratics.b.shape[1]
        self._first, self._second = np.triu_indices(self._tasks, 1)
        self._system = direct.MeanSystem(quadratics, rho * self._tasks)

    def prox(self, X: Floats) -> Floats:
        """The differences of the models of the prox."""
        return self.differences(self._models(X))

    def differences(self, W: Floats) -> Floats:
        """`w_s − w_t` of all pairs."""
        return (W[:, :, self._first] - W[:, :, self._second])[:, :, None]

    def certified(self, H: Floats, U: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        """The models of `U`, and the gap from the pull `ρ (S − H)` on pairs and from what is left."""
        W, quadratics = self._models(2.0 * H - S), self._quadratics
        Y = self._rho[:, None, None, None, None] * (S - H)
        residual = quadratics.products(W) - quadratics.b[:, None] + self._gathered(Y)
        cost = penalty.value(U)
        gap = cost - total(total((Y * U)[:, :, 0], 3), 2) + residual_gap(residual, W)
        return W, quadratics.value(W) + cost, gap

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Keep some of the data sets."""
        self._quadratics, self._rho = self._quadratics.of(rows), self._rho[rows]
        self._system = self._system.of(rows)

    def _gathered(self, V: Floats) -> Floats:
        """The sum (K, L, T, C) of what pairs give to each task, with the sign of its part in the pair."""
        square = np.zeros((*V.shape[:2], self._tasks, self._tasks, V.shape[-1]))
        square[:, :, self._first, self._second] = V[:, :, 0]
        square[:, :, self._second, self._first] = -V[:, :, 0]
        return total(square, 3)

    def _models(self, X: Floats) -> Floats:
        rho = self._rho[:, None, None, None]
        R = self._quadratics.b[:, None] + rho * self._gathered(X)
        W = self._system.solve(R)
        drawn = self._quadratics.products(W) + (rho * self._tasks) * (W - mean(W, 2)[:, :, None])
        return W + self._system.solve(R - drawn)
