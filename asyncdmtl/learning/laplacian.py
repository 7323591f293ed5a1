"""Laplacians of graphs of tasks: who is whose neighbour, and what that does to models.

The Laplacian of weighted edges is `L = diag(A·1) − A` with the weights `a_st` in the symmetric `A` (T, T), so
that `tr(Wᵀ L W) = Σ_{(s,t)} a_st ‖w_s − w_t‖²`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg import solveh_banded

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError

Edge = tuple[str, str, float]


def edge_rows(tasks: Sequence[str], edges: Sequence[Edge]) -> tuple[tuple[int, int, float], ...]:
    """Edges `(task, task, weight)` as `(s, t, a_st)` with rows `s < t` of `tasks`, ascending.

    Raises
    ------
    UsageError
        No edge, an unknown task, a task with itself, a pair twice (in either order), a weight that is not
        finite and above 0, or weights whose sum is not finite.
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
    # Twice: L has norm up to twice the largest degree.
    if not 2.0 * sum(found.values()) < math.inf:
        raise UsageError("edges", "must have weights with a finite sum", sum(found.values()))
    return tuple((s, t, weight) for (s, t), weight in sorted(found.items()))


def spectrum(tasks: int, edges: Sequence[tuple[int, int, float]]) -> tuple[Floats, Floats]:
    """Eigenvalues (T,), ascending and at least 0, and eigenvectors (T, T), by columns, of the Laplacian."""
    A = np.zeros((tasks, tasks))
    for s, t, weight in edges:
        A[s, t] = A[t, s] = weight
    values, Q = np.linalg.eigh(np.diag(A.sum(axis=1)) - A)
    return np.maximum(values, 0.0), Q


def smooth_along_chain(W: Floats, mu: float) -> Floats:
    """The `U` with `(I + μ L)·U = W` for the chain of all tasks in their order: three diagonals."""
    T = len(W)
    if T == 1:
        return W
    diagonals = np.full((2, T), -mu)
    diagonals[1] = 1.0 + 2.0 * mu
    diagonals[1, [0, -1]] = 1.0 + mu
    return np.asarray(solveh_banded(diagonals, W), dtype=np.float64)
