from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from asyncdmtl.report import progress_bar
from asyncdmtl.report.progress_bar import NotebookProgress, RunProgress, run_progress
from asyncdmtl.report.units import human_bytes
from asyncdmtl.server.events import DashboardListening, IncidentNoted, Joined, Left, Planned
from asyncdmtl.server.records import RoundRecord

PLANNED = Planned(0, 0, ("w0",), "relay", "1", "1", "1", "1", "1", "1", 1, (), "")


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    # Only the module's name is replaced: pytest replaces sys.stderr itself between fixtures and tests.
    monkeypatch.setattr(progress_bar, "sys", SimpleNamespace(stderr=made))

    def make_console(**_: Any) -> Console:
        return Console(file=made, width=120, force_terminal=True, color_system=None)

    monkeypatch.setattr(progress_bar, "Console", make_console)
    return made


def record(round_: int, objective: float = 0.25) -> RoundRecord:
    return RoundRecord(round_, objective, 0.1, 1500, 500, 0.1)


def test_rounds_objective_and_bytes_are_shown(terminal: Terminal) -> None:
    with RunProgress(10) as progress:
        for event in (Joined("w0", 1), PLANNED, record(0), record(1)):
            progress.note(event)
    text = terminal.getvalue()
    assert "training" in text
    assert "2/10" in text
    assert f"objective 0.25, {human_bytes(4000)}" in text


def test_an_objective_that_is_no_number_is_not_shown(terminal: Terminal) -> None:
    with RunProgress(None) as progress:
        progress.note(record(0, float("inf")))
    assert "objective ?, 2" in terminal.getvalue()


def test_incidents_are_printed_above_the_bar(terminal: Terminal) -> None:
    with RunProgress(3) as progress:
        progress.note(IncidentNoted(1, "w1", "LinkError", "the connection was reset"))
        progress.note(Left("w2", "reset"))
    assert "worker w1: the connection was reset" in terminal.getvalue()
    assert "w2" not in terminal.getvalue()


def test_the_address_of_the_dashboard_is_told(terminal: Terminal) -> None:
    with RunProgress(3) as progress:
        progress.note(DashboardListening("127.0.0.1", 7780, tls=False))
    assert "dashboard: http://127.0.0.1:7780/" in terminal.getvalue()


def test_strengths_that_are_tried_are_shown(terminal: Terminal) -> None:
    with RunProgress(None) as progress:
        progress.note_strength(0.123456, 2.5)
    assert "choosing λ" in terminal.getvalue()
    assert "0.1235: held-out loss 2.5" in terminal.getvalue()


def test_nothing_is_printed_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(10) as progress:
        progress.note(PLANNED)
        progress.note(record(0))
    assert capsys.readouterr().err == ""


def test_notebooks_have_a_bar_that_is_updated_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, bar: NotebookProgress) -> None:
            shown.append(bar._repr_html_())

    def display(bar: NotebookProgress, display_id: bool) -> Handle:
        assert display_id
        shown.append(bar._repr_html_())
        return Handle()

    shell = SimpleNamespace(kernel=object())
    notebook = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    with run_progress(2) as progress:
        assert isinstance(progress, NotebookProgress)
        for event in (Joined("w0", 1), PLANNED, record(0), record(1)):
            progress.note(event)
        progress.note(IncidentNoted(1, "<w1>", "LinkError", "reset"))
    assert "starting" in shown[0]
    assert '<progress max="2" value="2">' in shown[-1]
    assert f"objective 0.25, {human_bytes(4000)}" in shown[-1]
    assert "worker &lt;w1&gt;: reset" in shown[-1]
    # Rounds that follow each other at once are not all drawn.
    assert len(shown) < 5
    del shell.kernel  # IPython in a terminal
    assert isinstance(run_progress(2), RunProgress)
