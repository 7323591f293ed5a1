"""Limit BLAS to one thread while results are computed that other machines must reproduce bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit BLAS to one thread in a `with` block: how a sum is split over threads changes its last bits.

    Blocks may overlap, in one thread or in several. The first sets the limit, and the last to end restores
    the number of threads that the first found.
    """
    global _limit, _blocks
    with _lock:
        if not _blocks:
            _limit = threadpool_limits(limits=1)
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks and _limit is not None:
                _limit.restore_original_limits()
                _limit = None


# The limit that `single_threaded` has set, the number of its open blocks, and the lock that guards both.
_limit: threadpool_limits | None = None
_blocks = 0
_lock = threading.Lock()
