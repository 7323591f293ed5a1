from __future__ import annotations

import asyncio
import errno
import resource
import subprocess
import sys

import pytest

from asyncdmtl.net import open_files
from asyncdmtl.net.open_files import LimitReporter, limit_reached, max_files

RAISED = """
import resource
from asyncdmtl.net.open_files import max_files, raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
raise_limit()
print(max_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    # In a process of its own, since a hard limit cannot be raised again.
    told = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["200", "200", "200"]


def test_the_limit_is_named() -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert max_files() == (None if files == resource.RLIM_INFINITY else files)
    assert limit_reached(OSError(errno.EMFILE, "x")).endswith(f"is {max_files()} (ulimit -n)")
    assert "fs.file-max" in limit_reached(OSError(errno.ENFILE, "x"))
    assert limit_reached(OSError(errno.ENOENT, "x")) == limit_reached(None) == ""


async def test_the_loop_reports_the_limit_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, report = asyncio.get_running_loop(), LimitReporter()
    for _ in range(3):
        report(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, "Too many open files")})
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "a connection could not be taken"
    ]
    monkeypatch.setattr(open_files, "REPORT_SECONDS", 0.0)
    report(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, "Too many open files")})
    report(loop, {"message": "something else"})
    assert [record.getMessage() for record in caplog.records][2:] == ["something else"]
