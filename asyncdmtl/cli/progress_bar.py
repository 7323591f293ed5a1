"""A progress bar on stderr for the rounds of a run."""

from __future__ import annotations

import math
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asyncdmtl.report.units import human_bytes
from asyncdmtl.server.events import DashboardListening, IncidentNoted, Joined, Planned, ServerEvent
from asyncdmtl.server.records import RoundRecord


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
        objective = f"{record.objective:.4g}" if math.isfinite(record.objective) else "?"
        detail = f"objective {objective}, {human_bytes(self._bytes)}"
        self._bar.update(self._task, completed=record.round + 1, detail=detail)
