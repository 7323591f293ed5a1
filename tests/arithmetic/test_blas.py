import threading

import numpy as np
import pytest

from asyncdmtl.arithmetic import blas
from asyncdmtl.arithmetic.blas import by_blas
from asyncdmtl.arithmetic.elementary import exp, expm1, log, log1p, softplus
from asyncdmtl.arithmetic.products import Factor, matmul
from asyncdmtl.arithmetic.solving import inverse, solve
from asyncdmtl.errors import UsageError


def test_blas_is_chosen_in_blocks_and_for_one_thread_only() -> None:
    seen = []
    with by_blas():
        with by_blas():
            pass
        assert blas.chosen()
        thread = threading.Thread(target=lambda: seen.append(blas.chosen()))
        thread.start()
        thread.join()
    assert seen == [False]
    with pytest.raises(ValueError, match="inside"), by_blas():
        raise ValueError("inside")
    assert not blas.chosen()


def test_products_and_inverses_are_the_same_to_rounding() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 1, 40, 20)), rng.normal(size=(2, 20, 30))
    S = (
        np.swapaxes(A, -1, -2)
        @ A
        * 10.0 ** np.linspace(-4.0, 4.0, 20)[:, None]
        * 10.0 ** np.linspace(-4.0, 4.0, 20)
    )
    with by_blas():
        product, inverted, factor = matmul(A, B), inverse(S), Factor(S)
        solution = solve(S, np.ones((3, 1, 20)))
    # Sums of 20 terms of size 1, and inverses with a condition of some 40 in these units.
    np.testing.assert_allclose(product, matmul(A, B), rtol=0.0, atol=1e-13)
    np.testing.assert_array_equal(product, A @ B)
    expected = inverse(S)
    units = np.sqrt(np.einsum("...ii->...i", expected))
    np.testing.assert_allclose(inverted / units[..., None] / units[..., None, :],
                               expected / units[..., None] / units[..., None, :],
                               rtol=0.0, atol=1e-12)  # fmt: skip
    np.testing.assert_array_equal(inverted, np.swapaxes(inverted, -1, -2))
    np.testing.assert_allclose(
        solution / units, solve(S, np.ones((3, 1, 20))) / units, rtol=0.0, atol=1e-12 * np.abs(units).max()
    )
    np.testing.assert_array_equal(factor.of([0]).times(B[:1, None]), S[:1] @ B[:1, None])


def test_functions_are_those_of_numpy() -> None:
    x = np.linspace(-3.0, 3.0, 601)
    for function, of_numpy in ((exp, np.exp), (expm1, np.expm1), (log, np.log), (log1p, np.log1p)):
        with by_blas():
            found = function(x)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(found, of_numpy(x))
        # NumPy's may be off by 4 units in the last place, and these by 2.
        np.testing.assert_allclose(found, function(x), rtol=2e-15)
    with by_blas():
        np.testing.assert_allclose(softplus(x), np.logaddexp(0.0, x), rtol=1e-14)


def test_matrices_without_an_inverse_are_refused_in_the_same_way() -> None:
    for wrong in (np.diag([1.0, -1.0]), np.diag([1.0, np.nan]), np.ones((2, 2))):
        with by_blas(), pytest.raises(UsageError, match="positive definite"):
            inverse(wrong)
        with by_blas(), pytest.raises(UsageError, match="positive definite"):
            solve(wrong, np.ones(2))
    with by_blas():
        assert np.isnan(matmul(np.array([[np.inf, -np.inf]]), np.ones((2, 1)))).all()
