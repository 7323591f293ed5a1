"""Rest of Python's garbage collector while many objects without cycles are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Let the search for cyclic references rest in a `with` block.

    Among millions of objects it would take as long as the work itself, and stop all threads.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
