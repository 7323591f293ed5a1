from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from asyncdmtl.cli.logs import ENDING_LOG, PACKAGE_LOG, set_up_logs
from asyncdmtl.errors import UsageError

log = logging.getLogger("asyncdmtl.tests")


@pytest.fixture(autouse=True)
def _no_handlers_yet() -> None:
    PACKAGE_LOG.handlers = []


def test_a_line_of_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    set_up_logs("info", "text", tmp_path / "log")
    log.debug("not shown")
    log.info("worker %s", "w0", extra={"round": 3})
    ENDING_LOG.error("the last words, which the command prints by itself")
    err = capsys.readouterr().err
    assert err.endswith(" INFO worker w0\n")
    assert err.count("\n") == 1
    assert [line.split(" ", 3)[2] for line in (tmp_path / "log").read_text().splitlines()] == [
        "INFO",
        "ERROR",
    ]


def test_a_line_of_json_has_what_the_call_gave(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json", None)
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("failed", extra={"round": 3, "objective": float("nan"), "path": Path("p")})
    ENDING_LOG.error("ended", extra={"exit_code": 1})
    first, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["time"].endswith("+00:00")
    assert "ValueError: wrong" in first["traceback"]
    del first["time"], first["traceback"]
    assert first == {
        "level": "error", "logger": "asyncdmtl.tests", "message": "failed", "round": 3, "objective": None,
        "path": "p",
    }  # fmt: skip
    assert (last["message"], last["exit_code"]) == ("ended", 1)


def test_logs_are_set_up_anew(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    set_up_logs("info", "text", tmp_path / "log")
    set_up_logs("warning", "text", None)
    log.info("nowhere")
    assert (tmp_path / "log").read_text() == capsys.readouterr().err == ""


def test_a_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--log-file must be writable \(Is a directory\)"):
        set_up_logs("info", "text", tmp_path)
