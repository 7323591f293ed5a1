import numpy as np
import pytest
from support.quadratics import coupling_of

from asyncdmtl.arithmetic.kinds import FAST
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.penalties import (
    Columns,
    HalfSquaredNuclear,
    Nuclear,
    Pairs,
    Penalty,
    Smoothness,
    SparsePlusLowRank,
    Spectrum,
)

SAME = {"nuclear": Nuclear, "covariance": HalfSquaredNuclear, "l21": Columns}
LAMBDAS = np.array([0.7, 0.1])


def matrices(rows: int = 6, columns: int = 4) -> Floats:
    return np.random.default_rng(1).normal(size=(3, 2, 1, rows, columns))


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
@pytest.mark.parametrize("name", SAME)
def test_prox_and_value_are_those_of_the_coupling(name: str, shape: tuple[int, int]) -> None:
    S, penalty = matrices(*shape), SAME[name](LAMBDAS)
    for step in (0.5, 0.6):
        H = penalty.prox(S, step)
        values = penalty.value(H)
        for k in range(3):
            for i, strength in enumerate(LAMBDAS):
                coupling = coupling_of(name, float(strength), shape[0])
                expected = coupling.prox(S[k, i, 0], step)
                np.testing.assert_allclose(H[k, i, 0], expected, atol=1e-12)
                np.testing.assert_allclose(values[k, i], coupling.penalty(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "penalty",
    [Nuclear(LAMBDAS), HalfSquaredNuclear(LAMBDAS), Columns(LAMBDAS), SparsePlusLowRank(LAMBDAS)],
    ids=lambda penalty: type(penalty).__name__,
)
def test_the_dual_bounds_every_product(penalty: Penalty) -> None:
    """Fenchel's inequality `⟨sZ, W⟩ ≤ λR(W) + (λR)*(sZ)`, and equality for some `W` of the prox."""
    S = np.concatenate([matrices()] * penalty.parts, axis=2)
    H = penalty.prox(S, 1.0)
    value, W = penalty.value(H), H.sum(axis=2)
    Z = 3.0 * np.random.default_rng(2).normal(size=W.shape)
    s, conjugate = penalty.dual(Z)
    assert (s <= 1.0).all()
    assert (s * (Z * W).sum(axis=(2, 3)) <= value + conjugate + 1e-12).all()
    # `S − prox(S)` is a subgradient at the prox.
    Z = S[:, :, 0] - H[:, :, 0]
    s, conjugate = penalty.dual(Z)
    if penalty.parts == 1:
        np.testing.assert_allclose(s, 1.0, rtol=1e-7)
        np.testing.assert_allclose((Z * W).sum(axis=(2, 3)), value + conjugate, rtol=1e-7)


@pytest.mark.parametrize("kind", [Nuclear, HalfSquaredNuclear, Columns, SparsePlusLowRank])
def test_the_dual_is_known_near_the_subgradient_of_the_prox(kind: type[Penalty]) -> None:
    rng, step = np.random.default_rng(3), 0.5
    S, penalty = np.concatenate([matrices()] * kind.parts, axis=2), kind(LAMBDAS)
    H = penalty.prox(S, step)
    value = penalty.value(H)
    for size in (0.0, 0.01, 1.0):
        E = size * rng.normal(size=H.shape)
        Z = (S - H)[:, :, -1] / step + E[:, :, -1]
        E[:, :, 0] = Z - (S - H)[:, :, 0] / step
        s, conjugate = penalty.dual_near(E)
        largest, least = penalty.dual(Z)
        assert (s <= largest * (1.0 + 1e-7)).all()
        assert (conjugate >= least * (1.0 - 1e-7)).all()
        if size == 0.0 and kind.parts == 1:
            np.testing.assert_allclose((Z * H[:, :, 0]).sum(axis=(2, 3)), value + conjugate, rtol=1e-7)


def test_pairs_are_shortened() -> None:
    S, penalty = matrices(), Pairs(LAMBDAS, 4)
    H = penalty.prox(S, 2.0)
    lengths, before = (np.linalg.norm(M, axis=4) for M in (H, S))
    np.testing.assert_allclose(lengths, np.maximum(before - 0.5 * LAMBDAS[:, None, None], 0.0), atol=1e-12)
    np.testing.assert_allclose(penalty.value(H), 0.25 * LAMBDAS * lengths.sum(axis=(2, 3)))


def test_smoothness_is_that_of_the_graph() -> None:
    coupling = coupling_of("chain", 0.7, 4)
    L = np.diag([1.0, 2.0, 2.0, 1.0]) - np.diag([1.0] * 3, 1) - np.diag([1.0] * 3, -1)
    values, Q = np.linalg.eigh(L)
    S = matrices(4, 3)
    penalty = Smoothness(LAMBDAS, np.maximum(values, 0.0), Q)
    H = penalty.prox(S, 0.5)
    np.testing.assert_allclose(H[0, 0, 0], coupling.prox(S[0, 0, 0], 0.5), atol=1e-12)
    np.testing.assert_allclose(penalty.value(H)[0, 0], coupling.penalty(H[0, 0, 0]), rtol=1e-10)


def test_strengths_that_are_done_are_left_out() -> None:
    S = matrices()
    whole, part = Nuclear(LAMBDAS), Nuclear(LAMBDAS)
    for penalty in (whole, part):
        penalty.prox(S, 1.0)
    part.keep(np.array([True, False, True]), np.array([False, True]))
    np.testing.assert_allclose(part.prox(S[::2, 1:], 0.5), whole.prox(S, 0.5)[::2, 1:], atol=1e-13)


def test_each_data_set_may_have_its_own_strengths() -> None:
    S, own = matrices(), LAMBDAS * np.array([[1.0], [2.0], [3.0]])
    together = Nuclear(own)
    H = together.prox(S, np.array([[1.0], [0.5], [0.1]]))
    for k, step in enumerate((1.0, 0.5, 0.1)):
        np.testing.assert_allclose(H[k], Nuclear(own[k]).prox(S[k : k + 1], step)[0], atol=1e-13)
    together.keep(np.array([False, True, False]), np.array([True, True]))
    np.testing.assert_allclose(together.prox(S[1:2], 0.5), H[1:2], atol=1e-13)


@pytest.mark.parametrize("kind", [Nuclear, HalfSquaredNuclear, SparsePlusLowRank])
def test_fast_arithmetic_gives_the_same_up_to_rounding(kind: type[Penalty]) -> None:
    S = np.concatenate([matrices()] * kind.parts, axis=2)
    exact, fast = kind(LAMBDAS), kind(LAMBDAS, FAST)
    np.testing.assert_allclose(fast.prox(S, 0.5), exact.prox(S, 0.5), atol=1e-12)
    np.testing.assert_allclose(fast.dual(S[:, :, 0])[0], exact.dual(S[:, :, 0])[0], rtol=1e-7)


def test_a_spectrum_tells_what_was_left() -> None:
    spectrum, W = Spectrum(), matrices()[:, :, 0]
    spectrum.shrunk(W, lambda sigma: np.full_like(sigma, 0.3))
    expected = np.maximum(np.linalg.svd(W, compute_uv=False) - 0.3, 0.0).sum(axis=2)
    np.testing.assert_allclose(spectrum.norm, expected, rtol=1e-12)
