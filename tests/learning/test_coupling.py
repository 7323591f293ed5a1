from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
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
    dual = np.linalg.norm(G, 2) if name == "nuclear" else np.linalg.norm(G, axis=0).max()
    primal = np.linalg.norm(W, "nuc") if name == "nuclear" else np.linalg.norm(W, axis=0).sum()
    return bool(dual <= strength + 1e-9 and abs((G * W).sum() - strength * primal) < 1e-8)


@pytest.mark.parametrize("name", COUPLINGS)
@given(shape=shapes, strength=st.floats(0, 3), step=st.floats(0.1, 2), seed=st.integers(0, 999))
@example(shape=(1, 1), strength=0.0, step=1.0, seed=0)
@example(shape=(8, 3), strength=100.0, step=1.0, seed=0)
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
        match="coupling must be one of none, nuclear, l21, mean, mean-regularised, chain, got 'trace'",
    ):
        make_coupling("trace", 1.0)


def test_every_coupling_says_what_it_is() -> None:
    for made in COUPLINGS.values():
        assert made.summary
        assert made.__doc__
        assert "R(W)" in made.__doc__
