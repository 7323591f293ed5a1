from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asyncdmtl.arithmetic import spectral
from asyncdmtl.errors import UsageError

Floats = NDArray[np.float64]

CASES = ["random", "low rank", "graded", "clustered", "diagonal", "zero", "tiny", "huge", "integers"]


def matrix(case: str, m: int, n: int) -> Floats:
    rng = np.random.default_rng([CASES.index(case), m, n])
    A: Floats = rng.normal(size=(m, n))
    match case:
        case "low rank":
            A = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n))
        case "graded":
            return A * 10.0 ** -np.linspace(0.0, 12.0, n)
        case "clustered":
            r = min(m, n)
            U, V = np.linalg.qr(rng.normal(size=(m, r)))[0], np.linalg.qr(rng.normal(size=(n, r)))[0]
            A = (U * np.where(np.arange(r) < r // 2, 1.0, 1.0 + 1e-14)) @ V.T
        case "diagonal":
            return np.eye(m, n) * 3.0
        case "zero":
            return np.zeros((m, n))
        case "tiny":
            return A * 1e-300
        case "huge":
            return A * 1e300
        case "integers":
            return rng.integers(-2, 3, (m, n)).astype(float)
    return A


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 31, 64])
def test_eigenvectors_diagonalise(case: str, n: int) -> None:
    A = matrix(case, n, n)
    S = A / 2.0 + A.T / 2.0
    values, V = spectral.eigh(S)
    scale = float(np.abs(S).max()) or 1.0
    assert (np.diff(values) >= 0.0).all()
    np.testing.assert_allclose(V.T @ V, np.eye(n), atol=1e-13 * max(n, 10))
    np.testing.assert_allclose((V * (values / scale)) @ V.T, S / scale, atol=1e-14 * max(n, 10))
    np.testing.assert_allclose(values / scale, np.linalg.eigvalsh(S / scale), atol=1e-14 * max(n, 10))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (5, 1), (6, 6), (40, 13), (13, 40), (50, 50)])
def test_singular_vectors_diagonalise(case: str, m: int, n: int) -> None:
    A = matrix(case, m, n)
    U, sigma, Vt = spectral.svd(A)
    scale = float(np.abs(A).max()) or 1.0
    assert (U.shape, sigma.shape, Vt.shape) == ((m, min(m, n)), (min(m, n),), (min(m, n), n))
    assert (np.diff(sigma) <= 0.0).all()
    assert (sigma >= 0.0).all()
    np.testing.assert_allclose((U * (sigma / scale)) @ Vt, A / scale, atol=1e-14 * max(m, n, 10))
    expected = np.linalg.svd(A / scale, compute_uv=False)
    np.testing.assert_allclose(sigma / scale, expected, atol=1e-14 * max(m, n, 10))
    np.testing.assert_allclose(spectral.singular_values(A), sigma, atol=1e-14 * max(m, n, 10) * scale)


def test_stacks_are_decomposed_one_by_one() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(2, 3, 12, 7)) * 10.0 ** rng.integers(-9, 9, (2, 3, 1, 1))
    S = A.swapaxes(-1, -2) @ A
    values, V = spectral.eigh(S)
    U, sigma, Vt = spectral.svd(A)
    for i in np.ndindex(2, 3):
        for whole, alone in zip((values, V), spectral.eigh(S[i]), strict=True):
            assert np.array_equal(whole[i], alone)
        for whole, alone in zip((U, sigma, Vt), spectral.svd(A[i]), strict=True):
            assert np.array_equal(whole[i], alone)


def test_singular_values_do_not_depend_on_the_rest_of_the_stack() -> None:
    A = np.stack([[matrix(case, 13, 20) for case in CASES]])
    for whole in (spectral.singular_values(A)[0], spectral.singular_values(A.swapaxes(2, 3))[0]):
        for i, values in enumerate(whole):
            assert np.array_equal(values, spectral.singular_values(A[:, i])[0])


def test_the_largest_number_of_each_vector_is_positive() -> None:
    A = np.random.default_rng(1).normal(size=(9, 5))
    for vectors in (spectral.eigh(A.T @ A)[1], spectral.svd(A)[2].T, spectral.svd(A.T)[0]):
        at = np.abs(vectors).argmax(axis=0)
        assert (vectors[at, range(5)] > 0.0).all()


def test_only_the_lower_triangle_is_read() -> None:
    A = np.random.default_rng(2).normal(size=(6, 6))
    assert np.array_equal(spectral.eigh(A)[0], spectral.eigh(np.tril(A) + np.tril(A, -1).T)[0])


def test_bad_matrices_are_refused() -> None:
    with pytest.raises(UsageError, match="square"):
        spectral.eigh(np.ones((2, 3)))
    with pytest.raises(UsageError, match="finite, got nan"):
        spectral.eigh(np.array([[np.nan]]))
    with pytest.raises(UsageError, match="finite, got inf"):
        spectral.svd(np.array([[np.inf]]))
    with pytest.raises(UsageError, match="finite, got inf"):
        spectral.singular_values(np.array([[[1.0]], [[np.inf]]]))


def test_matrices_without_rows() -> None:
    assert spectral.eigh(np.zeros((2, 0, 0)))[0].shape == (2, 0)
    assert spectral.singular_values(np.zeros((0, 0))).shape == (0,)
    assert spectral.singular_values(np.zeros((2, 0, 3))).shape == (2, 0)
    assert spectral.singular_values(np.zeros((0, 4, 3))).shape == (0, 3)
    assert [part.shape for part in spectral.svd(np.zeros((3, 0)))] == [(3, 0), (0,), (0, 0)]
