"""Solutions that workers of one machine share: the first of them solves, and the others read.

Workers that are threads of one process share by memory. Worker processes that one command started share by a
folder that belongs to this command alone; its path is in the environment. Every worker would compute the same
bits, so sharing changes nothing but the time that is needed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from asyncdmtl.arrays import Floats

# The environment variable with the path of the folder. `run` sets it for the workers that it starts.
FOLDER_VARIABLE = "ASYNCDMTL_SOLUTIONS"

# Seconds between two looks at whether another process that solves is done.
PAUSE = 0.02

# The number of looks, some 60 seconds, after which a process solves by itself: the other one may have been
# stopped.
MOST_LOOKS = 3000

# The last solution of this process by its key, and the lock by which one thread at a time solves.
_SOLVED: dict[bytes, Floats] = {}
_SOLVING = threading.Lock()


def shared(key: bytes, solve: Callable[[], Floats]) -> Floats:
    """The solution with this key: from this process, from another one, or from `solve`.

    Parameters
    ----------
    key : bytes
        A digest of everything that the solution depends on.
    solve : callable
        Computes the solution, a float64 array.
    """
    with _SOLVING:
        if key not in _SOLVED:
            _SOLVED.clear()
            folder = os.environ.get(FOLDER_VARIABLE)
            _SOLVED[key] = solve() if folder is None else _from_folder(Path(folder), key, solve)
        return _SOLVED[key]


def _from_folder(folder: Path, key: bytes, solve: Callable[[], Floats]) -> Floats:
    """The solution in the folder; if there is none, the result of `solve`, which is written there."""
    file = folder / f"{key.hex()}.npy"
    with contextlib.suppress(OSError), _alone(folder):
        with contextlib.suppress(OSError, ValueError, EOFError):
            found: Floats = np.load(file, allow_pickle=False)
            return found
        solution = solve()
        unfinished = file.with_suffix(f".{os.getpid()}")
        # Without the file, the others solve by themselves.
        with contextlib.suppress(OSError):
            with unfinished.open("wb") as opened:
                np.save(opened, solution, allow_pickle=False)
            unfinished.replace(file)
        return solution
    return solve()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A block that one process at a time is in; TimeoutError, an OSError, if another one stays in it."""
    # Imported here, because Windows has no such module.
    import fcntl

    with (folder / "solving").open("w") as lock:
        for _ in range(MOST_LOOKS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                threading.Event().wait(PAUSE)
        else:
            raise TimeoutError
        yield
