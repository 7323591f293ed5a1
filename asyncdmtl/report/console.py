"""The console on which results are printed as text."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# Characters of a line if the output goes to a file or a pipe and COLUMNS is not set: wide enough for every
# table.
FILE_WIDTH = 110


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr, as wide as COLUMNS, else as the terminal, else `FILE_WIDTH`."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal or os.environ.get("COLUMNS", "").isdecimal() else FILE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)
