from __future__ import annotations

import threading

import numpy as np
import pytest

from asyncdmtl.arithmetic import blas
from asyncdmtl.errors import DataError
from asyncdmtl.learning import parallel
from asyncdmtl.learning.parallel import in_parallel

LONG = 1 << 16


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel._pool.cache_clear()
    monkeypatch.setattr(parallel, "cores", lambda: 2)


def test_parts_run_at_the_same_time_and_results_have_the_order_of_items() -> None:
    both = threading.Barrier(2)

    def compute(item: int) -> int:
        both.wait(60)
        return -item

    assert in_parallel(compute, [3, 1], LONG) == [-3, -1]


@pytest.mark.parametrize(("items", "numbers"), [(range(3), LONG - 1), (range(1), LONG)])
def test_what_is_short_or_alone_stays_in_its_thread(items: range, numbers: int) -> None:
    here = threading.get_ident()
    assert set(in_parallel(lambda _: threading.get_ident(), items, numbers)) == {here}


def test_one_core_has_no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), LONG)) == {threading.get_ident()}


def test_an_error_is_raised_once_all_parts_have_ended() -> None:
    ended = []

    def compute(item: int) -> None:
        if not item:
            raise DataError("part", "must not be", item)
        ended.append(item)

    with pytest.raises(DataError, match="part must not be, got 0"):
        in_parallel(compute, range(4), LONG)
    assert sorted(ended) == [1, 2, 3]


def test_parts_compute_as_their_caller_does() -> None:
    with blas.by_blas(), np.errstate(over="ignore", invalid="raise"):
        told = in_parallel(lambda _: (blas.chosen(), np.geterr()), range(2), LONG)
        assert told == [(True, np.geterr())] * 2
    assert in_parallel(lambda _: blas.chosen(), range(2), LONG) == [False, False]


def test_parts_of_a_part_are_computed_in_its_thread() -> None:
    def compute(item: int) -> bool:
        inner = in_parallel(lambda _: threading.get_ident(), range(3), LONG)
        return set(inner) == {threading.get_ident()}

    assert in_parallel(compute, range(4), LONG) == [True] * 4
