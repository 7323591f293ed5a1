from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asyncdmtl.arithmetic import solving
from asyncdmtl.errors import UsageError

Floats = NDArray[np.float64]


def definite(*shape: int) -> Floats:
    A = np.random.default_rng(shape).normal(size=(*shape, shape[-1] + 3))
    product: Floats = A @ A.swapaxes(-1, -2)
    return product


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (65, 65), (139, 28, 28), (2, 3, 5, 5)])
def test_factors_give_the_matrix_back(shape: tuple[int, ...]) -> None:
    S = definite(*shape[:-1])
    L = solving.cholesky(S)
    assert np.array_equal(L, np.tril(L))
    scale = np.abs(S).max()
    np.testing.assert_allclose(L @ L.swapaxes(-1, -2) / scale, S / scale, atol=1e-15 * shape[-1])


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (65, 65), (139, 28, 28)])
def test_solutions_are_backward_stable(shape: tuple[int, ...]) -> None:
    S = definite(*shape[:-1])
    B = np.random.default_rng(1).normal(size=(*shape[:-1], 2))
    X = solving.solve(S, B)
    sizes = np.abs(S) @ np.abs(X) + np.abs(B)
    assert (np.abs(S @ X - B) <= 1e-14 * shape[-1] * sizes.max()).all()
    assert np.array_equal(solving.solve(S, B[..., 0]), solving.solve(S, B[..., :1])[..., 0])


def test_stacks_are_solved_one_by_one() -> None:
    S, B = definite(4, 6), np.random.default_rng(2).normal(size=(4, 6))
    together = solving.solve(S, B)
    for i in range(4):
        assert np.array_equal(together[i], solving.solve(S[i], B[i]))


def test_triangular_systems() -> None:
    L = np.tril(np.random.default_rng(3).normal(size=(9, 9))) + 5.0 * np.eye(9)
    B = np.random.default_rng(4).normal(size=(9, 3))
    np.testing.assert_allclose(L @ solving.solve_triangular(L, B), B, atol=1e-13)
    np.testing.assert_allclose(L.T @ solving.solve_triangular(L, B, transposed=True), B, atol=1e-13)


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(UsageError, match="positive definite"):
        solving.cholesky(-np.eye(2))
    with pytest.raises(UsageError, match="positive definite"):
        solving.cholesky(np.array([[np.nan]]))
    with pytest.raises(UsageError, match="square"):
        solving.cholesky(np.ones((2, 3)))
    with pytest.raises(UsageError, match="right-hand side"):
        solving.solve_triangular(np.eye(2), np.ones((3, 1)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (200, 7), (3, 8), (10_000, 3)])
def test_triangular_factors_have_the_same_gram_matrix(shape: tuple[int, int]) -> None:
    A = np.random.default_rng(shape).normal(size=shape) * 10.0 ** np.arange(shape[1])
    R = solving.triangular_factor(A)
    assert R.shape == (min(shape), shape[1])
    Q, same = solving.qr(A)
    assert np.array_equal(R, same)
    np.testing.assert_allclose(Q.T @ Q, np.eye(min(shape)), atol=1e-13)
    np.testing.assert_allclose(Q @ R / np.linalg.norm(A, axis=0), A / np.linalg.norm(A, axis=0), atol=1e-14)
    assert np.array_equal(R, np.triu(R))
    lengths = np.linalg.norm(A, axis=0)
    np.testing.assert_allclose(
        R.T @ R / np.outer(lengths, lengths), A.T @ A / np.outer(lengths, lengths), atol=1e-14
    )


def test_triangular_factors_of_columns_that_are_zero() -> None:
    A = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 2.0]])
    np.testing.assert_allclose(np.abs(solving.triangular_factor(A)[:, 1]), [1.0, np.sqrt(8.0)])
    with pytest.raises(UsageError, match="two dimensions"):
        solving.triangular_factor(np.ones(3))


def test_definiteness_is_told_of_each_matrix() -> None:
    S = np.stack([np.eye(3), -np.eye(3), np.diag([1.0, 0.0, 1.0]), np.full((3, 3), np.nan), definite(3)])
    assert solving.positive_definite(S).tolist() == [True, False, False, False, True]


def test_inverses_are_symmetric_and_leave_their_argument() -> None:
    rng = np.random.default_rng(0)
    for batch, n in ((1, 5), (7, 12)):
        X = rng.normal(size=(batch, n, 2 * n))
        S = X @ X.swapaxes(1, 2)
        given = S.copy()
        inverse = solving.inverse(S)
        np.testing.assert_array_equal(S, given)
        np.testing.assert_array_equal(inverse, inverse.swapaxes(1, 2))
        np.testing.assert_allclose(inverse @ S, np.broadcast_to(np.eye(n), S.shape), atol=1e-12)


def test_what_is_not_positive_definite_has_no_inverse() -> None:
    with pytest.raises(UsageError, match="positive definite"):
        solving.inverse(np.diag([1.0, -1.0]))
    with pytest.raises(UsageError, match="square"):
        solving.inverse(np.ones((2, 3)))
