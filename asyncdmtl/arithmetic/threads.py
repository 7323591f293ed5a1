"""Limit BLAS to one thread while results are computed that other machines must reproduce bit for bit."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit BLAS to one thread in a `with` block: how a sum is split over threads changes its last bits.

    Blocks may overlap, in one thread or in several. Libraries that share their threads among all threads of
    the process are limited until the last block ends; OpenMP has a limit for each thread. Then each library
    gets back the number of threads that it had.

    A library that is loaded inside a block is limited from the next block on, which may be an inner one.
    """
    with _lock:
        _own.blocks += 1
        _shared.blocks += 1
        for library in _loaded():
            openmp = "openmp" in (library.user_api, getattr(library, "threading_layer", None))
            (_own if openmp else _shared).limit(library)
    try:
        yield
    finally:
        with _lock:
            _own.end_block()
            _shared.end_block()


class _Limits:
    """Libraries that are limited to one thread, and the number of open blocks that ask for it."""

    def __init__(self) -> None:
        self.blocks = 0
        self._before: dict[str, tuple[Any, int]] = {}

    def limit(self, library: Any) -> None:
        """Limit a library of threadpoolctl to one thread."""
        threads = library.num_threads
        self._before.setdefault(library.filepath, (library, threads))
        if threads != 1:
            _set(library, 1)

    def end_block(self) -> None:
        """Give all libraries the numbers of threads that they had, if no other block is open."""
        self.blocks -= 1
        if not self.blocks:
            for library, threads in self._before.values():
                _set(library, threads)
            self._before.clear()


class _OwnLimits(_Limits, threading.local):
    """The limits that belong to the current thread."""


def _loaded() -> list[Any]:
    """The libraries with threads that this process has loaded."""
    global _libraries, _modules
    # To look for libraries takes milliseconds, and only a module that is imported brings one.
    if len(sys.modules) != _modules:
        _libraries, _modules = ThreadpoolController().lib_controllers, len(sys.modules)
    return _libraries


def _set(library: Any, threads: int) -> None:
    """Set the number of threads of a library, whichever thread has set it before."""
    library.set_num_threads(threads)
    # From threadpoolctl 3.7 on, the first thread to limit OpenBLAS owns the limit until the thread ends; what
    # other threads ask for is ignored.
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        if library.num_threads != threads:
            release(force=True)
            library.set_num_threads(threads)
        release()


# The libraries that were found, and the number of imported modules when they were looked for.
_libraries: list[Any] = []
_modules = 0

# The limits of this thread, those of the process, and the lock that guards all of this.
_own, _shared = _OwnLimits(), _Limits()
_lock = threading.Lock()
