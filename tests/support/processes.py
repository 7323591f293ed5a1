"""The worker processes that a run in processes has started."""

from __future__ import annotations

from pathlib import Path


def children() -> list[int]:
    """Process numbers of the workers that this process has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in pids if b"asyncdmtl.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
