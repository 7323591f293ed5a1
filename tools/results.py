"""Results of benchmarks as JSON, from which the tables of the documentation are made.

A benchmark with `--results FILE` writes its figures as tables of text; `tools/docs_benchmarks.py` puts them
into the page. So every number on that page was measured by the command and on the machine that the page
names.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from asyncdmtl._version import __version__

# The option with which a benchmark writes its results for the page.
results_option = click.option(
    "--results",
    "results_file",
    type=click.Path(path_type=Path),
    help="Write the table here, for docs_benchmarks.py.",
)


@dataclass(frozen=True)
class Table:
    """A table of results: `name` is its place on the page, `head` names columns, `rows` has the cells."""

    name: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def processor() -> str:
    """The processor's name, from Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_results(path: Path, tables: Sequence[Table]) -> None:
    """Write tables with the command that made them, the day, the machine and the versions."""
    content = {
        "command": shlex.join(["python", f"tools/{Path(sys.argv[0]).name}", *_without_results(sys.argv[1:])]),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": {
            "asyncdmtl": __version__,
            "Python": platform.python_version(),
            "NumPy": np.__version__,
        },
        "tables": [asdict(table) for table in tables],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_results(words: Sequence[str]) -> list[str]:
    """A command's words without `--results FILE`, which the page need not show."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--results":
            skip = True
        elif not word.startswith("--results="):
            kept.append(word)
    return kept
