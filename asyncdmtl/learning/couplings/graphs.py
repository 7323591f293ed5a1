"""Couplings by a graph of tasks: models of neighbouring tasks are near each other.

The Laplacian of weighted edges is `L = diag(A·1) − A` with the weights `a_st` in the symmetric `A` (T, T), so
that `tr(Wᵀ L W) = Σ_{(s,t)} a_st ‖w_s − w_t‖²`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.spectral import eigh
from asyncdmtl.arithmetic.sums import sum_of_all, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.base import Coupling, quadratic_critical_strength

Edge = tuple[str, str, float]


class ChainLaplacian(Coupling):
    """`R(W) = ½ Σ_t ‖w_{t+1} − w_t‖² = ½ tr(Wᵀ L W)`, `L` the Laplacian of the chain of tasks in their order.

    It suits tasks in a sequence: ages, years, places along a road. The prox solves
    `(I + step·λ·L)·U = W`. Reference: Evgeniou, Micchelli, Pontil, "Learning Multiple Tasks with Kernel
    Methods", JMLR 6, 2005.
    """

    summary = "models of neighbouring tasks are near each other (graph Laplacian of a chain; linear)"
    columnwise = True

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_t ‖w_{t+1} − w_t‖²`."""
        return 0.5 * self.strength * sum_of_all(np.diff(W, axis=0) ** 2)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """The solution of a tridiagonal (T, T) system."""
        return smooth_along_chain(W, step * self.strength)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness divided by 2 − 2 cos(π/T), the least positive eigenvalue of `L`."""
        T = len(Z)
        if T == 1:
            return 0.0
        # 2 − 2 cos x by its series, up to x = π/2: the cosine of the C library depends on the machine.
        x = math.pi / T
        least = term = x * x
        for k in range(1, 12):
            term *= -x * x / ((2 * k + 1) * (2 * k + 2))
            least += term
        return quadratic_critical_strength(Z, smoothness) / least


@dataclass(frozen=True)
class GraphLaplacian(Coupling):
    """`R(W) = ½ Σ_{(s,t)} a_st ‖w_s − w_t‖² = ½ tr(Wᵀ L W)`, `L` the Laplacian of a weighted graph of tasks.

    It suits tasks whose similarities are known; `edges` are `(s, t, a_st)` by the tasks' rows. The prox
    solves `(I + step·λ·L)·U = W`. Reference: Evgeniou, Micchelli, Pontil, "Learning Multiple Tasks with
    Kernel Methods", JMLR 6, 2005, section 3.1.
    """

    summary = "models of neighbouring tasks are near each other (graph Laplacian of given edges; linear)"
    columnwise = True

    tasks: int
    edges: tuple[tuple[int, int, float], ...]

    def penalty(self, W: Floats) -> float:
        """`½ λ Σ_{(s,t)} a_st ‖w_s − w_t‖²`."""
        pulls = (a * sum_of_all((W[s] - W[t]) ** 2) for s, t, a in self.edges)
        return 0.5 * self.strength * math.fsum(pulls)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Two products of (T, T) and (T, features), with the eigenvectors of `L`, which are computed once."""
        values, Q = self._spectrum
        shrunk = matmul(Q.T, W.astype(np.float64, copy=False))
        shrunk /= (1.0 + step * self.strength * values)[:, None]
        return matmul(Q, shrunk)

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """10·smoothness divided by the least positive eigenvalue of `L`, as the penalty is a square."""
        values, _ = self._spectrum
        least = values[values > 1e-10 * values[-1]].min(initial=math.inf)
        return quadratic_critical_strength(Z, smoothness) / float(least)

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        return laplacian_spectrum(self.tasks, self.edges)


def edge_rows(tasks: Sequence[str], edges: Sequence[Edge]) -> tuple[tuple[int, int, float], ...]:
    """Edges `(task, task, weight)` as `(s, t, a_st)` with rows `s < t` of `tasks`, ascending.

    Raises
    ------
    UsageError
        There is no edge, an edge names an unknown task or connects a task to itself, a pair occurs twice (in
        either order), a weight is not finite and above 0, or the sum of the weights is not finite.
    """
    if not edges:
        raise UsageError("edges", "must be given for the coupling graph", list(edges))
    row = {task: t for t, task in enumerate(tasks)}
    found: dict[tuple[int, int], float] = {}
    for edge in edges:
        one, other, weight = edge
        if unknown := [task for task in (one, other) if task not in row]:
            raise UsageError("edges", "must be between known tasks; unknown", unknown)
        if one == other:
            raise UsageError("edges", "must be between two different tasks", edge)
        if not 0.0 < weight < math.inf:
            raise UsageError("edges", "must have finite weights above 0", edge)
        pair = (min(row[one], row[other]), max(row[one], row[other]))
        if pair in found:
            raise UsageError("edges", "must name each pair of tasks once; twice", edge)
        found[pair] = float(weight)
    # Twice the sum, as the norm of L is at most twice the largest degree.
    if not 2.0 * sum(found.values()) < math.inf:
        raise UsageError("edges", "must have weights with a finite sum", sum(found.values()))
    return tuple((s, t, weight) for (s, t), weight in sorted(found.items()))


def laplacian_spectrum(tasks: int, edges: Sequence[tuple[int, int, float]]) -> tuple[Floats, Floats]:
    """Eigenvalues (T,), ascending and at least 0, and eigenvectors (T, T), by columns, of the Laplacian."""
    A = np.zeros((tasks, tasks))
    for s, t, weight in edges:
        A[s, t] = A[t, s] = weight
    values, Q = eigh(np.diag(total(A)) - A)
    # Each connected part has one eigenvalue that is 0, which is computed with a rounding error.
    rounding = tasks * float(np.finfo(np.float64).eps) * values[-1]
    return np.where(values > rounding, values, 0.0), Q


def smooth_along_chain(W: Floats, mu: float) -> Floats:
    """The solution `U` of the tridiagonal system `(I + μ L)·U = W` for the chain of all tasks in order."""
    T = len(W)
    if T == 1:
        return W
    solved = W.astype(np.float64)
    # The factors of I + μ L = R D Rᵀ: D, and the subdiagonal of R.
    pivots, besides = [1.0 + mu], [0.0]
    for t in range(1, T):
        besides.append(-mu / pivots[-1])
        pivots.append(1.0 + (mu if t == T - 1 else 2.0 * mu) + mu * besides[-1])
        solved[t] -= besides[t] * solved[t - 1]
    solved /= np.array(pivots)[:, None]
    for t in reversed(range(T - 1)):
        solved[t] -= besides[t + 1] * solved[t + 1]
    return solved
