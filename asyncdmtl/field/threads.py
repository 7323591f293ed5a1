"""Threads for products over GF(2^8). Kernels release the GIL, so parts of rows are computed in parallel."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

# Coefficients × bytes below which handing a part to another thread costs more than it saves.
WORK_PER_THREAD = 1 << 26


def in_threads(
    compute: Callable[[int, int], None], coefficients: int, length: int, threads: int | None = None
) -> None:
    """Call `compute(start, stop)` for parts that cover 0…`length`, in several threads if there is enough
    work.

    Parameters
    ----------
    compute : callable
        Computes bytes `start`…`stop` of every row of a result.
    coefficients : int
        Multiplications for each of the `length` bytes.
    length : int
    threads : int, optional
        The most threads. Default: as many as there are cores, if there is work for them.
    """
    if threads is None:
        threads = coefficients * length // WORK_PER_THREAD
        threads = threads if threads <= 1 else min(cores(), threads)
    threads = min(threads, length // 64)
    if threads <= 1:
        compute(0, length)
        return
    # Multiples of 64: only the last part ends within a machine word.
    step = -(-length // (64 * threads)) * 64
    spans = [(start, min(start + step, length)) for start in range(0, length, step)]
    others = [_pool().submit(compute, *span) for span in spans[1:]]
    try:
        compute(*spans[0])
    finally:
        wait(others)
    for other in others:
        other.result()


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads of all products in this process, started when first needed."""
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="asyncdmtl-gf256")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork; the child starts its own.
    os.register_at_fork(after_in_child=_pool.cache_clear)
