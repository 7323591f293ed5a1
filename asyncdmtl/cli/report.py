"""`asyncdmtl report`: show the report of a run again, as tables, a picture, or a page for browsers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.outputs import check_outputs, print_report
from asyncdmtl.errors import UsageError
from asyncdmtl.report.page import write_page
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.run_report import Report

# Keys that every report of a run has.
_KEYS = {
    "asyncdmtl",
    "run",
    "strategy",
    "rounds",
    "ledger",
    "uplink",
    "training",
    "vector",
    "placement",
    "settings",
}


@command("report")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    help="Write a page for browsers here: one file, which loads no other.",
)
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path), help="Draw loads, training and test scores here."
)
def main(file: Path, page: Path | None, picture: Path | None, format: str, **given: Any) -> None:
    """Show the report in FILE again: as tables, a picture, or a page for browsers.

    FILE is what `run` or `server` wrote with --report.

    Exit codes: 0 done, 1 failed, 2 usage.
    """
    check_outputs({"--html": page, "--plot": picture})
    check_picture(picture)
    report = _read(file)
    try:
        if page is not None:
            write_page(report, page)
        print_report(report, format, picture)
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        rule = f"must be a report that this version can show ({type(error).__name__}: {error})"
        raise UsageError("FILE", rule, str(file)) from error


def _read(file: Path) -> Report:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("FILE", f"must be readable ({error.strerror})", str(file)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError("FILE", f"must be JSON ({error})", str(file)) from error
    if not isinstance(content, dict) or not set(content) >= _KEYS:
        raise UsageError("FILE", "must be a report of a run, as --report writes it", str(file))
    return content
