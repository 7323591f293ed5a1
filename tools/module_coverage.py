"""Measure how much of a module its own tests cover.

python tools/module_coverage.py asyncdmtl/cli asyncdmtl/report/units.py

Runs `tests/ROOM/test_MODULE.py` for each module in the files and folders that are named (all by default),
under coverage of this module alone, and prints a line for each. Exits with 1 if a module has no test file of
its own name, or if its tests fail or cover less than the floor.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asyncdmtl"

# The percentage of a module's lines that its own tests must run. Other lines, such as the end of a process,
# are reached only by whole runs.
FLOOR = 80


def test_file(module: Path) -> Path:
    """The file of the tests of a module."""
    return ROOT / "tests" / module.relative_to(PACKAGE).with_name(f"test_{module.name}")


def has_code(module: Path) -> bool:
    """Whether a module has a function to test, and not only constants and aliases."""
    if module.name.startswith("__"):
        return False
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def covered(module: Path) -> float:
    """Percent of the lines of a module that its tests run.

    Raises
    ------
    click.ClickException
        There is no test file, or a test fails.
    """
    tests = test_file(module)
    if not tests.exists():
        raise click.ClickException(f"has no {tests.relative_to(ROOT)}")
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "coverage.json"
        name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests),
                f"--cov={name}", f"--cov-report=json:{found}",
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "COVERAGE_FILE": str(Path(folder) / "data")},
        )  # fmt: skip
        if done.returncode:
            raise click.ClickException(f"tests failed:\n{done.stdout[-2000:]}")
        percent: float = json.loads(found.read_text())["totals"]["percent_covered"]
        return percent


@click.command(help=__doc__.splitlines()[0])
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--floor", default=FLOOR, show_default=True, help="Percent that must be covered.")
def main(paths: tuple[Path, ...], floor: int) -> None:
    modules: list[Path] = []
    for path in paths or (PACKAGE,):
        found = path.resolve()
        modules += sorted(found.rglob("*.py")) if found.is_dir() else [found]
    short = 0
    for module in filter(has_code, modules):
        try:
            percent = covered(module)
            verdict = "" if percent >= floor else f"  less than {floor} %"
            click.echo(f"{percent:5.1f} %  {module.relative_to(ROOT)}{verdict}")
            short += percent < floor
        except click.ClickException as error:
            click.echo(f"    -    {module.relative_to(ROOT)}  {error.message}")
            short += 1
    click.echo(f"{short} modules fall short")
    sys.exit(bool(short))


if __name__ == "__main__":
    main()
