"""A progress bar for the rounds of a run: on stderr, or in a notebook."""

from __future__ import annotations

import html
import math
import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asyncdmtl.report.units import human_bytes
from asyncdmtl.server.events import DashboardListening, IncidentNoted, Joined, Planned, ServerEvent
from asyncdmtl.server.records import RoundRecord

# Seconds between two drawings of a bar in a notebook, each of which is a message to the browser.
NOTEBOOK_SECONDS = 0.25


class RunProgress:
    """A bar on stderr that shows the rounds of a run; nothing is printed where stderr is no terminal.

    Parameters
    ----------
    rounds : int or None
        The most rounds that the run may take; None if it is not known.
    """

    def __init__(self, rounds: int | None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("starting", total=rounds, detail="")
        self._bytes = 0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, event: ServerEvent) -> None:
        """Update the bar after an event of the server."""
        match event:
            case Joined():
                self._bar.update(self._task, description="joining")
            case Planned():
                self._bar.update(self._task, description="training")
            case DashboardListening():
                self._bar.console.print(f"dashboard: {event.url}", soft_wrap=True, highlight=False)
            case IncidentNoted():
                self._bar.console.print(f"worker {event.worker}: {event.reason}")
            case RoundRecord():
                self._round(event)
            case _:
                pass

    def note_strength(self, strength: float, loss: float) -> None:
        """Show a value of λ that cross-validation has tried, with its held-out loss."""
        self._bar.update(
            self._task, description="choosing λ", detail=f"{strength:.4g}: held-out loss {loss:.4g}"
        )

    def _round(self, record: RoundRecord) -> None:
        self._bytes += record.up_bytes + record.down_bytes
        detail = _detail(record, self._bytes)
        self._bar.update(self._task, completed=record.round + 1, detail=detail)


class NotebookProgress:
    """A bar in the output of a notebook's cell, which shows the rounds of a run.

    Parameters
    ----------
    rounds : int or None
        The most rounds that the run may take; None if it is not known.
    """

    def __init__(self, rounds: int | None) -> None:
        self._rounds = rounds
        self._done = 0
        self._bytes = 0
        self._state, self._detail = "starting", ""
        self._incidents: list[str] = []
        self._handle: Any = None
        self._drawn = -math.inf

    def __enter__(self) -> Self:
        self._handle = sys.modules["IPython"].display.display(self, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def note(self, event: ServerEvent) -> None:
        """Update the bar after an event of the server."""
        match event:
            case Joined():
                self._state = "joining"
            case Planned():
                self._state = "training"
            case IncidentNoted():
                self._incidents.append(f"worker {event.worker}: {event.reason}")
            case RoundRecord():
                self._done = event.round + 1
                self._bytes += event.up_bytes + event.down_bytes
                self._detail = _detail(event, self._bytes)
        if time.monotonic() - self._drawn > NOTEBOOK_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self)

    def _repr_html_(self) -> str:
        most = "" if self._rounds is None else f' max="{self._rounds}" value="{self._done}"'
        lines = [f"{self._state}: round {self._done}. {self._detail}", *self._incidents]
        return f"<progress{most}></progress> " + "<br>".join(map(html.escape, lines))


def run_progress(rounds: int | None) -> RunProgress | NotebookProgress:
    """The bar that suits the place where the program runs: a notebook, or else stderr."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # IPython in a terminal has no kernel.
    return RunProgress(rounds) if getattr(shell, "kernel", None) is None else NotebookProgress(rounds)


def _detail(record: RoundRecord, size: int) -> str:
    objective = f"{record.objective:.4g}" if math.isfinite(record.objective) else "?"
    return f"objective {objective}, {human_bytes(size)}"
