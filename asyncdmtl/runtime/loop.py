"""The event loop: uvloop where it installs, plain asyncio elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")

# Below so many products of bytes, rows are coded on the event loop, which that holds up for a millisecond or
# two: a thread would cost more than the work.
INLINE = 1 << 25


class Terminated(BaseException):
    """Something other than Ctrl-C asked this process to stop, and it has cleaned up."""


def run(main: Coroutine[Any, Any, Result], *, until_eof: bool = False) -> Result:
    """Run `main` to its end on a new event loop and return its result.

    Ctrl-C, SIGTERM and SIGHUP cancel it, and with `until_eof` the end of standard input, that is of the
    process that started this one. When it has cleaned up, KeyboardInterrupt or Terminated is raised.
    """
    terminated = False

    async def guarded() -> Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 1 << 10):
                loop.remove_reader(sys.stdin.fileno())
                terminate()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, terminate)
        if until_eof:
            loop.add_reader(sys.stdin.fileno(), read)
        return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        try:
            return runner.run(guarded())
        except asyncio.CancelledError:
            if terminated:
                raise Terminated from None
            raise


def loop_name() -> str:
    """What `run` uses: "uvloop" or "asyncio"."""
    return "uvloop" if uvloop else "asyncio"
