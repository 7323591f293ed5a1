"""How a command starts as a program: Ctrl-C ends it quietly from its first moment, imports included."""

from __future__ import annotations

import os
import signal
from importlib import import_module


def start(command: str) -> None:
    """Import a module of `asyncdmtl.cli`, run its `main`, and end the process with its exit code."""
    # Imports take a moment, in which Ctrl-C should end this as quietly as later.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    main = import_module(f"asyncdmtl.cli.{command}").main
    execute = import_module("asyncdmtl.cli.command").execute
    signal.signal(signal.SIGINT, signal.default_int_handler)
    execute(main)
