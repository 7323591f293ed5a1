from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.learning import smoothness
from asyncdmtl.learning.smoothness import largest_eigenvalue_bound


def has_twelve_bits(bound: float) -> bool:
    mantissa, _ = math.frexp(bound)
    return (mantissa * 2**12).is_integer()


@given(
    n=st.integers(1, 8),
    rank=st.integers(1, 8),
    scale=st.integers(-300, 300),
    factor=st.floats(1e-3, 1e3),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_the_bound_is_the_next_coarse_number_above_the_eigenvalue(
    n: int, rank: int, scale: int, factor: float, seed: int
) -> None:
    root = np.random.default_rng(seed).standard_normal((n, rank))
    S = np.ldexp(root @ root.T, scale)
    bound = largest_eigenvalue_bound(S, factor)
    # Another way to compute the eigenvalue: the square of the largest singular value of the root.
    largest = math.ldexp(float(np.linalg.norm(root, 2)) ** 2, scale) * factor
    assert has_twelve_bits(bound)
    assert largest * (1 - 1e-12) <= bound <= largest * (1 + 2**-11 + 1e-8)


def test_nothing_has_no_slope() -> None:
    assert largest_eigenvalue_bound(np.zeros((3, 3)), 2.0) == 0.0


def test_a_last_bit_makes_no_difference() -> None:
    S = np.diag([1.0, 3.0])
    for nearby in (np.nextafter(3.0, 0.0), np.nextafter(3.0, 4.0)):
        assert largest_eigenvalue_bound(np.diag([1.0, nearby]), 1.0) == largest_eigenvalue_bound(S, 1.0)


@pytest.mark.parametrize("error", [-1e-3, 1e-3])
def test_an_eigenvalue_that_lapack_misses_is_put_right(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    S = np.array([[2.0, 1.0], [1.0, 2.0]])
    right = largest_eigenvalue_bound(S, 1.0)
    values = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: values(matrix) * (1.0 + 0.1 * error))
    assert largest_eigenvalue_bound(S, 1.0) == right == pytest.approx(3.0, rel=2**-10)


def test_large_matrices_are_rounded_without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    S = np.diag([1.0, 2.0, 5.0])
    checked = largest_eigenvalue_bound(S, 1.5)
    monkeypatch.setattr(smoothness, "_CHECKED", 2)
    assert largest_eigenvalue_bound(S, 1.5) == checked >= 7.5
