"""The event loop: uvloop where it installs, plain asyncio elsewhere."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:  # no wheel for this platform
    uvloop = None

Result = TypeVar("Result")


class Terminated(BaseException):
    """SIGTERM asked this process to stop, and it has cleaned up."""


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on a new event loop and return its result.

    Ctrl-C and SIGTERM cancel it; when it has cleaned up, KeyboardInterrupt or Terminated is raised.
    """
    terminated = False

    async def guarded() -> Result:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
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
