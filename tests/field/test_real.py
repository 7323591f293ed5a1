import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.arrays import Floats
from asyncdmtl.field import real


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_rank_and_bases_agree_with_construction(m: int, n: int, r: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = min(r, m, n)
    matrix = real.random_orthonormal(rng, m, r) @ real.random_orthonormal(rng, r, n)
    assert real.rank(1e-30 * matrix) == real.rank(1e30 * matrix) == r
    columns, rows = real.column_basis(matrix), real.row_basis(matrix)
    assert columns.shape == (m, r)
    assert rows.shape == (r, n)
    np.testing.assert_allclose(columns.T @ columns, np.eye(r), atol=1e-12)
    np.testing.assert_allclose(columns @ (columns.T @ matrix), matrix, atol=1e-12)
    np.testing.assert_allclose((matrix @ rows.T) @ rows, matrix, atol=1e-12)


def test_rank_ignores_rounding_and_no_more() -> None:
    matrix = np.diag([1.0, 1e-10, 1e-13])
    assert real.rank(matrix) == 2
    assert real.condition_number(matrix) == pytest.approx(1e10)
    assert real.rank(np.zeros((3, 4))) == real.rank(np.zeros((0, 4))) == 0
    assert real.condition_number(np.zeros((2, 2))) == 1.0


def test_random_orthonormal_is_fixed_by_its_seed() -> None:
    def draw(seed: int, rows: int, columns: int) -> Floats:
        return real.random_orthonormal(np.random.default_rng(seed), rows, columns)

    tall, wide = draw(1, 7, 3), draw(1, 3, 7)
    np.testing.assert_allclose(tall.T @ tall, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(wide @ wide.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(tall, draw(1, 7, 3))
    assert not np.array_equal(tall, draw(2, 7, 3))
    # A uniform distribution has both signs on the diagonal, unlike LAPACK's convention.
    signs = {float(np.sign(draw(seed, 1, 1)[0, 0])) for seed in range(20)}
    assert signs == {-1.0, 1.0}


def test_unit_columns_of_extreme_lengths() -> None:
    unit = real.unit_columns(np.array([[3e200, 3e-200, 0.0], [4e200, 4e-200, 0.0]]))
    np.testing.assert_allclose(unit, [[0.6, 0.6, 0.0], [0.8, 0.8, 0.0]])


def test_solve_gives_the_shortest_least_squares_solution() -> None:
    np.testing.assert_allclose(real.solve(np.array([[1.0, 1.0]]), np.array([[2.0]])), [[1.0], [1.0]])
    np.testing.assert_allclose(real.solve(np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]])), [[2.0]])
    assert real.solve(np.zeros((0, 3)), np.zeros((0, 2))).shape == (3, 2)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("length", [1, 7, 40_000])
def test_product_sums_in_the_order_of_the_terms(single: bool, length: int) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((3, 5)) * (rng.random((3, 5)) < 0.7)
    drawn = rng.standard_normal((5, length))
    vectors = drawn.astype(np.float32) if single else drawn
    found = real.product(matrix, vectors)
    expected = np.zeros((3, length))
    for n in range(5):
        expected += matrix[:, [n]] * vectors[[n]].astype(np.float64)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, matrix @ vectors.astype(np.float64), rtol=1e-10, atol=1e-12)


def test_kron_identity_acts_on_packets() -> None:
    matrix, vectors = np.array([[1.0, 2.0], [0.0, 3.0]]), np.arange(12.0).reshape(2, 6)
    packets = real.kron_identity(matrix, 3) @ vectors.reshape(6, 2)
    np.testing.assert_array_equal(packets.reshape(2, 6), matrix @ vectors)
