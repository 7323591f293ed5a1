"""Output: a check of files before the work whose results they are to hold, and the report of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncdmtl.errors import UsageError
from asyncdmtl.report.json_output import emit


def check_outputs(files: Mapping[str, Path | None]) -> None:
    """Check that files can be written, so that no hours of work are lost to a wrong path.

    Parameters
    ----------
    files : mapping of option to Path or None
        None where the option was not given.

    Raises
    ------
    UsageError
        Names the first option whose file cannot be written.
    """
    for option, path in files.items():
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UsageError(option, "must be in a directory that exists", str(path))
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise UsageError(option, "must be a writable file", str(path))


def print_report(report: dict[str, Any], format: str, picture: Path | None) -> None:
    """Draw the report of a run, if there is a file for the picture, and print it as text or JSON."""
    if picture is not None:
        # Imported here, because Matplotlib takes a second to import.
        from asyncdmtl.report.run_pictures import plot_run

        plot_run(report, picture)
    if format == "json":
        emit({"event": "finished", "report": report})
    else:
        # Imported here, because a server that reports in JSON needs no tables.
        from asyncdmtl.report.run_tables import show_run

        show_run(report)
