"""The console on which results are printed as text."""

from __future__ import annotations

import sys

from rich.console import Console

# Characters in a line where the output goes to a file or a pipe: wide enough for every table.
FILE_WIDTH = 110


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout, or on stderr: as wide as the terminal, or of `FILE_WIDTH` where there is none."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else FILE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)
