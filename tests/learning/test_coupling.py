from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.coupling import COUPLINGS, make_coupling

Floats = NDArray[np.float64]

shapes = st.tuples(st.integers(1, 8), st.integers(1, 8))


def in_subdifferential(name: str, W: Floats, G: Floats, strength: float) -> bool:
    """Whether `G` is a subgradient of the penalty at `W`, checked by its dual norm and `⟨G, W⟩ = penalty`."""
    if name == "none":
        return bool(np.abs(G).max() < 1e-9)
    if name == "mean":
        return bool(np.ptp(W, axis=0).max() < 1e-12 and np.abs(G.sum(axis=0)).max() < 1e-9)
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
    """`⟨G, W⟩ = penalty`, and no group of tasks is pulled from the others by more than the pairs can hold.

    Complete for one feature (the largest flow is the smallest cut), and necessary for more.
    """
    T = len(W)
    groups = np.array(list(product([0.0, 1.0], repeat=T)))
    held = strength / T * groups.sum(axis=1) * (T - groups.sum(axis=1))
    pairs = sum(float(np.linalg.norm(v - w)) for v, w in combinations(W, 2))
    within = bool((np.linalg.norm(groups @ G, axis=1) <= held + 1e-8).all())
    return within and abs((G * W).sum() - strength / T * pairs) < 1e-8


@pytest.mark.parametrize("name", [name for name in COUPLINGS if name != "sparse-low-rank"])
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


def test_linear_penalties_are_those_of_their_formulas() -> None:
    W = np.random.default_rng(3).standard_normal((4, 5))
    mean = 0.5 * 0.7 * sum(((w - W.mean(axis=0)) ** 2).sum() for w in W)
    assert make_coupling("mean-regularised", 0.7).penalty(W) == pytest.approx(mean)
    chain = 0.5 * 0.7 * sum(((W[t + 1] - W[t]) ** 2).sum() for t in range(3))
    assert make_coupling("chain", 0.7).penalty(W) == pytest.approx(chain)


def test_covariance_penalty_is_the_least_over_covariances_of_trace_one() -> None:
    rng = np.random.default_rng(3)
    W = rng.standard_normal((4, 6))
    penalty = make_coupling("covariance", 0.7).penalty(W)
    values, vectors = np.linalg.eigh(W @ W.T)
    best = (vectors * np.sqrt(values)) @ vectors.T
    others = [A @ A.T for A in rng.standard_normal((50, 4, 4))]
    traces = [
        0.5 * 0.7 * np.trace(W.T @ np.linalg.solve(omega / np.trace(omega), W)) for omega in [best, *others]
    ]
    assert penalty == pytest.approx(traces[0])
    assert penalty <= min(traces) * (1 + 1e-12)


def test_clustered_penalty_is_the_sum_over_pairs() -> None:
    W = np.random.default_rng(3).standard_normal((4, 6))
    pairs = sum(float(np.linalg.norm(v - w)) for v, w in combinations(W, 2))
    assert make_coupling("clustered", 0.7).penalty(W) == pytest.approx(0.7 * pairs / 4)
    assert make_coupling("clustered", 0.7).penalty(W[:1]) == 0.0


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    strength=st.floats(0, 3),
    step=st.floats(0.1, 2),
    seed=st.integers(0, 999),
)
@example(shape=(5, 6), strength=5e-324, step=1.0, seed=0)
@example(shape=(1, 6), strength=0.3, step=1.0, seed=0)
@settings(max_examples=30, deadline=None)
def test_sparse_low_rank_prox_meets_its_optimality_condition(
    shape: tuple[int, int], strength: float, step: float, seed: int
) -> None:
    W = np.random.default_rng(seed).standard_normal(shape)
    before = W.copy()
    coupling = make_coupling("sparse-low-rank", strength)
    U = coupling.prox(W, step)
    G = (W - U) / step
    assert (before == W).all()
    # Both dual norms, and then ⟨G, U⟩ ≤ λR(U) ≤ the penalty of a split: all equal, to what that is known.
    assert np.linalg.norm(G, 2) <= strength + 1e-8
    assert np.abs(G).max() <= strength / np.sqrt(max(shape)) + 1e-8
    assert abs(coupling.penalty(U) - (G * U).sum()) <= 2e-6 * coupling.penalty(U) + 1e-8


def test_sparse_low_rank_penalty_where_it_is_known() -> None:
    rng = np.random.default_rng(3)
    coupling = make_coupling("sparse-low-rank", 0.7)
    # Of one task the box lies in the ball; of a flat matrix of rank 1 the ball touches the box from within.
    w = rng.standard_normal((1, 9))
    assert coupling.penalty(w) == pytest.approx(0.7 * np.abs(w).sum() / 3, rel=1e-6)
    flat = np.outer(rng.choice([-1.0, 1.0], 5), rng.choice([-1.0, 1.0], 9))
    assert coupling.penalty(flat) == pytest.approx(0.7 * np.linalg.norm(flat, "nuc"), rel=1e-6)
    spike = np.zeros((5, 9))
    spike[2, 3] = -4.0
    assert coupling.penalty(spike) == pytest.approx(0.7 * 4 / 3, rel=1e-6)


def test_clusters_of_tasks_become_equal_and_stay_apart() -> None:
    rng = np.random.default_rng(7)
    centres, of = 3.0 * rng.standard_normal((2, 5)), np.array([0, 1, 0, 1, 1, 0])
    U = make_coupling("clustered", 2.0).prox(centres[of] + 0.1 * rng.standard_normal((6, 5)), 1.0)
    for c in (0, 1):
        assert np.ptp(U[of == c], axis=0).max() < 1e-9
    assert np.linalg.norm(U[0] - U[1]) > 1.0


def test_couplings_repeat_to_the_bit() -> None:
    W = np.random.default_rng(5).standard_normal((7, 12))
    for name in COUPLINGS:
        coupling = make_coupling(name, 0.4)
        one, other = (coupling.prox(W, 0.9) for _ in range(2))
        assert one.tobytes() == other.tobytes()
        assert coupling.penalty(one) == coupling.penalty(other)


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_step_needs_no_more_than_the_mixed_aggregates(name: str) -> None:
    rng = np.random.default_rng(4)
    Z, coupling = rng.standard_normal((4, 5)), make_coupling(name, 0.3)
    mixing = coupling.mixing(4)
    spread = np.linalg.pinv(mixing) @ (mixing @ Z)
    assert coupling.prox(-spread, 0.5) == pytest.approx(coupling.prox(-Z, 0.5))
    assert len(mixing) == (1 if name == "mean" else 4)


@pytest.mark.parametrize("name", COUPLINGS)
def test_zero_stays_zero(name: str) -> None:
    coupling = make_coupling(name, 0.0)
    assert (coupling.prox(np.zeros((3, 5)), 1.0) == 0).all()
    assert coupling.penalty(np.zeros((3, 5))) == 0


def test_nuclear_prox_is_accurate_for_tiny_singular_values() -> None:
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((500, 4)))
    P, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    sigma = np.array([1.0, 1e-3, 1e-9, 1e-12])
    U = make_coupling("nuclear", 1.0).prox((P * sigma) @ Q.T, 5e-10)
    # A Gram matrix would have lost the two small ones: 1e-18 is nothing beside 1.
    expected = (P * np.maximum(sigma - 5e-10, 0.0)) @ Q.T
    assert np.abs(U - expected).max() < 1e-15


@pytest.mark.parametrize("shape", [(3, 20_000), (20_000, 3)])
def test_nuclear_prox_of_long_matrices(shape: tuple[int, int]) -> None:
    W = np.random.default_rng(1).standard_normal(shape)
    left, sigma, right = np.linalg.svd(W, full_matrices=False)
    threshold = float(np.median(sigma))
    expected = (left * np.maximum(sigma - threshold, 0)) @ right
    assert np.abs(make_coupling("nuclear", threshold).prox(W, 1.0) - expected).max() < 1e-10


def test_unknown_coupling_lists_the_known() -> None:
    with pytest.raises(
        UsageError,
        match=r"coupling must be one of none, nuclear, l21, .*, clustered, got 'trace'",
    ):
        make_coupling("trace", 1.0)


def test_every_coupling_says_what_it_is() -> None:
    for made in COUPLINGS.values():
        assert made.summary
        assert made.__doc__
        assert "R(W)" in made.__doc__
