from __future__ import annotations

import math
from itertools import combinations, product
from typing import Any

import cvxpy
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.graphs import Edge
from asyncdmtl.learning.couplings.registry import COUPLINGS, make_coupling

CONVEX = [name for name in COUPLINGS if name not in ("none", "mean")]
NORMS = ["nuclear", "l21", "sparse-low-rank"]


def a_coupling(name: str, strength: float, T: int, arithmetic: str = "fast") -> Coupling:
    """A coupling by name; "graph" is a star with weights 1, 2, … and an edge between its last two rays."""
    edges = star(T) if name == "graph" else []
    return make_coupling(name, strength, [f"t{t}" for t in range(T)], edges, arithmetic)


def star(T: int) -> list[Edge]:
    rays: list[Edge] = [("t0", f"t{t}", float(t)) for t in range(1, T)]
    return [*rays, (f"t{T - 1}", f"t{T - 2}", 0.5)] if T > 2 else rays


shapes = st.tuples(st.integers(1, 8), st.integers(1, 8))


def in_subdifferential(name: str, W: Floats, G: Floats, strength: float) -> bool:
    """Whether `G` is a subgradient of the penalty at `W`, checked by its dual norm and `⟨G, W⟩ = penalty`."""
    if name == "none":
        return bool(np.abs(G).max() < 1e-9)
    if name == "mean":
        return bool(np.ptp(W, axis=0).max() < 1e-12 and np.abs(G.sum(axis=0)).max() < 1e-9)
    if name == "ridge":
        return bool(np.abs(G - strength * W).max() < 1e-8)
    if name in ("mean-regularised", "chain"):
        gradient = W - W.mean(axis=0)
        if name == "chain":
            steps = np.diff(W, axis=0, prepend=W[:1], append=W[-1:])
            gradient = steps[:-1] - steps[1:]
        return bool(np.abs(G - strength * gradient).max() < 1e-8)
    if name == "covariance":
        # ½‖·‖_*² has the subgradients of the nuclear norm, times the norm.
        name, strength = "nuclear", strength * float(np.linalg.norm(W, "nuc"))
    if name == "clustered":
        return in_subdifferential_of_cuts(W, G, strength)
    dual = np.linalg.norm(G, 2) if name == "nuclear" else np.linalg.norm(G, axis=0).max()
    primal = np.linalg.norm(W, "nuc") if name == "nuclear" else np.linalg.norm(W, axis=0).sum()
    return bool(dual <= strength + 1e-9 and abs((G * W).sum() - strength * primal) < 1e-8)


def in_subdifferential_of_cuts(W: Floats, G: Floats, strength: float) -> bool:
    """`⟨G, W⟩ = penalty`, and `G` pulls no group of tasks from the others by more than their pairs permit.

    For one feature this is sufficient (the largest flow is the smallest cut); for more it is necessary.
    """
    T = len(W)
    groups = np.array(list(product([0.0, 1.0], repeat=T)))
    held = strength / T * groups.sum(axis=1) * (T - groups.sum(axis=1))
    pairs = sum(float(np.linalg.norm(v - w)) for v, w in combinations(W, 2))
    within = bool((np.linalg.norm(groups @ G, axis=1) <= held + 1e-8).all())
    return within and abs((G * W).sum() - strength / T * pairs) < 1e-8


@pytest.mark.parametrize("name", [name for name in COUPLINGS if name not in ("sparse-low-rank", "graph")])
@given(shape=shapes, strength=st.floats(0, 3), step=st.floats(0.1, 2), seed=st.integers(0, 999))
@example(shape=(1, 1), strength=0.0, step=1.0, seed=0)
@example(shape=(8, 3), strength=100.0, step=1.0, seed=0)
@example(shape=(8, 1), strength=1.0, step=1.0, seed=0)
@example(shape=(5, 4), strength=5e-324, step=1.0, seed=0)
@settings(deadline=None)
def test_prox_meets_its_optimality_condition(
    name: str, shape: tuple[int, int], strength: float, step: float, seed: int
) -> None:
    W = np.random.default_rng(seed).standard_normal(shape)
    before = W.copy()
    U = make_coupling(name, strength).prox(W, step)
    assert in_subdifferential(name, U, (W - U) / step, strength)
    assert (before == W).all()


@pytest.mark.parametrize("name", ["nuclear", "l21"])
@given(shape=shapes, seed=st.integers(0, 999))
def test_penalty_is_the_norm_times_its_strength(name: str, shape: tuple[int, int], seed: int) -> None:
    W = np.random.default_rng(seed).standard_normal(shape)
    norm = np.linalg.norm(W, "nuc") if name == "nuclear" else sum(np.sqrt((W**2).sum(axis=0)))
    assert make_coupling(name, 0.7).penalty(W) == pytest.approx(0.7 * norm)


def test_couplings_repeat_to_the_bit() -> None:
    W = np.random.default_rng(5).standard_normal((7, 12))
    for name in COUPLINGS:
        coupling = a_coupling(name, 0.4, 7, "reproducible")
        one, other = (coupling.prox(W, 0.9) for _ in range(2))
        assert one.tobytes() == other.tobytes()
        assert coupling.penalty(one) == coupling.penalty(other)


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_step_needs_no_more_than_the_mixed_aggregates(name: str) -> None:
    rng = np.random.default_rng(4)
    Z, coupling = rng.standard_normal((4, 5)), a_coupling(name, 0.3, 4)
    mixing = coupling.mixing(4)
    spread = np.linalg.pinv(mixing) @ (mixing @ Z)
    assert coupling.prox(-spread, 0.5) == pytest.approx(coupling.prox(-Z, 0.5))
    assert len(mixing) == (1 if name == "mean" else 4)


@pytest.mark.parametrize("name", COUPLINGS)
def test_zero_stays_zero(name: str) -> None:
    coupling = a_coupling(name, 0.0, 3)
    assert (coupling.prox(np.zeros((3, 5)), 1.0) == 0).all()
    assert coupling.penalty(np.zeros((3, 5))) == 0


def test_unknown_coupling_lists_the_known() -> None:
    with pytest.raises(
        UsageError,
        match=r"coupling must be one of none, ridge, nuclear, l21, .*, clustered, got 'trace'",
    ):
        make_coupling("trace", 1.0)


def test_every_coupling_says_what_it_is() -> None:
    for made in COUPLINGS.values():
        assert made.summary
        assert made.__doc__
        assert "R(W)" in made.__doc__


def penalty_in_cvxpy(name: str, U: Any, T: int) -> Any:
    """`R(U)`, from its definition."""
    pairs = list(combinations(range(T), 2))
    match name:
        case "nuclear":
            return cvxpy.normNuc(U)
        case "l21":
            return cvxpy.sum(cvxpy.norm(U, 2, axis=0))
        case "ridge":
            return cvxpy.sum_squares(U) / 2.0
        case "mean-regularised":
            return cvxpy.sum_squares(U - np.full((T, T), 1.0 / T) @ U) / 2.0
        case "chain":
            return cvxpy.sum_squares(U[1:] - U[:-1]) / 2.0
        case "graph":
            edges = [(int(s[1:]), int(t[1:]), a) for s, t, a in star(T)]
            return sum(a * cvxpy.sum_squares(U[s] - U[t]) for s, t, a in edges) / 2.0
        case "covariance":
            return cvxpy.square(cvxpy.normNuc(U)) / 2.0
        case "sparse-low-rank":
            P = cvxpy.Variable(U.shape)
            return cvxpy.sum(cvxpy.abs(P)) / math.sqrt(max(U.shape)) + cvxpy.normNuc(U - P)
        case "clustered":
            return sum(cvxpy.norm(U[s] - U[t], 2) for s, t in pairs) / T
    raise AssertionError(name)


def least(objective: Any) -> float:
    tight = {f"tol_{what}": 1e-9 for what in ("gap_abs", "gap_rel", "feas")}
    value: float = cvxpy.Problem(cvxpy.Minimize(objective)).solve(solver=cvxpy.CLARABEL, **tight)
    return value


@pytest.mark.parametrize(("shape", "strength"), [((4, 6), 0.3), ((6, 3), 1.2), ((5, 5), 0.02)])
@pytest.mark.parametrize("name", CONVEX)
def test_prox_and_penalty_agree_with_another_solver(
    name: str, shape: tuple[int, int], strength: float
) -> None:
    rng = np.random.default_rng(6)
    W, step, T = rng.standard_normal(shape), 0.7, shape[0]
    W[T - 1] = W[0] + 0.1 * W[T - 1]
    coupling = a_coupling(name, strength, T)
    U = coupling.prox(W, step)
    known = strength * least(penalty_in_cvxpy(name, cvxpy.Constant(U), T))
    assert coupling.penalty(U) == pytest.approx(known, rel=2e-6 if name == "sparse-low-rank" else 1e-8)
    variable = cvxpy.Variable(shape)
    optimum = least(
        cvxpy.sum_squares(variable - W) / 2.0 + step * strength * penalty_in_cvxpy(name, variable, T)
    )
    reached = 0.5 * float(((U - W) ** 2).sum()) + step * known
    assert reached == pytest.approx(optimum, rel=1e-7)
    assert pytest.approx(variable.value, abs=1e-4) == U


@pytest.mark.parametrize("name", COUPLINGS)
@given(shape=shapes, strength=st.floats(1e-3, 10), step=st.floats(0.1, 2), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_prox_is_firmly_non_expansive(
    name: str, shape: tuple[int, int], strength: float, step: float, seed: int
) -> None:
    V, W = np.random.default_rng(seed).standard_normal((2, *shape))
    if name == "graph" and shape[0] == 1:
        return
    coupling = a_coupling(name, strength, shape[0])
    difference = coupling.prox(V, step) - coupling.prox(W, step)
    assert float((difference**2).sum()) <= float((difference * (V - W)).sum()) + 1e-8


def test_edges_are_for_graphs_only() -> None:
    with pytest.raises(UsageError, match="edges are for the coupling graph only, got 'chain'"):
        make_coupling("chain", 1.0, ["a", "b"], [("a", "b", 1.0)])
    with pytest.raises(UsageError, match="unknown"):
        make_coupling("graph", 1.0, None, [("a", "b", 1.0)])


@pytest.mark.parametrize("shape", [(4, 7), (6, 3)])
@pytest.mark.parametrize("name", NORMS)
def test_from_the_critical_strength_on_models_stay_zero(name: str, shape: tuple[int, int]) -> None:
    Z = np.random.default_rng(10).standard_normal(shape)
    Z[0, 0] += 3.0
    critical = make_coupling(name, 0.0).critical_strength(Z, 1.0)
    assert np.abs(make_coupling(name, 1.0001 * critical).prox(-0.3 * Z, 0.3)).max() < 1e-8
    assert np.abs(make_coupling(name, 0.99 * critical).prox(-0.3 * Z, 0.3)).max() > 1e-4


def solved(coupling: Coupling, A: Floats, B: Floats) -> Floats:
    """`argmin_W Σ_t (½ w_tᵀ A_t w_t − b_tᵀ w_t) + λ R(W)`, by proximal gradient with `‖A_t‖ ≤ 1`."""
    W = np.zeros_like(B)
    for _ in range(500):
        W = coupling.prox(W - (np.einsum("tfg,tg->tf", A, W) - B), 1.0)
    return W


@pytest.mark.parametrize("name", ["covariance", "mean-regularised", "chain", "graph", "clustered"])
def test_where_a_path_starts_the_penalty_rules(name: str) -> None:
    rng = np.random.default_rng(11)
    T, F = 5, 4
    roots = rng.standard_normal((T, F, F))
    A = np.array([root @ root.T / np.linalg.norm(root, 2) ** 2 for root in roots])
    B = rng.standard_normal((T, F))
    start = a_coupling(name, 0.0, T).critical_strength(-B, 1.0)
    W = solved(a_coupling(name, start, T), A, B)
    if name == "covariance":
        assert np.linalg.norm(W, "nuc") <= 0.1 * np.linalg.norm(B, 2)
    else:
        free = B - B.mean(axis=0)
        assert np.linalg.norm(W - W.mean(axis=0)) <= 0.15 * np.linalg.norm(free)
        if name == "clustered":
            assert np.ptp(W, axis=0).max() < 1e-8
    assert np.linalg.norm(solved(a_coupling(name, 1e-2 * start, T), A, B)) > np.linalg.norm(W)


@pytest.mark.parametrize("name", COUPLINGS)
def test_critical_strength_does_not_depend_on_strength_and_is_zero_without_a_gradient(name: str) -> None:
    Z = np.random.default_rng(12).standard_normal((4, 5))
    critical, same = (a_coupling(name, strength, 4).critical_strength(Z, 2.0) for strength in (0.0, 0.7))
    assert critical == same
    assert (critical == 0.0) == (name in ("none", "mean"))
    assert a_coupling(name, 1.0, 4).critical_strength(0.0 * Z, 2.0) == 0.0
