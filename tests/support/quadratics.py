"""Coupled quadratic problems, and their minima by an independent solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.registry import make_coupling
from asyncdmtl.learning.quadratic import LowRankQuadratics, Quadratics
from asyncdmtl.learning.second_derivatives import LowRank, Whole

EDGES = ((0, 1, 1.0), (0, 2, 2.0), (1, 3, 0.5), (2, 3, 1.5))
SQUARES = ("ridge", "mean-regularised", "chain", "graph")
NORMS = ("nuclear", "l21", "covariance", "sparse-low-rank", "clustered")


def make_quadratics(seed: int = 0, *, K: int = 1, T: int = 4, C: int = 3, rows: int = 8) -> Quadratics:
    """Least squares of `T` tasks that resemble each other, from so many rows each."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(K, T, rows, C))
    W = rng.normal(size=(K, T, C)) + 1.0
    y = np.einsum("ktnc,ktc->ktn", X, W) + rng.normal(size=(K, T, rows))
    return Quadratics(
        np.einsum("ktni,ktnj->ktij", X, X) / rows,
        np.einsum("ktni,ktn->kti", X, y) / rows,
        (y**2).sum(axis=2) / rows,
    )


def make_low_rank(seed: int = 0, *, K: int = 1, T: int = 4, C: int = 6, r: int = 2) -> tuple[LowRank, Whole]:
    """Matrices that are diagonal but for few directions, in both forms."""
    rng = np.random.default_rng(seed)
    diagonal, P = rng.uniform(1.0, 2.0, size=(K, T, C)), rng.normal(size=(K, T, C, r))
    S = np.einsum("r,kt->ktr", np.linspace(-0.05, 1.0, r), np.ones((K, T)))[..., None] * np.eye(r)
    A = diagonal[..., None] * np.eye(C) + P @ S @ np.swapaxes(P, 2, 3)
    return LowRank(diagonal, P, S), Whole(0.5 * (A + np.swapaxes(A, 2, 3)))


def make_low_rank_quadratics() -> tuple[LowRankQuadratics, Quadratics]:
    """A problem with matrices of low rank, and the same one with whole matrices."""
    low, whole = make_low_rank()
    b = np.random.default_rng(1).normal(size=low.diagonal.shape) + 1.0
    c = (b * np.linalg.solve(whole.A, b[..., None])[..., 0]).sum(axis=2)
    return LowRankQuadratics(low, b, c), Quadratics(whole.A, b, c)


def coupling_of(name: str, strength: float, tasks: int) -> Coupling:
    """A coupling of tasks "0", "1", …"""
    names = [str(t) for t in range(tasks)]
    edges = [(str(s), str(t), a) for s, t, a in EDGES] if name == "graph" else ()
    return make_coupling(name, strength, names, edges)


def least(name: str, quadratics: Quadratics, strength: float) -> float:
    """The least `f(W) + λ R(W)` of the first data set, by CVXPY and Clarabel."""
    A, b, c = quadratics.A[0], quadratics.b[0], quadratics.c[0]
    T, C = b.shape
    W = cp.Variable((T, C))
    value = 0.5 * float(c.sum())
    for t in range(T):
        squares, V = np.linalg.eigh(A[t])
        root = (V * np.sqrt(np.maximum(squares, 0.0))).T
        value += 0.5 * cp.sum_squares(root @ W[t]) - b[t] @ W[t]
    problem = cp.Problem(cp.Minimize(value + strength * _penalty(name, W)), _constraints(name, W))
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value)


def _constraints(name: str, W: cp.Variable) -> list[cp.Constraint]:
    return [W[t] == W[0] for t in range(1, W.shape[0])] if name == "mean" else []


def _penalty(name: str, W: cp.Variable) -> cp.Expression:
    T, C = W.shape
    pairs = [(s, t) for s in range(T) for t in range(s + 1, T)]
    if name == "nuclear":
        return cp.normNuc(W)
    if name == "covariance":
        return 0.5 * cp.square(cp.normNuc(W))
    if name == "l21":
        return cp.sum(cp.norm(W, 2, axis=0))
    if name == "ridge":
        return 0.5 * cp.sum_squares(W)
    if name == "mean-regularised":
        return 0.5 * sum(cp.sum_squares(W[t] - cp.sum(W, axis=0) / T) for t in range(T))
    if name == "chain":
        return 0.5 * sum(cp.sum_squares(W[t + 1] - W[t]) for t in range(T - 1))
    if name == "graph":
        return 0.5 * sum(a * cp.sum_squares(W[s] - W[t]) for s, t, a in EDGES)
    if name == "clustered":
        return sum(cp.norm(W[s] - W[t]) for s, t in pairs) / T
    if name == "sparse-low-rank":
        P = cp.Variable((T, C))
        return cp.sum(cp.abs(P)) / np.sqrt(max(T, C)) + cp.normNuc(W - P)
    return cp.Constant(0.0)
