from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError
from asyncdmtl.field import gf256, isal, threads
from asyncdmtl.field.gf256 import Kernel, Product, inverse, kernel_name, matmul, multiply

if TYPE_CHECKING:
    import galois

KERNELS: tuple[Kernel, ...] = ("numpy", "isa-l") if isal.library() else ("numpy",)
LENGTHS = (0, 1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 200)


@pytest.fixture(scope="module")
def oracle() -> type[galois.FieldArray]:
    """An independent implementation, multiplying by logarithms in NumPy or in code made by numba."""
    from galois import GF  # here, since it takes seconds

    field: type[galois.FieldArray] = GF(2**8, irreducible_poly=0x11D)
    return field


def random(seed: int, *shape: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def dense(seed: int, r: int, k: int) -> Bytes:
    """A random matrix without any structure that products use."""
    return np.random.default_rng(seed).integers(2, 256, (r, k), dtype=np.uint8)


def by_definition(matrix: Bytes, sources: Bytes) -> Bytes:
    """Σ_j matrix[i, j] · sources[j] from the (separately checked) products of elements."""
    terms = multiply(matrix[:, :, None], sources[None])
    return np.asarray(np.bitwise_xor.reduce(terms, axis=1))


def structured(seed: int, r: int, k: int) -> Bytes:
    """A random matrix with rows of zeros, unit rows, equal rows and columns of zeros."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 256, (r, k), dtype=np.uint8)
    matrix[:, rng.random(k) < 0.2] = 0
    for i, kind in enumerate(rng.integers(0, 6, r)):
        if kind == 0:
            matrix[i] = 0
        elif kind in (1, 2) and k:
            matrix[i] = 0
            matrix[i, rng.integers(k)] = kind  # a unit row, or almost one
        elif kind == 3 and i:
            matrix[i] = matrix[rng.integers(i)]
    return matrix


def test_all_products_and_inverses_agree_with_an_independent_implementation(
    oracle: type[galois.FieldArray],
) -> None:
    byte = np.arange(256, dtype=np.uint8)
    everything = oracle(byte[:, None]) * oracle(byte[None, :])
    np.testing.assert_array_equal(multiply(byte[:, None], byte), np.asarray(everything))
    np.testing.assert_array_equal(inverse(byte[1:]), np.asarray(oracle(byte[1:]) ** -1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("r", "k", "length"), [(1, 1, 1), (3, 2, 64), (7, 9, 65), (13, 20, 33), (5, 300, 3)])
def test_products_agree_with_an_independent_implementation(
    oracle: type[galois.FieldArray], kernel: Kernel, r: int, k: int, length: int
) -> None:
    matrix, sources = random(1, r, k), random(2, k, length)
    expected = np.asarray(oracle(matrix) @ oracle(sources))
    np.testing.assert_array_equal(Product(matrix, kernel)(sources), expected)
    np.testing.assert_array_equal(matmul(matrix, sources), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=60, deadline=None)
@given(
    r=st.integers(0, 20),
    k=st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 300])),
    length=st.sampled_from(LENGTHS),
    seed=st.integers(0, 2**32 - 1),
)
@example(r=0, k=3, length=5, seed=0)
@example(r=3, k=0, length=5, seed=0)
@example(r=0, k=0, length=0, seed=0)
@example(r=20, k=300, length=200, seed=0)
def test_structure_is_used_and_not_seen(kernel: Kernel, r: int, k: int, length: int, seed: int) -> None:
    matrix, sources = structured(seed, r, k), random(seed, k, length)
    before = sources.copy()
    expected = by_definition(matrix, sources)
    product = Product(matrix, kernel)
    np.testing.assert_array_equal(product(sources), expected)
    np.testing.assert_array_equal(product(sources, threads=3), expected)
    np.testing.assert_array_equal(sources, before)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=40, deadline=None)
@given(
    r=st.integers(0, 9),
    k=st.integers(0, 12),
    length=st.sampled_from(LENGTHS),
    seed=st.integers(0, 2**32 - 1),
    scattered=st.booleans(),
)
@example(r=0, k=0, length=0, seed=0, scattered=True)
@example(r=2, k=0, length=7, seed=0, scattered=True)
@example(r=0, k=2, length=7, seed=0, scattered=True)
def test_rows_may_lie_anywhere_and_nothing_else_is_written(
    kernel: Kernel, r: int, k: int, length: int, seed: int, scattered: bool
) -> None:
    rng = np.random.default_rng(seed)
    matrix, sources = structured(seed, r, k), random(seed, k, length)
    heap = random(seed + 1, r + k, length + 70)
    before = heap.copy()
    order = rng.permutation(r + k).tolist()
    offset = rng.integers(0, 70, r + k).tolist() if scattered else [13] * (r + k)
    places = [heap[i, at : at + length] for i, at in zip(order, offset, strict=True)]
    read, written = places[:k], places[k:]
    for row, content in zip(read, sources, strict=True):
        row[:] = content
    for i, at, content in zip(order, offset, [*sources, *by_definition(matrix, sources)], strict=True):
        before[i, at : at + length] = content

    out: list[Bytes] = written
    assert Product(matrix, kernel)(read, out, threads=2) is out
    np.testing.assert_array_equal(heap, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_strided_out_is_written_in_place(kernel: Kernel) -> None:
    matrix, sources = structured(3, 8, 5), random(4, 5, 90)
    for rows in (slice(None, None, 2), slice(None, None, -2)):
        field = np.zeros((16, 100), dtype=np.uint8)
        out = field[rows, 5:95]
        assert Product(matrix, kernel)(sources, out) is out
        np.testing.assert_array_equal(out, by_definition(matrix, sources))
        out[:] = 0
        assert not field.any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("r", "k", "length"), [(2, 3, 3 * (1 << 20) + 17), (7, 40, 70_001), (3, 900, 3_000), (12, 9, 300_000)]
)
def test_blocks_and_threads_do_not_change_the_result(
    kernel: Kernel, r: int, k: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "WORK_PER_THREAD", 1 << 10)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    matrix, sources = structured(r, r, k), random(k, k, length)
    expected = np.zeros((r, length), dtype=np.uint8)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        expected[i] ^= multiply(matrix[i, j], sources[j])
    product = Product(matrix, kernel)
    for count in (None, 1, 2, 5):
        np.testing.assert_array_equal(product(sources, threads=count), expected)
    np.testing.assert_array_equal(product(list(sources)), expected)


@pytest.mark.skipif("isa-l" not in KERNELS, reason="no ISA-L on this machine")
@pytest.mark.parametrize("k", [1, 2, 31, 255, 256, 257, 513, 2000])
@pytest.mark.parametrize("r", [1, 2, 3, 4, 5, 6, 7, 13])
def test_isal_is_right_for_every_count_and_short_length(r: int, k: int) -> None:
    matrix = random(k, r, k) | np.uint8(2)  # no unit rows, no zeros
    isal, plain = Product(matrix, "isa-l"), Product(matrix, "numpy")
    for length in (*range(1, 70, 3), 127, 128, 129):
        sources = random(length, k, length)
        np.testing.assert_array_equal(isal(sources), plain(sources))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("structure", [False, True])
def test_buffers_that_are_used_again_are_multiplied_again(kernel: Kernel, structure: bool) -> None:
    matrix = structured(3, 5, 6) if structure else dense(3, 5, 6)
    product, sources, out = Product(matrix, kernel), np.empty((6, 70), np.uint8), np.empty((5, 70), np.uint8)
    for seed in range(3):
        sources[:] = random(seed, 6, 70)
        assert product(sources, out) is out
        assert np.array_equal(out, by_definition(matrix, sources))
    other = random(4, 6, 70)
    assert np.array_equal(product(other, out), by_definition(matrix, other))
    assert np.array_equal(product(sources, out), by_definition(matrix, sources))


def test_buffers_that_are_used_again_are_checked_where_they_have_changed() -> None:
    product, sources, out = Product(dense(0, 5, 6)), random(1, 6, 70), np.empty((5, 70), np.uint8)
    product(sources, out)
    out.flags.writeable = False
    with pytest.raises(UsageError, match="out must be writeable"):
        product(sources, out)
    out.flags.writeable = True
    with pytest.raises(UsageError, match="threads must be at least 1"):
        product(sources, out, threads=0)
    with pytest.raises(ValueError, match="references"):
        sources.resize((7, 70))
    with pytest.raises(UsageError, match="must have 6 rows"):
        product(sources[:5], out)


def test_large_buffers_are_not_kept() -> None:
    product, sources = Product(dense(0, 2, 2)), np.zeros((2, 1 << 19), np.uint8)
    kept = weakref.ref(sources)
    product(sources, np.zeros_like(sources))
    del sources
    assert kept() is None


def test_what_a_small_view_is_a_view_of_is_not_kept() -> None:
    product, whole = Product(dense(0, 2, 2)), np.zeros((2, 1 << 22), np.uint8)
    kept = weakref.ref(whole)
    product(whole[:, :100], np.zeros((2, 100), np.uint8))
    del whole
    assert kept() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    product, sources = Product(random(1, 3, 4)), random(2, 4, 1000)
    expected = product(sources, threads=2).tobytes()
    if (child := os.fork()) == 0:
        os._exit(0 if product(sources, threads=2).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_product_does_not_change_with_the_array_it_was_made_from() -> None:
    matrix, sources = random(5, 3, 4), random(6, 4, 10)
    product = Product(matrix)
    expected = by_definition(matrix, sources)
    matrix[:] = 0
    np.testing.assert_array_equal(product(sources), expected)
    with pytest.raises(ValueError, match="read-only"):
        product.matrix[0, 0] = 1


def test_empty_shapes() -> None:
    assert Product(np.zeros((0, 3), np.uint8))(random(1, 3, 5)).shape == (0, 5)
    np.testing.assert_array_equal(
        Product(np.zeros((2, 0), np.uint8))(np.zeros((0, 4), np.uint8)), np.zeros((2, 4))
    )
    assert Product(random(1, 2, 3))(random(1, 3, 0)).shape == (2, 0)
    with pytest.raises(UsageError, match="without rows"):
        Product(np.zeros((2, 0), np.uint8))([])


def test_sources_may_be_read_only_and_overlap_each_other() -> None:
    data = np.frombuffer(bytes(range(100)), dtype=np.uint8)
    rows = [data[0:50], data[25:75], data[0:50]]
    matrix = random(9, 2, 3)
    np.testing.assert_array_equal(Product(matrix)(rows), by_definition(matrix, np.stack(rows)))


BUFFER = np.zeros(200, dtype=np.uint8)
SOURCES = np.zeros((3, 10), dtype=np.uint8)
INTEGERS: Any = np.ones((2, 2), dtype=np.int64)
READ_ONLY = np.frombuffer(bytes(20), dtype=np.uint8).reshape(2, 10)


@pytest.mark.parametrize(
    ("sources", "out", "rule"),
    [
        (SOURCES[:2], None, "sources must have 3 rows"),
        (list(SOURCES[:2]), None, "sources must have 3 rows"),
        (SOURCES[0], None, "sources must be a 2-D array of uint8"),
        (SOURCES.astype(np.int16), None, "sources must be a 2-D array of uint8"),
        (SOURCES[:, ::2], None, "sources must have contiguous rows"),
        (SOURCES.T.copy().T, None, "sources must have contiguous rows"),
        ([SOURCES[0], SOURCES[1], SOURCES[2, ::2]], None, r"sources\[2\] must be contiguous"),
        ([SOURCES[0], SOURCES[1], SOURCES[2, :9]], None, r"sources\[2\] must be 10 bytes long"),
        ([SOURCES[0], SOURCES[1], bytes(10)], None, r"sources\[2\] must be a 1-D array"),
        (SOURCES, np.zeros((3, 10), np.uint8), "out must have 2 rows"),
        (SOURCES, np.zeros((2, 9), np.uint8), "out must have rows of 10 bytes"),
        (SOURCES, [np.zeros(10, np.uint8), np.zeros(9, np.uint8)], r"out\[1\] must be 10 bytes"),
        (SOURCES, np.zeros((2, 10), np.float32), "out must be a 2-D array of uint8"),
        (SOURCES, READ_ONLY, "out must be writeable"),
        (SOURCES, list(READ_ONLY), "out must be writeable"),
        (SOURCES, SOURCES[1:], "out must not overlap the sources"),
        (
            list(BUFFER[:30].reshape(3, 10)),
            [BUFFER[29:39], BUFFER[50:60]],
            "out must not overlap the sources",
        ),
        (
            [BUFFER[20:30], BUFFER[100:110], BUFFER[45:55]],
            [BUFFER[0:10], BUFFER[54:64]],
            "out must not overlap",
        ),
        (SOURCES, [BUFFER[0:10], BUFFER[9:19]], "out must have rows that do not overlap"),
        (SOURCES, np.lib.stride_tricks.as_strided(BUFFER, (2, 10), (9, 1)), "out must have rows that do not"),
    ],
)
def test_what_breaks_the_contract_is_refused(sources: Bytes, out: Bytes | None, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        Product(random(1, 2, 3))(sources, out)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda: Product(INTEGERS), "matrix must have dtype uint8"),
        (lambda: Product(np.zeros(3, np.uint8)), "matrix must have two axes"),
        (lambda: Product(random(1, 2, 2), "gpu"), "kernel must be"),  # type: ignore[arg-type]
        (lambda: Product(random(1, 2, 2))(random(1, 2, 2), threads=0), "threads must be at least 1"),
        (lambda: inverse(np.array([3, 0], np.uint8)), "a must be non-zero"),
        (lambda: multiply(random(1, 2), random(1, 3)), "b must broadcast"),
        (lambda: multiply(random(1, 2), INTEGERS), "b must have dtype uint8"),
        (lambda: matmul(random(1, 2, 3), random(1, 2, 3)), "must have 3 rows"),
    ],
)
def test_wrong_arguments_are_named(wrong: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        wrong()


def test_the_environment_chooses_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCDMTL_KERNEL", "numpy")
    assert kernel_name() == Product(random(1, 2, 2)).kernel == "numpy"
    monkeypatch.setenv("ASYNCDMTL_KERNEL", "auto")
    assert kernel_name() == KERNELS[-1]
    monkeypatch.setenv("ASYNCDMTL_KERNEL", "abacus")
    with pytest.raises(UsageError, match="ASYNCDMTL_KERNEL"):
        kernel_name()


@pytest.mark.parametrize("broken", ["absent", "wrong"])
def test_isal_that_is_absent_or_wrong_is_not_used(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASYNCDMTL_KERNEL", raising=False)
    if broken == "absent":
        monkeypatch.setattr(isal, "library", lambda: None)
    else:
        monkeypatch.setattr(isal, "library", WrongLibrary)
    gf256._isal_works.cache_clear()
    try:
        assert kernel_name() == "numpy"
        with pytest.raises(UsageError, match="only where a sound libisal"):
            Product(random(1, 2, 2), "isa-l")
    finally:
        gf256._isal_works.cache_clear()


class WrongLibrary:
    """Stands in for a build of ISA-L that computes nothing."""

    def ec_init_tables(self, *args: int) -> None: ...

    def ec_encode_data(self, *args: int) -> None: ...


@pytest.mark.parametrize(("r", "k", "c"), [(40, 5, 3), (3, 5, 40), (7, 0, 2), (9, 4, 0), (4, 4, 2)])
def test_tall_and_wide_products_are_right(r: int, k: int, c: int) -> None:
    rng = np.random.default_rng(r)
    a, b = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((k, r), (k, c)))
    product = gf256.dense_product(a.T, b)
    assert product.flags.c_contiguous
    assert np.array_equal(product, np.bitwise_xor.reduce(gf256.PRODUCTS[a.T[:, :, None], b[None]], axis=1))
