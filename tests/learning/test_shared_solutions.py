from __future__ import annotations

import fcntl
import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.learning import shared_solutions
from asyncdmtl.learning.shared_solutions import FOLDER_VARIABLE, shared

LIMIT = 60

# A process that tells when it solves, waits for a line, and prints the solution that it has.
PROCESS = """
import sys
import numpy as np
from asyncdmtl.learning.shared_solutions import shared

def solve():
    print("solving", flush=True)
    sys.stdin.readline()
    return np.array([float(sys.argv[1])])

print(shared(b"key", solve)[0], flush=True)
"""

_keys = itertools.count()


@pytest.fixture
def key() -> bytes:
    """A key that no other test has used in this process."""
    return b"test%d" % next(_keys)


def solver(value: float, calls: list[float]) -> Callable[[], Floats]:
    def solve() -> Floats:
        calls.append(value)
        return np.array([value, -0.0, 1e-308])

    return solve


def start(folder: Path, value: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(value)],
        env={**os.environ, FOLDER_VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_solves_once(key: bytes) -> None:
    calls: list[float] = []
    first = shared(key, solver(1.5, calls))
    assert shared(key, solver(2.5, calls)) is first
    assert calls == [1.5]


def test_a_solution_in_the_folder_has_all_its_bits(
    key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    calls: list[float] = []
    first = shared(key, solver(0.1, calls))
    shared_solutions._SOLVED.clear()
    assert shared(key, solver(0.2, calls)).tobytes() == first.tobytes()
    assert calls == [0.1]
    assert not list(tmp_path.glob(f"*.{os.getpid()}"))


def test_processes_wait_for_the_one_that_solves(tmp_path: Path) -> None:
    first = start(tmp_path, 1)
    assert read(first) == "solving"
    second = start(tmp_path, 2)
    first.communicate("\n", timeout=LIMIT)
    assert second.communicate("\n", timeout=LIMIT)[0] == "1.0\n"


def test_another_process_solves_if_the_first_is_killed(tmp_path: Path) -> None:
    first, second = start(tmp_path, 1), start(tmp_path, 2)
    (solving,) = [process for process in (first, second) if _solves(process, first, second)]
    other = second if solving is first else first
    solving.send_signal(signal.SIGKILL)
    solving.communicate(timeout=LIMIT)
    expected = "2.0" if other is second else "1.0"
    assert other.communicate("\n", timeout=LIMIT)[0].split() == ["solving", expected]


def _solves(process: subprocess.Popen[str], *all_of_them: subprocess.Popen[str]) -> bool:
    """Whether this process, of two that share a folder, is the one that solves."""
    outputs = [each.stdout for each in all_of_them if each.stdout is not None]
    ready, _, _ = select.select(outputs, [], [], LIMIT)
    return process.stdout in ready


def test_a_process_that_stays_in_the_lock_holds_nobody_up_for_ever(
    key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(shared_solutions, "MOST_LOOKS", 3)
    with (tmp_path / "solving").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shared(key, solver(3.0, []))[0] == 3.0


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_replaced(
    content: bytes, key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    file = tmp_path / f"{key.hex()}.npy"
    file.write_bytes(content)
    assert shared(key, solver(4.0, []))[0] == 4.0
    assert np.load(file)[0] == 4.0


def test_a_solution_that_cannot_be_written_is_not_computed_twice(
    key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    # A folder is where the file should be.
    (tmp_path / f"{key.hex()}.npy" / "full").mkdir(parents=True)
    calls: list[float] = []
    assert shared(key, solver(6.0, calls))[0] == 6.0
    assert calls == [6.0]


def test_without_the_folder_each_process_solves(
    key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))
    assert shared(key, solver(5.0, []))[0] == 5.0
