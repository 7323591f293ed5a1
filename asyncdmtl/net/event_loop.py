"""The event loop: uvloop if it is installed, else plain asyncio."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.errors import Terminated
from asyncdmtl.net.open_files import LimitReporter, raise_limit

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")

# The most seconds of processor time of work on the event loop, by which heartbeats may be late. Passing work
# to a thread costs about a tenth of that.
QUICK_SECONDS = 0.002


class AdaptiveExecutor:
    """Runs one kind of work repeatedly: on the event loop as long as it is quick, else in a thread.

    BLAS is limited to one thread meanwhile.
    """

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
            # Some BLAS libraries have a limit for each thread.
            with single_threaded():
                return work(*arguments)
        finally:
            self._seconds = time.thread_time() - begun


def run(main: Coroutine[Any, Any, Result], *, until_eof: bool = False) -> Result:
    """Run `main` to its end on a new event loop and return its result.

    The soft limit of open files is raised to the hard limit.

    Ctrl-C, SIGTERM and SIGHUP cancel it, except for signals that the caller of this program ignores. With
    `until_eof`, the end of standard input cancels it, too: then the process that started this one has ended.

    Raises
    ------
    KeyboardInterrupt, Terminated
        `main` was cancelled and has cleaned up.
    """
    terminated = False
    raise_limit()

    async def guarded() -> Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        loop.set_exception_handler(LimitReporter())

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 1 << 10):
                loop.remove_reader(sys.stdin.fileno())
                terminate()

        for number in (signal.SIGTERM, signal.SIGHUP):
            # nohup makes a process ignore SIGHUP; that must stay so.
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, terminate)
        if until_eof:
            loop.add_reader(sys.stdin.fileno(), read)
        return await main

    # Modules stay for as long as the process. Searches for cyclic references, of which short rounds cause
    # several in a second, need not look at them.
    gc.freeze()
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
