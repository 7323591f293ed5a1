from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np  # noqa: F401 (loads its BLAS)
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from asyncdmtl.arithmetic.threads import single_threaded

AFTER_IMPORT = """
import numpy
from threadpoolctl import threadpool_info, threadpool_limits
from asyncdmtl.arithmetic.threads import single_threaded

def threads():
    return {pool["num_threads"] for pool in threadpool_info()}

threadpool_limits(limits=3)
with single_threaded():
    import scipy.linalg
    threadpool_limits(limits=3)
    with single_threaded():
        assert threads() == {1}, threadpool_info()
    assert threads() == {1}, threadpool_info()
assert threads() == {3}, threadpool_info()
"""


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_inside_and_as_before_outside() -> None:
    before = [library["num_threads"] for library in threadpool_info()]
    with single_threaded():
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_overlapping_limits_leave_the_number_of_threads_as_it_was() -> None:
    with threadpool_limits(limits=2):
        before = blas_threads()
        first, second = single_threaded(), single_threaded()
        first.__enter__()
        second.__enter__()
        assert blas_threads() == {1}
        # The block that began first ends first, as may happen to fits in several threads.
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


@pytest.mark.parametrize("limited_before", [False, True])
def test_blocks_of_several_threads_that_stay_alive(limited_before: bool) -> None:
    # A limit without a `with` block, as programs set it when they start, belongs to this thread for good.
    kept = threadpool_limits(limits=2) if limited_before else None
    with threadpool_limits(limits=2), ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        # Some OpenBLAS, as that of SCS, has one thread whatever the limit.
        before = blas_threads()
        # Each executor has one thread, which waits between these calls.
        first, second = single_threaded(), single_threaded()
        a.submit(first.__enter__).result()
        b.submit(second.__enter__).result()
        assert [each.submit(blas_threads).result() for each in (a, b)] == [{1}, {1}]
        a.submit(first.__exit__, None, None, None).result()
        assert b.submit(blas_threads).result() == {1}
        b.submit(second.__exit__, None, None, None).result()
        assert blas_threads() == before
        # Neither thread keeps others from setting limits.
        with threadpool_limits(limits=1):
            assert blas_threads() == {1}
    if kept is not None:
        kept.restore_original_limits()


def test_libraries_that_are_loaded_inside_a_block() -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
