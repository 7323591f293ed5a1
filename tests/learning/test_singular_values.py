from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from asyncdmtl.learning.singular_values import (
    blocked_singular_values,
    map_singular_values,
    singular_values,
    spectral_factor,
    squared_l1_threshold,
)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (5, 5)])
def test_singular_values_are_mapped(shape: tuple[int, int]) -> None:
    W = np.random.default_rng(0).standard_normal(shape)
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    assert singular_values(W) == pytest.approx(sigma)
    assert map_singular_values(W, lambda s: np.minimum(s, 1.0)) == pytest.approx(
        (U * np.minimum(sigma, 1.0)) @ Vt
    )
    assert (map_singular_values(np.zeros(shape), lambda s: s) == 0).all()


@given(
    values=st.lists(st.floats(0, 1e3), min_size=1, max_size=8),
    mu=st.one_of(st.floats(0, 10), st.sampled_from([1e-12, 1e17])),
)
def test_threshold_of_the_squared_norm_solves_its_equation(values: list[float], mu: float) -> None:
    sigma = np.sort(values)[::-1]
    tau = squared_l1_threshold(sigma, mu)
    end = min(mu * sigma.sum(), sigma[0])  # where τ is at the most
    root = brentq(lambda x: x - mu * np.maximum(sigma - x, 0.0).sum(), 0.0, end, xtol=1e-14, maxiter=1000)
    assert tau == pytest.approx(root, rel=1e-9, abs=1e-9)


def wide(*sigma: float, rows: int = 5) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(7)
    U, _ = np.linalg.qr(rng.standard_normal((rows, len(sigma))))
    V, _ = np.linalg.qr(rng.standard_normal((400, len(sigma))))
    found: np.ndarray[Any, Any] = (U * np.array(sigma)) @ V.T
    return found


@pytest.mark.parametrize("off", [0.05, 0.5, 3.0, 20.0])
def test_the_gram_matrix_is_enough_for_a_factor(off: float) -> None:
    W = wide(10.0, 4.0, 1.0, 0.1, 1e-7)
    factor = spectral_factor(W @ W.T, lambda sigma: np.maximum(sigma - off, 0.0))
    assert factor is not None
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    np.testing.assert_allclose(factor @ W, (U * np.maximum(sigma - off, 0.0)) @ Vt, atol=1e-9)


def test_the_gram_matrix_is_not_enough_where_small_singular_values_are_kept() -> None:
    W = wide(10.0, 4.0, 1e-3)
    assert spectral_factor(W @ W.T, lambda sigma: np.maximum(sigma - 1e-4, 0.0)) is None


@pytest.mark.parametrize("sigma", [(3.0, 2.0, 1.0), (1.0, 1e-5, 1e-9), (1e8, 1.0, 1e-4, 1e-7), (2.0,)])
def test_singular_values_by_blocks_have_all_digits(sigma: tuple[float, ...]) -> None:
    W = wide(*sigma)
    found = blocked_singular_values(lambda: (W[:, at : at + 50] for at in range(0, 400, 50)))
    assert found is not None
    np.testing.assert_allclose(found, singular_values(W), rtol=1e-12, atol=1e-14 * sigma[0])


def test_singular_values_of_one_pass_miss_by_little() -> None:
    W = wide(3.0, 1.0, 1e-9)
    found = blocked_singular_values(lambda: (W[:, at : at + 50] for at in range(0, 400, 50)), once=True)
    assert found is not None
    np.testing.assert_allclose(found, singular_values(W), atol=3.0 * 2e-8)


def test_singular_values_of_nothing() -> None:
    W = np.zeros((3, 100))
    assert blocked_singular_values(lambda: iter([W])) == pytest.approx(np.zeros(3))
    W[0, 0] = np.nan
    assert blocked_singular_values(lambda: iter([W])) is None
