from __future__ import annotations

import pytest

from asyncdmtl.report.console import FILE_WIDTH, FittedTable, make_console


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


@pytest.mark.parametrize(("columns", "framed"), [("80", True), ("40", False)])
def test_numbers_are_not_broken_where_a_table_is_too_wide(
    columns: str, framed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = FittedTable("all rows together")
    for n in range(4):
        table.add_column(f"heading {n}", justify="right", overflow="fold")
    table.add_row("mean over tasks", "0.12/20", "+0.0286", "0.1009", "27/2")
    make_console().print(table)
    printed = capsys.readouterr().out
    assert {"0.12/20", "+0.0286", "0.1009", "27/2", "tasks"} <= set(printed.split())
    assert ("┃" in printed) == framed
    assert max(map(len, printed.splitlines())) <= int(columns)
