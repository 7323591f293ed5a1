"""The end of commands. test_main has whole commands that fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from asyncdmtl.cli.command import command
from asyncdmtl.cli.failure import CurrentCommand, execute
from asyncdmtl.errors import IntegrityError, Terminated, UsageError, WaitError

LIMIT = 60


def ending(error: BaseException | None, *words: str) -> int:
    """The exit code of a command that ends with this error."""

    @command("run")
    def main(**_: object) -> None:
        if error is not None:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["asyncdmtl", *words])
        patch.setattr(CurrentCommand, "context", None)
        with pytest.raises(SystemExit) as ended:
            execute(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (None, 0, ""),
        (UsageError("--rounds", "must be at least 1", 0), 2, "error: --rounds must be at least 1, got 0"),
        (WaitError("no worker", seconds=3, option="--join-timeout"), 5, "error: no worker after 3 s"),
        (IntegrityError("differ", partitions=[], workers=[]), 6, "error: differ"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (click.UsageError("no such thing"), 2, "no such thing"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "error: too many open files, the limit of this"),
        (ZeroDivisionError("x"), 1, "error: internal error: ZeroDivisionError('x') (--log-level debug shows"),
    ],
    ids=str,
)
def test_every_way_to_end_has_its_code(
    error: BaseException | None, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_a_failure_is_an_event_where_events_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(UsageError("--x", "must be", 1), "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"event": "failed", "error": "--x must be, got 1", "exit_code": 2}
    assert captured.err == ""


def test_a_json_log_on_stderr_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(UsageError("--x", "must be", 1), "--log-format=json", "--log-level=debug") == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["traceback", "--x must be, got 1"]
    assert lines[1]["exit_code"] == 2


PRINTS = """
import click
from asyncdmtl.cli.failure import execute

@click.command()
def main():
    print("λ ≥ 1", *range(9999))

execute(main)
"""


def printed(setup: Callable[[], None] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, **options}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", PRINTS], stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False,
        preexec_fn=setup, **given,
    )  # fmt: skip


def test_a_terminal_that_lacks_a_letter_gets_a_question_mark() -> None:
    done = printed(env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("? ? 1 0 1 2")


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = printed(stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: cannot write the output: No space left on device\n")


def test_closed_standard_files_are_no_sockets() -> None:
    done = printed(lambda: os.closerange(0, 2))
    assert done.returncode == 0, done.stderr
