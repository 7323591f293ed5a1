"""The modules that a command imports before its work; seconds are not measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LIMIT = 90

# Each of these takes 0.05 to 1 s of processor time and 5 to 100 MB.
HEAVY = {
    "cryptography", "fsspec", "matplotlib", "pandas", "prometheus_client", "pyarrow", "rich", "scipy",
    "sklearn",
}  # fmt: skip
DATA = "synthetic:tasks=2,rows=4,features=3,parts=1,test_rows=1"


def imported(importtime: str) -> set[str]:
    """The packages in the output of `python -X importtime`, and modules of this package by full name."""
    lines = [line for line in importtime.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip() for line in lines}
    return {name if name.startswith("asyncdmtl.") else name.partition(".")[0] for name in names}


def imported_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return imported(done.stderr)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("--help", "run")], ids=" ".join)
def test_the_first_help_imports_no_command(arguments: tuple[str, ...]) -> None:
    found = imported_by("-m", "asyncdmtl", *arguments)
    assert not found & {*HEAVY, "numpy", "asyncio", "ssl", "uvloop"}
    assert len({name for name in found if name.startswith("asyncdmtl.")}) < 12


@pytest.mark.parametrize("command", ["run", "plan", "place", "predict", "show", "export"])
def test_the_help_of_a_command_imports_little_that_is_heavy(command: str) -> None:
    assert imported_by("-m", "asyncdmtl", command, "--help") & HEAVY <= {"rich"}


@pytest.mark.parametrize(
    "statement",
    [
        "import asyncdmtl",
        "from asyncdmtl import Placement",
        "import asyncdmtl.protocol.session",
        "import asyncdmtl.worker.worker",
        "import asyncdmtl.server.server",
        "import asyncdmtl.exchange.coded_worker",
    ],
)
def test_rooms_load_nothing_that_they_do_not_use(statement: str) -> None:
    assert not imported_by("-c", statement) & HEAVY


def columns(folder: Path, name: str) -> list[str]:
    """Options of a worker for a table in a file."""
    if name.endswith(".npz"):
        np.savez(folder / name, X=np.eye(4), y=np.arange(4.0), tasks=np.array(list("abab")))
    else:
        (folder / name).write_text("tasks,x,ward,y\na,1,A,0.5\nb,2,B,1.5\na,NA,A,2\nb,4,B,1\n")
    return ["--data", str(folder / name), "--task=tasks", "--target=y"]


@pytest.mark.parametrize("data", [DATA, "digits", "rows.npz", "rows.csv"])
def test_a_worker_that_has_declared_its_data_has_loaded_nothing_heavy(tmp_path: Path, data: str) -> None:
    table = data.startswith("rows.")
    words = columns(tmp_path, data) if table else ["--data", data]
    settings = ["--loss=squared", "--strength=1"] if table else ["--data", data]
    command = [sys.executable, "-m", "asyncdmtl.server", "--listen=127.0.0.1:0", "--workers=2", "--json"]
    errors = tmp_path / "importtime"
    with (
        subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True) as server,
        errors.open("w") as file,
    ):
        assert server.stdout is not None
        listening = json.loads(server.stdout.readline())
        address = f"{listening['host']}:{listening['port']}"
        program = [sys.executable, "-X", "importtime", "-m", "asyncdmtl.worker"]
        joining = ["--connect", address, "--name=a", *words]
        with subprocess.Popen([*program, *joining], stderr=file) as worker:
            assert json.loads(server.stdout.readline())["event"] == "joined"
            worker.kill()
        server.terminate()
    found = imported(errors.read_text())
    assert "asyncdmtl.worker.worker" in found
    assert not found & HEAVY
