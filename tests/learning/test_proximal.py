from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.proximal import (
    clustered_prox,
    sparse_low_rank_prox,
    sparse_low_rank_split,
)


def nearest_in_both(W: Floats, mu: float, rho: float) -> Floats:
    """Dykstra's alternating projections on the spectral ball and the box."""
    H, p, q = W, np.zeros_like(W), np.zeros_like(W)
    for _ in range(30_000):
        U, sigma, Vt = np.linalg.svd(H + p, full_matrices=False)
        G = (U * np.minimum(sigma, mu)) @ Vt
        p = H + p - G
        H = np.clip(G + q, -mu * rho, mu * rho)
        q = G + q - H
        if np.abs(G - H).max() < 1e-13:
            break
    return H


@pytest.mark.parametrize(("shape", "mu"), [((4, 4), 0.5), ((3, 6), 1.0), ((6, 3), 0.3), ((4, 5), 2.5)])
def test_sparse_low_rank_prox_agrees_with_alternating_projections(shape: tuple[int, int], mu: float) -> None:
    rng = np.random.default_rng(1)
    W = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    W[1, 2] += 3.0
    W += 0.1 * rng.standard_normal(shape)
    rho = max(shape) ** -0.5
    assert sparse_low_rank_prox(W, mu, rho) == pytest.approx(W - nearest_in_both(W, mu, rho), abs=1e-8)


def test_a_low_rank_matrix_with_exceptions_is_split_into_both() -> None:
    rng = np.random.default_rng(2)
    Q = np.outer(rng.choice([-1.0, 1.0], 12), rng.standard_normal(15))
    P = np.zeros_like(Q)
    P[[1, 5, 9], [2, 8, 13]] = [4.0, -3.0, 5.0]
    found_P, found_Q = sparse_low_rank_split(P + Q, 15**-0.5)
    assert found_P + found_Q == pytest.approx(P + Q)
    assert found_P == pytest.approx(P, abs=1e-4)
    assert np.linalg.matrix_rank(found_Q, tol=1e-4) == 1


def pairwise_dual(W: Floats, mu: float) -> Floats:
    """The clustered prox by SciPy: least squares over one vector of length ≤ μ for every pair."""
    T, F = W.shape
    pairs = list(combinations(range(T), 2))

    def primal(flat: Floats) -> Floats:
        U = W.copy()
        for (s, t), z in zip(pairs, flat.reshape(-1, F), strict=True):
            U[s] -= z
            U[t] += z
        return U

    def value(flat: Floats) -> tuple[float, Floats]:
        U = primal(flat)
        return 0.5 * float((U**2).sum()), np.concatenate([U[t] - U[s] for s, t in pairs])

    inside = {"type": "ineq", "fun": lambda flat: mu**2 - (flat.reshape(-1, F) ** 2).sum(axis=1)}
    found = minimize(
        value,
        np.zeros(len(pairs) * F),
        jac=True,
        constraints=[inside],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return primal(found.x)


@pytest.mark.parametrize("mu", [0.05, 0.3, 0.6, 3.0])
@pytest.mark.parametrize("shape", [(4, 2), (3, 5), (5, 1)])
def test_clustered_prox_agrees_with_scipy(shape: tuple[int, int], mu: float) -> None:
    W = np.random.default_rng(3).standard_normal(shape)
    assert clustered_prox(W, mu) == pytest.approx(pairwise_dual(W, mu), abs=1e-6)


@given(mu=st.floats(0, 3), F=st.integers(1, 5), seed=st.integers(0, 999))
@settings(deadline=None)
def test_of_two_tasks_only_the_difference_shrinks(mu: float, F: int, seed: int) -> None:
    W = np.random.default_rng(seed).standard_normal((2, F))
    half = (W[0] - W[1]) / 2
    shortened = half * max(0.0, 1.0 - mu / float(np.linalg.norm(half)))
    U = clustered_prox(W, mu)
    expected = W.mean(axis=0) + np.array([shortened, -shortened])
    assert np.abs(U - expected).max() < 1e-10


def test_clustered_prox_of_long_models() -> None:
    rng = np.random.default_rng(4)
    W, (Q, _) = rng.standard_normal((4, 4)), np.linalg.qr(rng.standard_normal((5000, 4)))
    assert clustered_prox(W @ Q.T, 0.3) == pytest.approx(clustered_prox(W, 0.3) @ Q.T, abs=1e-9)


def spiked(shape: tuple[int, int], seed: int) -> Floats:
    """A matrix of rank 2 with some exceptions and a little noise, like models of related tasks."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((shape[0], 2)) @ rng.standard_normal((2, shape[1]))
    W[rng.random(shape) < 0.05] += 4.0
    noisy: Floats = W + 0.05 * rng.standard_normal(shape)
    return noisy


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(10, 64), (139, 27)])
def test_sparse_low_rank_prox_is_optimal_at_the_size_of_real_problems(
    shape: tuple[int, int], fraction: float
) -> None:
    W, rho = spiked(shape, 6), max(shape) ** -0.5
    mu = fraction * float(np.linalg.norm(W, 2))
    with single_threaded():
        U = sparse_low_rank_prox(W, mu, rho, ARITHMETICS["fast"])
        P, Q = sparse_low_rank_split(U, rho, ARITHMETICS["fast"])
    G = W - U
    # U is optimal if G is in both sets and ⟨G, U⟩ attains their maximum, μR(U), which a split bounds.
    assert np.linalg.norm(G, 2) <= mu * (1 + 1e-8)
    assert np.abs(G).max() <= mu * rho * (1 + 1e-8)
    most = mu * float(rho * np.abs(P).sum() + np.linalg.norm(Q, "nuc"))
    assert float((G * U).sum()) == pytest.approx(most, rel=1e-5)


def test_few_iterations_settle_the_sparse_low_rank_prox(monkeypatch: pytest.MonkeyPatch) -> None:
    W = spiked((10, 64), 7)
    expected = sparse_low_rank_prox(W, 0.1 * float(np.linalg.norm(W, 2)), 1 / 8)
    monkeypatch.setattr("asyncdmtl.learning.proximal._STEPS", 100)
    assert sparse_low_rank_prox(W, 0.1 * float(np.linalg.norm(W, 2)), 1 / 8).tobytes() == expected.tobytes()


def test_from_some_strength_on_nothing_is_left() -> None:
    W = spiked((6, 5), 8)
    mu = max(float(np.linalg.norm(W, 2)), float(np.abs(W).max()) / 0.4)
    assert (sparse_low_rank_prox(W, 1.001 * mu, 0.4) == 0.0).all()
    assert sparse_low_rank_prox(W, 0.9 * mu, 0.4).any()
