from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

LIMIT = 60

# A command whose import lasts until a signal comes.
SLOW = """
import os, sys, types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from asyncdmtl.cli.entry import start

class Slow(MetaPathFinder, Loader):
    def find_spec(self, name, path, target=None):
        return ModuleSpec(name, self) if name == "asyncdmtl.cli.slow" else None
    def exec_module(self, module):
        os.write(1, b"importing")
        os.read(0, 1)

sys.meta_path.insert(0, Slow())
start("slow")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_imports_ends_the_command_quietly(number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 9) == b"importing"
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (code, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_caller_ignores_stays_ignored(number: int) -> None:
    command = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n{SLOW}"
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 9) == b"importing"
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    # The import went on to its end.
    assert b"has no attribute 'main'" in err
