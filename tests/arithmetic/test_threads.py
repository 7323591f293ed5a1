from __future__ import annotations

from threadpoolctl import threadpool_info, threadpool_limits

from asyncdmtl.arithmetic.threads import single_threaded


def test_one_thread_inside_and_as_before_outside() -> None:
    before = [library["num_threads"] for library in threadpool_info()]
    with single_threaded():
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_overlapping_limits_leave_the_number_of_threads_as_it_was() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(limits=2):
        before = threads()
        first, second = single_threaded(), single_threaded()
        first.__enter__()
        second.__enter__()
        assert set(threads()) == {1}
        # The block that began first ends first, as may happen to fits in several threads.
        first.__exit__(None, None, None)
        assert set(threads()) == {1}
        second.__exit__(None, None, None)
        assert threads() == before
