import contextlib

import numpy as np
import pytest

from asyncdmtl.arithmetic import blas, triangles


def test_triangles_hold_all_of_a_symmetric_matrix() -> None:
    S = np.random.default_rng(0).normal(size=(2, 4, 4))
    S += np.swapaxes(S, 1, 2)
    assert triangles.upper(S).shape == (2, 10)
    np.testing.assert_array_equal(triangles.symmetric(triangles.upper(S), 4), S)


@pytest.mark.parametrize("by_blas", [False, True])
def test_second_moments_are_sums_over_rows(by_blas: bool) -> None:
    with blas.by_blas() if by_blas else contextlib.nullcontext():
        check_second_moments()


def check_second_moments() -> None:
    rng = np.random.default_rng(1)
    # Two blocks of rows, and two of partitions.
    for shape in ((2, 700, 40), (40, 600, 6)):
        X, weights = rng.normal(size=shape), rng.uniform(size=(shape[0], 3, shape[1]))
        moments = triangles.symmetric(triangles.second_moments(X, weights), shape[2])
        for p in range(shape[0]):
            for c in range(3):
                np.testing.assert_allclose(moments[p, c], (X[p].T * weights[p, c]) @ X[p], atol=1e-10)


def test_the_moments_of_a_partition_do_not_depend_on_others() -> None:
    rng = np.random.default_rng(2)
    X, weights = rng.normal(size=(9, 50, 30)), rng.uniform(size=(9, 20, 50))
    together = triangles.second_moments(X, weights)
    for p in range(9):
        np.testing.assert_array_equal(triangles.second_moments(X[[p]], weights[[p]])[0], together[p])
