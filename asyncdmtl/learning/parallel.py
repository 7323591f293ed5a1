"""Independent parts of one computation, in threads: NumPy releases the GIL in long operations."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from asyncdmtl.arithmetic import blas
from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.field.threads import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Threads at most: each has the memory that a part needs.
_MOST_THREADS = 4

# Numbers of a part below which handing it to another thread costs more than it saves.
_LEAST_NUMBERS = 1 << 16


class _Part(threading.local):
    """Whether the thread computes a part."""

    value = False


_PART = _Part()


def in_parallel(compute: Callable[[Item], Result], items: Sequence[Item], numbers: int) -> list[Result]:
    """`compute` of each item, in their order; the results do not depend on the number of threads.

    A part that uses this function itself has its own parts computed one after another.

    Parameters
    ----------
    compute : callable
        Raises what `in_parallel` then raises, once all parts have ended. It computes as this thread does: by
        `blas.by_blas`, with BLAS limited to one thread, and with the same floating-point errors ignored.
    items : sequence
    numbers : int
        About how many numbers each part works on.
    """
    if len(items) < 2 or numbers < _LEAST_NUMBERS or _PART.value or _threads() < 2:
        return [compute(item) for item in items]
    by_blas, errors = blas.chosen(), np.geterr()

    def one(item: Item) -> Result:
        with (
            blas.by_blas() if by_blas else contextlib.nullcontext(),
            single_threaded(),
            np.errstate(**errors),
        ):
            _PART.value = True
            try:
                return compute(item)
            finally:
                _PART.value = False

    parts = [_pool().submit(one, item) for item in items]
    wait(parts)
    return [part.result() for part in parts]


def _threads() -> int:
    return min(_MOST_THREADS, cores())


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads of all such computations in this process, started when first needed."""
    return ThreadPoolExecutor(max_workers=_threads(), thread_name_prefix="asyncdmtl-learning")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork; the child starts its own.
    os.register_at_fork(after_in_child=_pool.cache_clear)
