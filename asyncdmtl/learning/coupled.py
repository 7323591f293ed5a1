"""Solves coupled quadratic problems (`quadratic`) by a method for each coupling, with an error bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arithmetic.sums import mean, sum_of_squares, total
from asyncdmtl.arrays import Floats
from asyncdmtl.learning import direct
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
from asyncdmtl.learning.quadratic import Accuracy, Quadratics
from asyncdmtl.learning.splitting import Split, iterate, residual_gap, split

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


# The fields of `Solution`.
_PARTS = ("W", "value", "gap")


def solve(
    coupling: Coupling,
    quadratics: Quadratics,
    strengths: Sequence[float] | Floats,
    *,
    tolerance: float = TOLERANCE,
    enough: float = 0.0,
    near: Floats | None = None,
) -> Solution:
    """Solve a problem for each of its data sets and each λ.

    Parameters
    ----------
    coupling : Coupling
        The coupling; its own strength is ignored.
    quadratics : Quadratics
    strengths : (L,) sequence of float
        λ, at least 0; they should be within a factor of ten.
    tolerance : float
        The permitted gap, relative to the objective. Rounding leaves some 1e-13.
    enough : float
        An absolute gap that suffices in any case.
    near : (K, L, T, C) or (K, 1, T, C) float64 array, optional
        Models from which iterations start; with 1 in place of L, the same models for all λ.
    """
    lambdas = np.asarray(strengths, dtype=np.float64)
    accuracy = Accuracy(tolerance, enough)
    if isinstance(coupling, NoCoupling) or (not lambdas.any() and not isinstance(coupling, PlainMean)):
        return _certified(quadratics, _for_all(direct.apart(quadratics), len(lambdas)), lambdas, ())
    if isinstance(coupling, PlainMean):
        W = _for_all(direct.together(quadratics), len(lambdas))
        residual = mean(quadratics.products(W) - quadratics.b[:, None], 2)[:, :, None] + 0.0 * W
        return Solution(W, quadratics.value(W), residual_gap(residual, W))
    if not lambdas.all():
        return _with_zeros(coupling, quadratics, lambdas, accuracy, near)
    if isinstance(coupling, MeanRegularised):
        return _certified(quadratics, direct.near_mean(quadratics, lambdas, accuracy), lambdas, None)
    if isinstance(coupling, Ridge):
        return _ridges(quadratics, lambdas)
    if isinstance(coupling, ChainLaplacian | GraphLaplacian):
        return _on_graph(coupling, quadratics, lambdas, accuracy, near)
    if isinstance(coupling, Clustered):
        pairs = quadratics.b.shape[1] * (quadratics.b.shape[1] - 1) // 2
        if not pairs:
            return _certified(quadratics, _for_all(direct.apart(quadratics), len(lambdas)), lambdas, ())
        size = pairs * quadratics.b.shape[2]
        return _in_groups(_clustered, quadratics, lambdas, accuracy, near, size)
    penalty = _PENALTIES[type(coupling)]

    def one(quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
        rho = _weight(penalty, quadratics, lambdas)
        return split(quadratics, penalty(lambdas), rho, accuracy, near)

    return _in_groups(one, quadratics, lambdas, accuracy, near)


def _weight(penalty: type[Penalty], quadratics: Quadratics, lambdas: Floats) -> float:
    """`ρ` of the splitting: grows with the root of λ; by trial on the school data."""
    largest = float(np.abs(quadratics.b).max(initial=0.0))
    if largest == 0.0:
        return quadratics.scale
    ones = penalty(np.ones(1))
    middle = float(np.sqrt(lambdas.min()) * np.sqrt(lambdas.max()))
    if penalty is HalfSquaredNuclear:
        share = middle / quadratics.scale
    else:
        # Computed for a `Z` so large that the bound on it is what matters.
        factor = 1e9 / largest
        bounds, _ = ones.dual(quadratics.b[:, None] * factor)
        share = 9.0 * middle * float(mean(bounds.reshape(-1))) * factor
    return float(np.clip(np.sqrt(share), 0.02, 1.6)) * quadratics.scale


def _for_all(W: Floats, strengths: int) -> Floats:
    return np.repeat(W[:, None], strengths, axis=1)


def _with_zeros(
    coupling: Coupling, quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy, near: Floats | None
) -> Solution:
    """Solve for strengths of which some are 0, where no coupling acts."""
    tied = lambdas > 0.0
    solved = solve(coupling, quadratics, lambdas[tied], tolerance=accuracy.relative, enough=accuracy.absolute)
    apart = solve(coupling, quadratics, np.zeros(1), tolerance=accuracy.relative, enough=accuracy.absolute)
    W, value, gap = (np.repeat(part, len(lambdas), axis=1) for part in (apart.W, apart.value, apart.gap))
    W[:, tied], value[:, tied], gap[:, tied] = solved.W, solved.value, solved.gap
    return Solution(W, value, gap)


def _ridges(quadratics: Quadratics, lambdas: Floats) -> Solution:
    """Solve each task alone, with each λ on the diagonal."""
    eye, found = np.eye(quadratics.b.shape[2]), []
    for strength in lambdas.tolist():
        own = Quadratics(quadratics.A + strength * eye, quadratics.b, quadratics.c)
        found.append(_certified(own, _for_all(direct.apart(own), 1), np.zeros(1), ()))
    return Solution(*(np.concatenate([getattr(one, name) for one in found], axis=1) for name in _PARTS))


def _certified(
    quadratics: Quadratics, W: Floats, lambdas: Floats, edges: Sequence[tuple[int, int, float]] | None
) -> Solution:
    """Value and residual under squares of differences along edges, or, without edges, from the mean."""
    products = quadratics.products(W)
    residual = products - quadratics.b[:, None]
    value = quadratics.value(W, products)
    pull = lambdas[:, None, None]
    if edges is None:
        offsets = W - mean(W, 2)[:, :, None]
        residual = residual + pull * offsets
        value = value + 0.5 * lambdas * squared_norm(offsets)
    elif edges:
        for s, t, weight in edges:
            offset = W[:, :, s] - W[:, :, t]
            value = value + 0.5 * weight * lambdas * sum_of_squares(offset, axis=2)
            residual[:, :, s] += weight * pull[:, 0] * offset
            residual[:, :, t] -= weight * pull[:, 0] * offset
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
    if isinstance(coupling, GraphLaplacian):
        edges = coupling.edges
    else:
        edges = tuple((t, t + 1, 1.0) for t in range(T - 1))
    order = direct.elimination(T, edges)
    if order.blocks * K * C * C <= _BLOCKS:
        at_once = max(1, _BLOCKS // (order.blocks * K * C * C or 1))
        parts = [lambdas[i : i + at_once] for i in range(0, len(lambdas), at_once)]
        W = np.concatenate([direct.along_edges(quadratics, part, edges, order) for part in parts], axis=1)
        return _certified(quadratics, W, lambdas, edges)

    def one(quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
        penalty = Smoothness(lambdas, *laplacian_spectrum(T, edges))
        middle = float(np.sqrt(lambdas.min()) * np.sqrt(lambdas.max()))
        rho = float(np.clip(np.sqrt(middle / quadratics.scale), 0.05, 1.6)) * quadratics.scale
        return split(quadratics, penalty, rho, accuracy, near, residuals=True)

    return _in_groups(one, quadratics, lambdas, accuracy, near)


def _in_groups(
    one: Callable[[Quadratics, Floats, Accuracy, Floats | None], Split],
    quadratics: Quadratics,
    lambdas: Floats,
    accuracy: Accuracy,
    near: Floats | None,
    size: int = 0,
) -> Solution:
    """Solve in groups that fit in memory; a group has some of the data sets, with all strengths."""
    K, T, C = quadratics.b.shape
    at_once = max(1, _SPLIT // max(1, (size or T * C) * len(lambdas)))
    found = []
    for first in range(0, K, at_once):
        chosen = slice(first, first + at_once)
        begin = None if near is None else near[chosen]
        if begin is not None and begin.shape[1] != len(lambdas):
            begin = np.repeat(begin, len(lambdas), axis=1)
        found.append(one(quadratics.of(chosen), lambdas, accuracy, begin))
    return Solution(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("W", "value", "gap"))
    )


def _clustered(quadratics: Quadratics, lambdas: Floats, accuracy: Accuracy, near: Floats | None) -> Split:
    """Solve for "clustered": split between the models and the differences of all pairs."""
    K, T, C = quadratics.b.shape
    first, second = np.triu_indices(T, 1)
    # The pull on a pair is at most λ/T.
    middle = float(np.sqrt(lambdas.min()) * np.sqrt(lambdas.max()))
    largest = float(np.abs(quadratics.b).max(initial=0.0)) or 1.0
    rho = float(np.clip(np.sqrt(4.0 * middle / largest), 0.02, 1.6)) * quadratics.scale / T
    system = direct.MeanSystem(quadratics, rho * T)

    def differences(W: Floats) -> Floats:
        return (W[:, :, first] - W[:, :, second])[:, :, None]

    def gathered(V: Floats) -> Floats:
        square = np.zeros((*V.shape[:2], T, T, C))
        square[:, :, first, second] = V[:, :, 0]
        square[:, :, second, first] = -V[:, :, 0]
        return total(square, 3)

    def models(X: Floats) -> Floats:
        R = quadratics.b[:, None] + rho * gathered(X)
        W = system.solve(R)
        drawn = quadratics.products(W) + (rho * T) * (W - mean(W, 2)[:, :, None])
        return W + system.solve(R - drawn)

    def certify(H: Floats, S: Floats, penalty: Penalty) -> tuple[Floats, Floats, Floats]:
        W = models(2.0 * H - S)
        V, Y = differences(W), rho * (S - H)
        residual = quadratics.products(W) - quadratics.b[:, None] + gathered(Y)
        cost = penalty.value(V)
        gap = cost - total(total((Y * V)[:, :, 0], 3), 2) + residual_gap(residual, W)
        return W, quadratics.value(W) + cost, gap

    S = np.zeros((K, len(lambdas), 1, len(first), C))
    if near is not None:
        S = differences(near + (quadratics.b[:, None] - quadratics.products(near)) / (rho * T))
    return iterate(lambda X: differences(models(X)), Pairs(lambdas, T), rho, S, accuracy, certify)
