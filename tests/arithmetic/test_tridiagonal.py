from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from asyncdmtl.arithmetic import tridiagonal

Floats = NDArray[np.float64]


def whole(diagonal: Floats, beside: Floats) -> Floats:
    return np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_reflections_keep_the_matrix(n: int) -> None:
    A = np.random.default_rng(n).normal(size=(3, n, n))
    S = (A + A.swapaxes(1, 2)) / (4.0 * n)
    S[1] = 0.0
    reduced = tridiagonal.reflected(S.copy())
    for i in range(3):
        Q = reduced.back(np.broadcast_to(np.eye(n), (3, n, n)).copy())[i]
        np.testing.assert_allclose(Q @ Q.T, np.eye(n), atol=1e-14)
        np.testing.assert_allclose(Q @ whole(reduced.diagonal[i], reduced.beside[i]) @ Q.T, S[i], atol=1e-15)


# Matrices with couplings of 0 or nearly so, with poles that coincide or nearly so, and with weights of 0.
TRIDIAGONAL: dict[str, Callable[[int], tuple[Floats, Floats]]] = {
    "chain": lambda n: (np.zeros(n), np.full(n - 1, 0.5)),
    "diagonal": lambda n: (np.linspace(-1.0, 1.0, n), np.zeros(n - 1)),
    "equal": lambda n: (np.full(n, 0.3), np.zeros(n - 1)),
    "nearly equal": lambda n: (np.linspace(0.3, 0.3 + 1e-16 * n, n), np.full(n - 1, 1e-16)),
    "tiny": lambda n: (np.zeros(n), np.full(n - 1, 1e-200)),
    "wilkinson": lambda n: (np.abs(np.arange(n) - (n - 1) / 2) / n, np.full(n - 1, 1.0 / n)),
    "negative": lambda n: (np.linspace(0.0, 0.1, n), -np.full(n - 1, 0.2)),
    "graded": lambda n: (10.0 ** -np.linspace(0, 30, n) / 3, 10.0 ** -np.linspace(1, 30, n - 1) / 3),
    "cut": lambda n: (np.linspace(0.5, 0.4, n), np.where(np.arange(n - 1) % 3, 0.2, 0.0)),
}


@pytest.mark.parametrize("case", TRIDIAGONAL)
@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 33, 100])
def test_tridiagonal_matrices_are_diagonalised(case: str, n: int) -> None:
    d, e = TRIDIAGONAL[case](n)
    with np.errstate(all="raise", under="ignore"):
        values, V = tridiagonal.diagonalised(d[None], e[None])
    np.testing.assert_allclose(V[0].T @ V[0], np.eye(n), atol=1e-14)
    np.testing.assert_allclose((V[0] * values[0]) @ V[0].T, whole(d, e), atol=2e-16 * (n + 10))
    np.testing.assert_allclose(values[0], np.linalg.eigvalsh(whole(d, e)), atol=2e-16 * (n + 10))
    assert (np.diff(values[0]) >= 0.0).all()


def test_matrices_of_a_stack_do_not_see_each_other() -> None:
    d, e = (np.stack(parts) for parts in zip(*(make(37) for make in TRIDIAGONAL.values()), strict=True))
    values, V = tridiagonal.diagonalised(d, e)
    for i in range(len(d)):
        alone = tridiagonal.diagonalised(d[i : i + 1], e[i : i + 1])
        assert np.array_equal(values[i], alone[0][0])
        assert np.array_equal(V[i], alone[1][0])
