from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asyncdmtl.cli.submit import _as_mapping, main
from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.protocol.messages.registry import JobEnded


def submitted(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_a_file_or_the_end_must_be_given() -> None:
    error = submitted().exception
    assert isinstance(error, UsageError)
    assert "FILE must be given, unless the server is only to end (--end)" in str(error)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 3", "must hold just `jobs`"),
        ("x", "FILE must be TOML or JSON"),
        ('[[jobs]]\nname = "../a"\n', "name must be 1 to 64 letters"),
        ("[[jobs]]\nname = 3\n", "name must be 1 to 64 letters"),
        ("[[jobs]]\nseed = 2020-01-01\n", "must hold numbers, text and lists only"),
        (f"[[jobs]]\ntarget = '{'x' * 3000}'\n", "must be at most 3000 characters as JSON"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_before_a_server_is_asked(
    text: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(text)
    assert complaint in str(submitted(str(file)).exception)


def test_a_server_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text("[[jobs]]\nrounds = 3\n")
    error = submitted(str(file), "--connect", "127.0.0.1:1", "--max-wait", "0.01").exception
    assert isinstance(error, LinkError)


def test_the_end_of_a_job_is_told_as_a_server_tells_it() -> None:
    assert _as_mapping(JobEnded("a", report=b'{"rounds": 3}')) == {"job": "a", "report": {"rounds": 3}}
    assert _as_mapping(JobEnded("a", "why", 3)) == {"job": "a", "error": "why", "exit_code": 3}
    assert "too long" in _as_mapping(JobEnded("a"))["error"]
    with pytest.raises(UsageError, match="report of the server must be JSON"):
        _as_mapping(JobEnded("a", report=b"{"))
