"""AdaptiveExecutor goes to a thread unless it was quick the last time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.net.event_loop import QUICK_SECONDS, AdaptiveExecutor


def here() -> int:
    return threading.get_ident()


def slow() -> int:
    until = time.thread_time() + 2 * QUICK_SECONDS
    while time.thread_time() < until:
        pass
    return threading.get_ident()


async def test_quick_work_holds_up_the_loop_and_slow_work_does_not() -> None:
    with single_threaded():
        pass  # The first time, it looks for BLAS libraries, which may take longer than quick work.
    work = AdaptiveExecutor()
    assert await work.do(here) != here()  # nobody knows yet
    assert await work.do(here) == here()
    assert await work.do(slow) == here()  # once
    assert await work.do(slow) != here()
    assert await work.do(here) != here()
    assert await work.do(here) == here()


async def test_arguments_and_errors_pass() -> None:
    work = AdaptiveExecutor()
    for _ in range(2):
        assert await work.do(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        await work.do(divmod, 7, 0)


NOHUP = """
import asyncio, os, signal
from asyncdmtl.net.event_loop import run

signal.signal(signal.SIGHUP, signal.SIG_IGN)

async def main():
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    return "goes on"

print(run(main()))
"""


def test_a_hangup_is_ignored_under_nohup() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOHUP], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
