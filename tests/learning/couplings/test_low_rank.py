from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.low_rank import NuclearNorm, SparseLowRank, SpectralCoupling, TaskCovariance


def with_singular_values(*sigma: float) -> Floats:
    """A (3, 5) matrix with these singular values."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    right, _ = np.linalg.qr(rng.standard_normal((5, 3)))
    return np.asarray((left * sigma) @ right.T)


def test_nuclear_prox_takes_the_threshold_off_every_singular_value() -> None:
    W = with_singular_values(4.0, 2.0, 0.5)
    U = NuclearNorm(0.5).prox(W, 3.0)
    assert np.linalg.svd(U, compute_uv=False) == pytest.approx([2.5, 0.5, 0.0], abs=1e-12)
    assert NuclearNorm(0.5).penalty(W) == pytest.approx(0.5 * 6.5)
    assert NuclearNorm(0.0).critical_strength(W, 1.0) == pytest.approx(4.0)


def test_covariance_prox_takes_off_a_share_of_what_is_left() -> None:
    # τ = μ·Σ max(σ − τ, 0) with μ = 1/2: of 4, 2 and 0.5, τ = 1.5 leaves 2.5 + 0.5 = 3 = τ/μ.
    W = with_singular_values(4.0, 2.0, 0.5)
    U = TaskCovariance(0.5).prox(W, 1.0)
    assert np.linalg.svd(U, compute_uv=False) == pytest.approx([2.5, 0.5, 0.0], abs=1e-12)
    assert TaskCovariance(0.5).penalty(W) == pytest.approx(0.5 * 0.5 * 6.5**2)


def test_no_strength_brings_models_under_a_square_to_zero() -> None:
    W = with_singular_values(4.0, 2.0, 0.5)
    assert TaskCovariance(1.0).critical_strength(W, 3.0) == 30.0
    assert TaskCovariance(1.0).critical_strength(0.0 * W, 3.0) == 0.0
    assert np.linalg.norm(TaskCovariance(1e6).prox(W, 1.0)) > 0.0


@pytest.mark.parametrize("kind", [NuclearNorm, TaskCovariance, SparseLowRank])
def test_both_arithmetics_find_the_same_but_for_rounding(
    kind: type[SpectralCoupling] | type[SparseLowRank],
) -> None:
    W = np.random.default_rng(1).standard_normal((4, 6))
    exact, fast = (kind(0.4, arithmetic=ARITHMETICS[name]) for name in ("reproducible", "fast"))
    assert exact.prox(W, 0.9) == pytest.approx(fast.prox(W, 0.9), abs=1e-7)
    assert exact.penalty(W) == pytest.approx(fast.penalty(W), rel=1e-6)


def test_critical_strength_of_sparse_and_low_rank_is_the_larger_of_both() -> None:
    flat, spike = np.full((2, 4), 1.0), np.zeros((2, 4))
    spike[1, 2] = -3.0
    # ‖flat‖₂ = √8 and its entries over ρ = ½ are 2; ‖spike‖₂ = 3 and its entry over ρ is 6.
    assert SparseLowRank(0.0).critical_strength(flat, 1.0) == pytest.approx(np.sqrt(8.0))
    assert SparseLowRank(0.0).critical_strength(spike, 1.0) == pytest.approx(6.0)


def test_models_vanish_from_the_critical_strength_on() -> None:
    Z = np.random.default_rng(2).standard_normal((3, 5))
    for kind in (NuclearNorm, SparseLowRank):
        critical = kind(0.0).critical_strength(Z, 1.0)
        assert np.abs(kind(1.0001 * critical).prox(-Z, 1.0)).max() < 1e-8
        assert np.abs(kind(0.99 * critical).prox(-Z, 1.0)).max() > 1e-4


def test_covariance_penalty_is_the_least_over_covariances_of_trace_one() -> None:
    rng = np.random.default_rng(3)
    W = rng.standard_normal((4, 6))
    penalty = TaskCovariance(0.7).penalty(W)
    values, vectors = np.linalg.eigh(W @ W.T)
    best = (vectors * np.sqrt(values)) @ vectors.T
    others = [A @ A.T for A in rng.standard_normal((50, 4, 4))]
    traces = [
        0.5 * 0.7 * np.trace(W.T @ np.linalg.solve(omega / np.trace(omega), W)) for omega in [best, *others]
    ]
    assert penalty == pytest.approx(traces[0])
    assert penalty <= min(traces) * (1 + 1e-12)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    strength=st.floats(1e-3, 3),
    step=st.floats(0.1, 2),
    seed=st.integers(0, 999),
)
@example(shape=(5, 6), strength=0.0, step=1.0, seed=0)
@example(shape=(5, 6), strength=1e-30, step=1.0, seed=0)
@example(shape=(5, 6), strength=1e-8, step=1.0, seed=0)
@example(shape=(5, 6), strength=1e9, step=1.0, seed=0)
@example(shape=(5, 6), strength=5e-324, step=1.0, seed=0)
@example(shape=(1, 6), strength=0.3, step=1.0, seed=0)
@settings(max_examples=30, deadline=None)
def test_sparse_low_rank_prox_meets_its_optimality_condition(
    shape: tuple[int, int], strength: float, step: float, seed: int
) -> None:
    W = np.random.default_rng(seed).standard_normal(shape)
    before = W.copy()
    # The condition holds with any arithmetic, and the fast one takes a tenth of the time.
    coupling = SparseLowRank(strength, arithmetic=ARITHMETICS["fast"])
    U = coupling.prox(W, step)
    G = (W - U) / step
    assert (before == W).all()
    # Both dual norms are at most λ, and ⟨G, U⟩ ≤ λR(U) ≤ the penalty of a split: all are equal up to its
    # accuracy.
    assert np.linalg.norm(G, 2) <= strength + 1e-8
    assert np.abs(G).max() <= strength / np.sqrt(max(shape)) + 1e-8
    assert abs(coupling.penalty(U) - (G * U).sum()) <= 2e-6 * coupling.penalty(U) + 1e-8


def test_sparse_low_rank_penalty_where_it_is_known() -> None:
    rng = np.random.default_rng(3)
    coupling = SparseLowRank(0.7)
    # With one task, the box lies in the ball; for a flat matrix of rank 1, the ball touches the box from
    # within.
    w = rng.standard_normal((1, 9))
    assert coupling.penalty(w) == pytest.approx(0.7 * np.abs(w).sum() / 3, rel=1e-6)
    flat = np.outer(rng.choice([-1.0, 1.0], 5), rng.choice([-1.0, 1.0], 9))
    assert coupling.penalty(flat) == pytest.approx(0.7 * np.linalg.norm(flat, "nuc"), rel=1e-6)
    spike = np.zeros((5, 9))
    spike[2, 3] = -4.0
    assert coupling.penalty(spike) == pytest.approx(0.7 * 4 / 3, rel=1e-6)


def test_nuclear_prox_is_accurate_for_tiny_singular_values() -> None:
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((500, 4)))
    P, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    sigma = np.array([1.0, 1e-3, 1e-9, 1e-12])
    U = NuclearNorm(1.0).prox((P * sigma) @ Q.T, 5e-10)
    # A Gram matrix would lose the two small ones, since 1e-18 vanishes beside 1.
    expected = (P * np.maximum(sigma - 5e-10, 0.0)) @ Q.T
    assert np.abs(U - expected).max() < 1e-15


@pytest.mark.parametrize("shape", [(3, 20_000), (20_000, 3)])
def test_nuclear_prox_of_long_matrices(shape: tuple[int, int]) -> None:
    W = np.random.default_rng(1).standard_normal(shape)
    left, sigma, right = np.linalg.svd(W, full_matrices=False)
    threshold = float(np.median(sigma))
    expected = (left * np.maximum(sigma - threshold, 0)) @ right
    assert np.abs(NuclearNorm(threshold).prox(W, 1.0) - expected).max() < 1e-10


@pytest.mark.parametrize("coupling", [NuclearNorm(2.0), TaskCovariance(2.0), SparseLowRank(2.0)])
def test_penalties_of_a_stack_are_those_of_its_matrices(coupling: Coupling) -> None:
    models = np.stack([with_singular_values(4.0, 2.0, 0.5), with_singular_values(1.0, 0.0, 0.0)])
    assert coupling.penalties(models) == pytest.approx([coupling.penalty(W) for W in models], rel=1e-14)
