from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from asyncdmtl.arithmetic import products
from asyncdmtl.errors import UsageError

Floats = NDArray[np.float64]

SHAPES = [
    ((3, 4), (4, 5)),
    ((1, 1), (1, 1)),
    ((7,), (7,)),
    ((7,), (7, 3)),
    ((3, 7), (7,)),
    ((2, 100_001), (100_001,)),
    ((40_001,), (40_001, 2)),
    ((1, 3), (3, 50_000)),
    ((60, 61), (61, 62)),
    ((5, 3, 4), (5, 4, 2)),
    ((5, 3, 4), (4, 2)),
    ((3, 4), (2, 5, 4, 6)),
    ((5, 1, 300), (5, 300, 7)),
    ((2, 60, 61), (2, 61, 62)),
    ((0, 4), (4, 2)),
    ((3, 0), (0, 2)),
]


def exactly(A: Floats, B: Floats) -> Floats:
    """Correctly rounded products of float64 matrices."""
    rows = [[Fraction(a) for a in row] for row in A.tolist()]
    columns = [[Fraction(b) for b in column] for column in B.T.tolist()]
    return np.array([[float(sum(map(Fraction.__mul__, r, c), Fraction(0))) for c in columns] for r in rows])


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_are_those_of_numpy_but_for_rounding(
    left: tuple[int, ...], right: tuple[int, ...], dtype: type[np.float64]
) -> None:
    rng = np.random.default_rng(3)
    A, B = rng.normal(size=left).astype(dtype), rng.normal(size=right).astype(dtype)
    expected = np.matmul(A.astype(np.float64), B.astype(np.float64))
    bound = 20 * np.finfo(dtype).eps * np.matmul(np.abs(A).astype(np.float64), np.abs(B).astype(np.float64))
    product = products.matmul(A, B)
    assert np.shape(product) == expected.shape
    assert product.dtype == dtype
    assert (np.abs(product - expected) <= bound).all()


def test_slices_keep_the_digits_of_badly_scaled_rows_and_columns() -> None:
    rng = np.random.default_rng(4)
    A = rng.normal(size=(64, 64)) * 10.0 ** rng.integers(-150, 150, (64, 1))
    B = rng.normal(size=(64, 64)) * 10.0 ** rng.integers(-150, 150, (1, 64))
    lengths = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=0)
    assert (np.abs(products.matmul(A, B) - exactly(A, B)) <= 2.0**-52 * lengths).all()


def test_slices_keep_the_digits_of_terms_whose_factors_have_inverse_sizes() -> None:
    rng = np.random.default_rng(2)
    sizes = np.ldexp(1.0, np.arange(-20, 40, dtype=np.int32))
    A, B = rng.normal(size=(2, 60, 60)) * sizes, rng.normal(size=(2, 60, 60)) / sizes[:, None]
    A[1], B[1] = rng.normal(size=(2, 60, 60))
    C = products.matmul(A, B)
    assert C[1].tobytes() == products.matmul(A[1], B[1]).tobytes()
    for a, b, c in zip(A[:, :3], B[:, :, :3], C[:, :3, :3], strict=True):
        assert (np.abs(c - exactly(a, b)) <= 1e-15 * exactly(np.abs(a), np.abs(b))).all()


def test_slices_of_few_bits_are_exact() -> None:
    rng = np.random.default_rng(5)
    A, B = rng.integers(-1000, 1000, (70, 80)).astype(float), rng.integers(-9, 9, (80, 90)).astype(float)
    assert np.array_equal(products.matmul(A, B), A @ B)


@pytest.mark.parametrize("shape", [(5, 7), (50, 60), (4, 30, 50), (3, 10_000)])
def test_gram_matrices_are_symmetric(shape: tuple[int, ...]) -> None:
    A = np.random.default_rng(6).normal(size=shape)
    G = products.gram(A)
    assert np.array_equal(G, np.swapaxes(G, -1, -2))
    np.testing.assert_allclose(G, A @ np.swapaxes(A, -1, -2), rtol=1e-13, atol=1e-13 * shape[-1])


@pytest.mark.parametrize("shape", [(50, 60), (2, 20, 700)])
def test_large_gram_matrices_have_the_bits_of_products(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    # Rows and columns of different sizes, and rows that are not contiguous.
    A = rng.normal(size=shape) * np.exp(3.0 * rng.normal(size=shape[-1]))
    for each in (A, np.swapaxes(np.swapaxes(A, -1, -2).copy(), -1, -2)):
        np.testing.assert_array_equal(products.gram(each), products.matmul(A, np.swapaxes(A, -1, -2)))


@pytest.mark.parametrize("size", [3, 60])
def test_what_is_not_finite_spreads_as_ieee_has_it(size: int) -> None:
    A, B = np.ones((size, size)), np.ones((size, size))
    A[0, 0], A[1, 1] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        C = products.matmul(A, B)
    assert np.isinf(C[0]).all()
    assert np.isnan(C[1]).all()
    assert (C[2:] == size).all()


@pytest.mark.parametrize("size", [3, 60])
def test_subnormal_numbers_are_multiplied(size: int) -> None:
    A = np.full((size, size), 2.0**-1070)
    assert (products.matmul(A, np.ones((size, size))) == size * 2.0**-1070).all()


@pytest.mark.parametrize("shape", [(60, 61), (5, 6), (2, 70_000)])
def test_layout_in_memory_does_not_show(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(8)
    A, B = rng.normal(size=shape), rng.normal(size=(shape[1], 40))
    expected = products.matmul(A, B)
    assert np.array_equal(products.matmul(np.asfortranarray(A), np.asfortranarray(B)), expected)
    assert np.array_equal(products.matmul(np.repeat(A, 2, axis=0)[::2], B), expected)


@pytest.mark.parametrize(("left", "right"), [((2, 100_001), (100_001,)), ((300, 3, 27), (300, 27, 2))])
@pytest.mark.parametrize("cached", [1, 10, 1000])
def test_branches_of_the_tree_do_not_show(
    monkeypatch: pytest.MonkeyPatch, left: tuple[int, ...], right: tuple[int, ...], cached: int
) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=left), rng.normal(size=right)
    whole = products.matmul(A, B)
    monkeypatch.setattr(products, "_CACHED", cached)
    assert products.matmul(A, B).tobytes() == whole.tobytes()


def test_products_that_lie_side_by_side_are_the_same() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(1000, 20, 30)), rng.normal(size=(1000, 30, 1))
    abreast = np.ascontiguousarray(A.transpose(2, 1, 0)).transpose(2, 1, 0)
    expected = np.stack([products.matmul(a, b) for a, b in zip(A, B, strict=True)])
    assert products.matmul(abreast, B).tobytes() == expected.tobytes()


def test_dot() -> None:
    assert products.dot(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 11.0
    with pytest.raises(UsageError, match="one dimension"):
        products.dot(np.eye(2), np.eye(2))


@pytest.mark.parametrize(
    ("A", "B"),
    [(np.eye(2), np.eye(3)), (np.eye(2), np.eye(2, dtype=np.float32)), (np.array(1.0), np.eye(2))],
)
def test_factors_must_fit(A: Floats, B: Floats) -> None:
    with pytest.raises(UsageError, match="factors must"):
        products.matmul(A, B)


def test_a_factor_multiplies_as_matmul_does_whatever_the_units() -> None:
    rng = np.random.default_rng(0)
    units = 10.0 ** rng.uniform(-9, 9, size=12)
    A, B = rng.normal(size=(3, 5, 12)), rng.normal(size=(3, 12, 2))
    factor = products.Factor(A * units)
    np.testing.assert_allclose(factor.times(B / units[:, None]), np.matmul(A, B), rtol=0, atol=1e-13)


def test_products_of_a_factor_are_those_of_each_matrix_by_itself() -> None:
    rng = np.random.default_rng(1)
    A, B = rng.normal(size=(4, 30, 30)), rng.normal(size=(4, 30, 7))
    whole = products.Factor(A).times(B)
    for i in range(4):
        np.testing.assert_array_equal(products.Factor(A[i]).times(B[i]), whole[i])
