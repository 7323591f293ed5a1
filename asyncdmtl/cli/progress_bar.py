"""A bar on stderr that shows how far a run is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asyncdmtl.report.units import human_bytes


class RunProgress:
    """A bar on stderr for a person; nothing where nobody watches."""

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

    def note(self, event: dict[str, Any]) -> None:
        """Show what an event of the server means for the progress."""
        handlers: dict[str, Callable[[], None]] = {
            "joined": lambda: self._bar.update(self._task, description="joining"),
            "planned": lambda: self._bar.update(self._task, description="training"),
            "incident": lambda: self._bar.console.print(f"worker {event['worker']}: {event['reason']}"),
            "round": lambda: self._round(event),
        }
        handlers.get(event["event"], lambda: None)()

    def note_strength(self, strength: float, loss: float) -> None:
        """Show a strength that cross-validation has tried."""
        self._bar.update(
            self._task, description="choosing λ", detail=f"{strength:.4g}: held-out loss {loss:.4g}"
        )

    def _round(self, event: dict[str, Any]) -> None:
        self._bytes += event["up_bytes"] + event["down_bytes"]
        objective = "?" if event["objective"] is None else f"{event['objective']:.4g}"
        detail = f"objective {objective}, {human_bytes(self._bytes)}"
        self._bar.update(self._task, completed=event["round"] + 1, detail=detail)
