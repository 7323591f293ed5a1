"""Start a command as a program that Ctrl-C and SIGTERM end quietly even while it imports."""

from __future__ import annotations

import os
import signal
from importlib import import_module


def start(command: str) -> None:
    """Import a module of `asyncdmtl.cli`, run its `main`, and end the process with its exit code."""
    # Imports take a moment. A signal that comes meanwhile ends the process as quietly as one that comes
    # later. As process 1 of a container, a process without a handler would ignore SIGTERM.
    # What the caller ignores stays ignored, such as Ctrl-C for a command in the background of a script.
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda number, _: os._exit(128 + number))
    main = import_module(f"asyncdmtl.cli.{command}").main
    execute = import_module("asyncdmtl.cli.failure").execute
    if signal.SIGINT in heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    execute(main)
