"""The console on which results are printed as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

# Characters of a line if the output goes to a file or a pipe and COLUMNS is not set: wide enough for every
# table.
FILE_WIDTH = 110

# Characters that headings of numbers leave to a column of names in a table that is too wide: two words or so.
LEAST_LABEL = 12


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr, as wide as COLUMNS, else as the terminal, else `FILE_WIDTH`."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal or os.environ.get("COLUMNS", "").isdecimal() else FILE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


class FittedTable(Table):
    """A table that gives up its frame, rather than break its numbers, where it is wider than the console.

    Numbers stand in the columns that are justified right; headings and other cells go on in further lines.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table, without a frame if it would not fit."""
        # A width that no table reaches.
        unlimited = options.update(width=10_000)
        if self.__rich_measure__(console, unlimited).maximum > options.max_width:
            self.box = box.SIMPLE_HEAD
            self.padding = 0
            self._keep_numbers(options.max_width)
        yield from super().__rich_console__(console, options)

    def _keep_numbers(self, width: int) -> None:
        """Make columns as wide as their numbers, and as the words of their headings where there is room."""
        numbers = [column for column in self.columns if column.justify == "right"]
        room = width - len(self.columns) - LEAST_LABEL * (len(self.columns) - len(numbers))
        least = [_longest(map(str, column.cells)) for column in numbers]
        headings = [_longest([str(column.header)]) for column in numbers]
        for most in range(max(headings, default=0), 0, -1):
            widths = [max(low, min(most, high)) for low, high in zip(least, headings, strict=True)]
            if sum(widths) <= room:
                break
        else:
            widths = least
        for column, chosen in zip(numbers, widths, strict=True):
            column.width = max(chosen, 1)
            column.overflow = "fold"


def _longest(texts: Iterable[str]) -> int:
    """The length of the longest word."""
    return max((len(word) for text in texts for word in text.split()), default=0)
