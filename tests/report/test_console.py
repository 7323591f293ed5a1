from __future__ import annotations

import pytest

from asyncdmtl.report.console import FILE_WIDTH, make_console


def test_columns_decide_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert make_console().width == 50


def test_results_for_a_file_are_wide_enough_for_every_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    console = make_console()
    assert console.width == FILE_WIDTH
    console.print("[bold] stays as it is, and so does :smile:")
    assert capsys.readouterr().out == "[bold] stays as it is, and so does :smile:\n"
    make_console(stderr=True).print("apart")
    assert capsys.readouterr().err == "apart\n"
