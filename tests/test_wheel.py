"""The built wheel works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Standard output of this interpreter, with `path` as its only PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_runs_away_from_the_checkout(tmp_path: Path) -> None:
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    assert (installed / "asyncdmtl" / "datasets" / "digits.toml").is_file()
    where = python("-c", "import asyncdmtl; print(asyncdmtl.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    arguments = ["--workers=2", "--copies=1", "--rounds=2", "--format=json"]
    shown = python("-m", "asyncdmtl", "run", *arguments, cwd=tmp_path, path=installed)
    assert json.loads(shown)["report"]["uplink"]["measured_load"] == "20"
