"""The limit of files and connections that this process may have open at once."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
from typing import Any

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

# The number of open files to which the soft limit is raised, if the hard limit permits. Each worker takes
# one, and a run with more workers cannot be planned.
ENOUGH_FILES = 1 << 16

# The fewest seconds between two lines in the log about files that could not be opened.
REPORT_SECONDS = 10.0


def raise_limit() -> None:
    """Raise the soft limit of open files to the largest number that is permitted and useful."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(ENOUGH_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def max_files() -> int | None:
    """The soft limit of open files, or None if there is none."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def limit_reached(error: BaseException | None) -> str:
    """An explanation of an error about too many open files; "" for any other error."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return ""
    if error.errno == errno.ENFILE:
        return "too many open files on this machine (sysctl fs.file-max)"
    return f"too many open files, the limit of this process is {max_files()} (ulimit -n)"


class LimitReporter:
    """Handles errors of an event loop; errors about too many open files are logged once, not for each
    attempt.

    `asyncio.loop.set_exception_handler` takes an instance of this class.
    """

    def __init__(self) -> None:
        self._reported = -REPORT_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report what went wrong."""
        if not (reason := limit_reached(context.get("exception"))):
            loop.default_exception_handler(context)
        elif loop.time() - self._reported >= REPORT_SECONDS:
            self._reported = loop.time()
            log.error("a connection could not be taken: %s", reason)
