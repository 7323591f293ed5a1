from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import linalg
from asyncdmtl.field.gf256 import matmul
from asyncdmtl.field.linalg import independent_rows, invert, rank, solve

if TYPE_CHECKING:
    import galois

SIZES = st.one_of(st.integers(0, 6), st.sampled_from([15, 16, 17, 31, 33, 48]))
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def oracle() -> type[galois.FieldArray]:
    from galois import GF  # here, since it takes seconds

    field: type[galois.FieldArray] = GF(2**8, irreducible_poly=0x11D)
    return field


def random(rng: np.random.Generator, *shape: int) -> Bytes:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def triangular(rng: np.random.Generator, n: int) -> Bytes:
    """An invertible matrix: triangular with a non-zero diagonal, with rows shuffled."""
    matrix = np.tril(random(rng, n, n), -1)
    np.fill_diagonal(matrix, rng.integers(1, 256, n))
    return matrix[rng.permutation(n)]


def of_rank(rng: np.random.Generator, rows: int, columns: int, target: int) -> Bytes:
    """A matrix (rows, columns) of rank `target`: invertible × a selection × invertible."""
    core = np.zeros((rows, columns), dtype=np.uint8)
    core[:target, :target] = np.eye(target, dtype=np.uint8)
    return matmul(matmul(triangular(rng, rows), core), triangular(rng, columns))


@settings(max_examples=80, deadline=None)
@given(rows=SIZES, columns=SIZES, part=st.floats(0, 1), seed=SEEDS)
@example(rows=0, columns=0, part=0.0, seed=0)
@example(rows=0, columns=5, part=0.0, seed=0)
@example(rows=5, columns=0, part=0.0, seed=0)
@example(rows=48, columns=48, part=1.0, seed=0)
def test_rank_by_construction(rows: int, columns: int, part: float, seed: int) -> None:
    target = round(part * min(rows, columns))
    matrix = of_rank(np.random.default_rng(seed), rows, columns, target)
    before = matrix.copy()
    assert rank(matrix) == rank(matrix.T) == target
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("shape", [(4, 4), (20, 17), (17, 20), (35, 35)])
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_rank_and_inverse_agree_with_an_independent_implementation(
    oracle: type[galois.FieldArray], shape: tuple[int, int], density: float
) -> None:
    rng = np.random.default_rng(11)
    matrix = random(rng, *shape) * (rng.random(shape) < density).astype(np.uint8)
    expected = int(np.linalg.matrix_rank(oracle(matrix)))
    assert rank(matrix) == expected
    if expected == shape[0] == shape[1]:
        np.testing.assert_array_equal(invert(matrix), np.asarray(np.linalg.inv(oracle(matrix))))


def test_random_square_matrix_has_the_inverse_that_galois_finds(oracle: type[galois.FieldArray]) -> None:
    matrix = triangular(np.random.default_rng(3), 33)
    np.testing.assert_array_equal(invert(matrix), np.asarray(np.linalg.inv(oracle(matrix))))


@settings(max_examples=60, deadline=None)
@given(n=SIZES, columns=st.integers(0, 9), seed=SEEDS)
@example(n=0, columns=2, seed=0)
@example(n=48, columns=0, seed=0)
def test_inverse_and_solution_undo_the_product(n: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = matmul(triangular(rng, n), triangular(rng, n))
    before = a.copy()
    identity = np.eye(n, dtype=np.uint8)
    np.testing.assert_array_equal(matmul(a, invert(a)), identity)
    np.testing.assert_array_equal(matmul(invert(a), a), identity)
    x = random(rng, n, columns)
    np.testing.assert_array_equal(solve(a, matmul(a, x)), x)
    np.testing.assert_array_equal(a, before)


@settings(max_examples=40, deadline=None)
@given(n=st.sampled_from([1, 2, 16, 17, 33]), part=st.floats(0, 1), seed=SEEDS)
def test_singular_matrices_are_refused(n: int, part: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = of_rank(rng, n, n, int(part * (n - 1)))
    with pytest.raises(CodingError, match="singular"):
        invert(matrix)
    with pytest.raises(CodingError, match="singular"):
        solve(matrix, random(rng, n, 2))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 24), columns=st.integers(0, 20), part=st.floats(0, 1), seed=SEEDS)
@example(rows=24, columns=20, part=1.0, seed=0)
def test_independent_rows_are_the_first(rows: int, columns: int, part: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = of_rank(rng, rows, columns, round(part * min(rows, columns)))
    matrix[rng.random(rows) < 0.2] = 0
    grows = [rank(matrix[: i + 1]) > rank(matrix[:i]) for i in range(rows)]
    assert independent_rows(matrix) == tuple(i for i in range(rows) if grows[i])


def test_large_matrices() -> None:
    rng = np.random.default_rng(7)
    matrix = of_rank(rng, 300, 280, 251)
    assert rank(matrix) == 251
    chosen = independent_rows(matrix)
    assert len(chosen) == rank(matrix[list(chosen)]) == 251
    square = matmul(triangular(rng, 300), triangular(rng, 300))
    np.testing.assert_array_equal(matmul(square, invert(square)), np.eye(300, dtype=np.uint8))


FLAT = np.ones(3, dtype=np.uint8)
FLOATS: Any = np.eye(3)
WIDE = np.ones((2, 3), dtype=np.uint8)
IDENTITY = np.eye(3, dtype=np.uint8)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda: rank(FLAT), "matrix must have two axes"),
        (lambda: rank(FLOATS), "matrix must have dtype uint8"),
        (lambda: independent_rows(FLAT), "matrix must have two axes"),
        (lambda: invert(WIDE), "matrix must be square"),
        (lambda: solve(IDENTITY, WIDE), "b must have 3 rows"),
        (lambda: solve(IDENTITY, FLAT), "b must have two axes"),
    ],
)
def test_wrong_arguments_are_named(wrong: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        wrong()


@pytest.mark.parametrize(
    ("rows", "columns", "rank_"),
    [(0, 5, 0), (5, 0, 0), (3, 9, 3), (40, 60, 25), (200, 300, 140), (300, 200, 190)],
)
def test_null_space_is_all_that_a_matrix_maps_to_zero(rows: int, columns: int, rank_: int) -> None:
    rng = np.random.default_rng(rows)
    left = rng.integers(0, 256, (rows, rank_), dtype=np.uint8)
    matrix = matmul(left, rng.integers(0, 256, (rank_, columns), dtype=np.uint8))
    basis = linalg.null_space(matrix)
    assert basis.shape == (columns, columns - linalg.rank(matrix))
    assert linalg.rank(basis) == basis.shape[1]
    assert not matmul(matrix, basis).any()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    matrix = matmul(
        rng.integers(0, 256, (70, 30), dtype=np.uint8), rng.integers(0, 256, (30, 90), dtype=np.uint8)
    )
    before = linalg.rank(matrix), linalg.independent_rows(matrix), linalg.null_space(matrix)
    monkeypatch.setattr(linalg, "BLOCK", 7)
    monkeypatch.setattr(linalg, "PANEL", 3)
    assert (linalg.rank(matrix), linalg.independent_rows(matrix)) == before[:2]
    assert np.array_equal(linalg.null_space(matrix), before[2])
