from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

from asyncdmtl.arrays import Bytes
from asyncdmtl.field import isal
from asyncdmtl.field.byte_rows import check_rows
from asyncdmtl.field.gf256 import PRODUCTS

LIBRARY = isal.library()
needs_isal = pytest.mark.skipif(LIBRARY is None, reason="no ISA-L on this machine")


def by_definition(matrix: Bytes, sources: Bytes) -> Bytes:
    return np.asarray(np.bitwise_xor.reduce(PRODUCTS[matrix[:, :, None], sources[None]], axis=1))


@needs_isal
@pytest.mark.parametrize(("r", "k", "length"), [(2, 3, 64), (7, 40, 3000), (13, 5, 257), (1, 1, 1)])
def test_products_are_right(r: int, k: int, length: int) -> None:
    assert LIBRARY is not None
    rng = np.random.default_rng(k)
    matrix = rng.integers(0, 256, (r, k), dtype=np.uint8)
    sources, out = rng.integers(0, 256, (k, length), dtype=np.uint8), np.zeros((r, length), np.uint8)
    kernel = isal.IsalKernel(LIBRARY, matrix)
    read, written = check_rows("sources", sources, k, length), check_rows("out", out, r, length)
    kernel(read, written, 0, length)
    expected = by_definition(matrix, sources)
    assert np.array_equal(out, expected)
    out[:] = 0
    kernel.prepared(read, written)()
    assert np.array_equal(out, expected)


@needs_isal
@pytest.mark.parametrize("ready", [True, False])
def test_ready_tables_are_those_that_the_library_makes(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    matrix = np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8)[::2]
    if not ready:
        monkeypatch.setattr(isal, "coefficient_tables", lambda library: None)
    expected = np.zeros(32 * matrix.size, dtype=np.uint8)
    packed = np.ascontiguousarray(matrix)
    LIBRARY.ec_init_tables(7, 5, packed.ctypes.data, expected.ctypes.data)
    assert np.array_equal(isal.IsalKernel(LIBRARY, matrix)._tables, expected)


@needs_isal
def test_a_library_with_tables_of_another_form_makes_them_itself() -> None:
    class Other:
        """Writes a single byte for each coefficient."""

        @staticmethod
        def ec_init_tables(k: int, r: int, matrix: int, tables: int) -> None:
            ctypes.memmove(tables, matrix, k * r)

    library = cast("ctypes.CDLL", Other())
    assert isal.coefficient_tables(library) is None
    matrix = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(isal._made_tables(library, matrix)[:7], [0, 1, 2, 3, 4, 5, 0])


@needs_isal
def test_blocks_are_copied_and_results_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 256, (8, 33), dtype=np.uint8)
    sources, out = rng.integers(0, 256, (33, 5000), dtype=np.uint8), np.zeros((8, 5000), np.uint8)
    read, written = check_rows("sources", sources, 33, 5000), check_rows("out", out, 8, 5000)
    monkeypatch.setattr(isal, "PACKED_BYTES", 33 * 128)
    packing = isal.IsalKernel(LIBRARY, matrix)
    assert packing._packs(5000, 5000)
    packing(read, written, 0, 5000)
    assert np.array_equal(out, by_definition(matrix, sources))
    monkeypatch.setattr(isal, "STREAMED_BYTES", 512)
    out[:] = 0
    packing(read, written, 7, 1500)
    assert np.array_equal(out[:, 7:1500], by_definition(matrix, sources)[:, 7:1500])
    assert not out[:, :7].any()
    assert not out[:, 1500:].any()


@pytest.fixture
def _searched_again() -> Iterator[None]:
    isal.library.cache_clear()
    yield
    isal.library.cache_clear()


@pytest.mark.usefixtures("_searched_again")
def test_a_library_that_does_not_load_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["/nowhere/libisal.so", ctypes.util.find_library("c")]
    monkeypatch.setattr(isal, "_candidates", lambda: iter(paths))
    assert isal.library() is None


@pytest.mark.usefixtures("_searched_again")
def test_an_installation_without_a_list_of_files_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_list(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", no_list)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libisal-of-the-system.so")
    assert list(isal._candidates())[-1] == "libisal-of-the-system.so"
