"""Threads for products over GF(2^8). Kernels release the GIL, so parts of rows are computed in parallel."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

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
    """The number of cores that this process may use, by its affinity and the quota of its control groups."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(here, _quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))))


@functools.cache
def _quota(groups: Path, own: Path) -> float:
    """The processors that the control groups of this process permit; infinity if they set no limit.

    Parameters
    ----------
    groups : Path
        The mount point of the hierarchies of control groups.
    own : Path
        A file that names the groups of this process, line by line as `0::/path` or `4:cpu,cpuacct:/path`.
    """
    least = math.inf
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        group = root / path.lstrip("/")
        # The limits of all parent groups hold, too. In a container, the path may lie outside of the
        # container.
        for folder in {root, *(f for f in (group, *group.parents) if root in f.parents)}:
            least = min(least, _limit(folder))
    return least


def _limit(folder: Path) -> float:
    """The processors that one control group permits, of version 2 or 1."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if quota.strip() not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads of all products in this process, started when first needed."""
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="asyncdmtl-gf256")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork; the child starts its own.
    os.register_at_fork(after_in_child=_pool.cache_clear)
