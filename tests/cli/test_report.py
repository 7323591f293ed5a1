from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.reports import full_report

from asyncdmtl.cli import main
from asyncdmtl.errors import UsageError
from asyncdmtl.report.json_output import write_report


def show(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, ["report", *arguments])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.json"
    write_report(full_report(), path)
    return path


def test_a_report_is_shown_again(file: Path, tmp_path: Path) -> None:
    html, picture = tmp_path / "page.html", tmp_path / "run.png"
    result = show(str(file), "--html", str(html), "--plot", str(picture))
    assert result.exit_code == 0, result.exception
    assert "relay: 3 workers" in result.stdout
    assert html.read_text().startswith("<!doctype html>")
    assert picture.stat().st_size > 10_000
    assert json.loads(show(str(file), "--json").stdout)["report"] == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "FILE must be JSON"),
        ("[" * 100_000, "FILE must be JSON"),
        ('{"a": 1}', "FILE must be a report of a run, as --report writes it"),
        (None, r"FILE must be readable \(No such file or directory\)"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, rule: str) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    result = show(str(path))
    assert isinstance(result.exception, UsageError)
    with pytest.raises(UsageError, match=rule):
        raise result.exception


def test_a_page_that_cannot_be_written_is_named(file: Path) -> None:
    result = show(str(file), "--html", "/dev/full")
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith("--html must be writable (No space left on device)")


def test_a_report_with_other_content_is_refused(file: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = json.loads(file.read_text())
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({**content, "ledger": [3]}))
    result = show(str(path), "--html", str(tmp_path / "page.html"))
    assert isinstance(result.exception, UsageError)
    assert "must be a report that this version can show" in str(result.exception)
