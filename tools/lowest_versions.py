"""Run part of the tests with the lowest versions of all dependencies that `pyproject.toml` permits.

    python tools/lowest_versions.py

An environment of its own is made in a temporary directory. The tests are those of the packages that use the
dependencies: arrays, tables, messages, TLS. Extras that commands need for one of their options count as
dependencies. If the extra `test` requires a later version than the package, that version is the lowest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Tests of code that uses the dependencies; all others would take minutes more.
TESTS = (
    "tests/arithmetic/test_probe.py",
    "tests/dask",
    "tests/data",
    "tests/exchange",
    "tests/field",
    "tests/learning/couplings",
    "tests/net/test_tls.py",
    "tests/protocol",
    "tests/report/test_trackers.py",
    "tests/scenarios/test_own_data.py",
)

# The extras that commands need for one of their options, and that of `asyncdmtl.dask`.
OPTIONS = ("dask", "metrics", "mlflow", "onnx", "parquet", "plot", "remote", "tensorboard", "zstd")

# A requirement with a lower bound: its name, the bound, and a marker.
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<lowest>[\w.]+)\s*(?P<marker>;.*)?")


def lowest(requirements: Iterable[str], tests: Iterable[str]) -> list[str]:
    """The requirements of the package, each at the lowest version that these and the tests permit."""
    floors: dict[str, tuple[str, str]] = {}
    for needed in requirements:
        found = REQUIREMENT.fullmatch(needed)
        if found is None:
            raise ValueError(f"{needed!r} has no lower bound")
        floors[found["name"].lower()] = found["lowest"], found["marker"] or ""
    for needed in tests:
        found = REQUIREMENT.fullmatch(needed)
        if found is not None and (name := found["name"].lower()) in floors:
            version, marker = floors[name]
            floors[name] = max(version, found["lowest"], key=_parts), marker
    return [f"{name}=={version}{marker}" for name, (version, marker) in floors.items()]


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> int:
    """Install and test; return the exit code of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(line for extra in OPTIONS for line in extras[extra])]
    pinned = lowest(needed, extras["test"])
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-lowest-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[test]", *pinned]
        if code := subprocess.run(install, cwd=ROOT).returncode:
            return code
        print("lowest versions: " + ", ".join(pinned), flush=True)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses=auto", *TESTS]
        return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
