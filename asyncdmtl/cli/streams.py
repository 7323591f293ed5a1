"""A server's stream of jobs as a command: it makes the jobs of a file, and reports each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.net.authentication import ServerSecurity
from asyncdmtl.net.event_loop import run
from asyncdmtl.report.json_output import emit, write_report
from asyncdmtl.report.run_report import Report, report_run
from asyncdmtl.report.units import counted
from asyncdmtl.server.events import OnEvent
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, StreamOptions

log = logging.getLogger("asyncdmtl.server")


def report_job(outcome: JobOutcome) -> Report:
    """The report of a job as the server sees it."""
    assert outcome.record is not None
    return report_run(outcome.record)


class OutcomePrinter:
    """Prints the outcome of each job, and writes those so far to the report file.

    Parameters
    ----------
    format : "text" or "json"
    report_file : Path or None
    report_of : callable
        The report of a job that has a record.
    """

    def __init__(
        self, format: str, report_file: Path | None, report_of: Callable[[JobOutcome], Report] = report_job
    ) -> None:
        self._format = format
        self._report_of = report_of
        self._file = report_file
        self._made: list[dict[str, Any]] = []
        self._failed: list[JobOutcome] = []

    def note(self, outcome: JobOutcome) -> None:
        """Print an outcome."""
        name = outcome.job.name
        if outcome.error is not None:
            self._failed.append(outcome)
            failure = {"job": name, "error": str(outcome.error), "exit_code": outcome.error.exit_code}
            log.warning("job %s failed: %s", name, outcome.error)
            self._add("failed", failure)
            if self._format == "text":
                click.echo(f"job {name}: failed: {outcome.error}")
            return
        report = self._report_of(outcome)
        self._add("finished", {"job": name, "report": report})
        if self._format == "text":
            # Imported here, because a server that reports in JSON needs no tables.
            from asyncdmtl.report.run_tables import show_run

            click.echo(f"job {name}:")
            show_run(report)

    def finish(self) -> None:
        """Raise the error of the first job that failed, if any did, under the names of all of them."""
        if not self._failed:
            return
        names = ", ".join(outcome.job.name for outcome in self._failed)
        first = self._failed[0].error
        assert first is not None
        failed = AsyncDMTLError(
            f"{len(self._failed)} of {counted(len(self._made), 'job')} failed ({names}); the first: {first}"
        )
        failed.exit_code = first.exit_code
        raise failed

    def _add(self, event: str, entry: dict[str, Any]) -> None:
        self._made.append(entry)
        if self._format == "json":
            emit({"event": event, **entry})
        if self._file is not None:
            write_report({"jobs": self._made}, self._file)


def serve_jobs(
    jobs: Sequence[Job],
    options: StreamOptions,
    security: ServerSecurity,
    address: tuple[str, int],
    on_event: OnEvent,
    printer: OutcomePrinter,
    *,
    until_eof: bool,
) -> None:
    """Make all jobs, and print their outcomes; raises the error of the first that failed."""

    async def serve() -> None:
        await JobServer(options, on_event, printer.note, security).make_all(jobs, *address)

    run(serve(), until_eof=until_eof)
    printer.finish()
