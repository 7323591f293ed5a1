"""Run all checks, of style, types and tests, as CI does and as one does before a commit.

    python tools/check.py [ARGUMENT...]

The arguments are for pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Three processes of tests for two cores: a test often waits, for processes of its own or for a limit to pass,
# and a quarter of two cores was idle with one process for each.
PROCESSES = 3 * (os.cpu_count() or 1) // 2
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest", f"--numprocesses={PROCESSES}", "--dist=worksteal", *sys.argv[1:]),
)


# Tests start more than a thousand processes. Without compiled files, which some machines do not write, each
# of them would compile all modules that it imports.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> int:
    """Run all checks, even if one fails; the exit code is 1 if any failed."""
    results = {check: _run(check) for check in CHECKS}
    failed = [" ".join(check) for check, code in results.items() if code]
    print("failed: " + ", ".join(failed) if failed else "all checks passed", flush=True)
    return int(bool(failed))


def _run(check: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=ENVIRONMENT).returncode


if __name__ == "__main__":
    sys.exit(main())
