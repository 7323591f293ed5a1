"""Reading of large heads in a thread, while the event loop goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from asyncdmtl.protocol.frame_reader import Frame
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.base import Message


@cache
def _executor(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that reads heads: with more, an event loop would wait for each of them."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"large heads of {process}")


def read_large(frame: Frame, done: Callable[[Callable[[], Message]], None]) -> None:
    """Read the head of a frame in a thread.

    Parameters
    ----------
    frame : Frame
    done : callable
        Called on the event loop with a function that returns the message of the frame, or raises the
        RemoteProtocolError by which it could not be read.
    """
    loop, thread = asyncio.get_running_loop(), _executor(os.getpid())
    reading = loop.run_in_executor(thread, registry.unpack, frame.head, frame.body)
    reading.add_done_callback(lambda read: None if read.cancelled() else done(read.result))
