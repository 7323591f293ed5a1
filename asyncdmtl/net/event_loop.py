"""The event loop: uvloop where there is a package of it, plain asyncio elsewhere."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asyncdmtl.errors import Terminated

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")

# Seconds of processor time that work may take on the event loop. Handing it to a thread costs about a tenth
# of that, and heartbeats may be late by as much.
QUICK_SECONDS = 0.002


class AdaptiveExecutor:
    """Runs work of one kind again and again: on the event loop while it is quick, else in a thread."""

    def __init__(self) -> None:
        self._seconds = math.inf

    async def do(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `work` with these arguments."""
        if self._seconds < QUICK_SECONDS:
            return self._timed(work, *arguments)
        return await asyncio.to_thread(self._timed, work, *arguments)

    def _timed(self, work: Callable[..., Result], *arguments: Any) -> Result:
        # Processor time of this thread: other threads may run meanwhile.
        begun = time.thread_time()
        try:
            return work(*arguments)
        finally:
            self._seconds = time.thread_time() - begun


def run(main: Coroutine[Any, Any, Result], *, until_eof: bool = False) -> Result:
    """Run `main` to its end on a new event loop and return its result.

    Ctrl-C, SIGTERM and SIGHUP cancel it, except for signals that the caller of this program ignores. With
    `until_eof` the end of standard input does, too, which is the end of the process that started this one.

    Raises
    ------
    KeyboardInterrupt, Terminated
        `main` was cancelled and has cleaned up.
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
            # Under nohup, SIGHUP is ignored, and stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
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
    """The library whose event loop `run` uses: "uvloop" or "asyncio"."""
    return "uvloop" if uvloop else "asyncio"
