"""A server's stream of jobs as a command: it makes the jobs of a file, and reports each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, ReadJob, StreamOptions

log = logging.getLogger("asyncdmtl.server")


def report_job(outcome: JobOutcome) -> Report:
    """The report of a job as the server sees it."""
    assert outcome.record is not None
    return report_run(outcome.record)


class EndPrinter:
    """Prints the end of each job, and writes those so far to the report file.

    Parameters
    ----------
    format : "text" or "json"
    report_file : Path or None
    """

    def __init__(self, format: str, report_file: Path | None) -> None:
        self._format = format
        self._file = report_file
        self._made: list[Mapping[str, Any]] = []
        # The name of each job that has ended, and how it failed, if it did.
        self._ends: list[tuple[str, Mapping[str, Any] | None]] = []

    def print_end(self, ended: Mapping[str, Any]) -> None:
        """Print the end of a job: a mapping of `job` with `report`, or with `error` and `exit_code`."""
        name, failed = ended["job"], "error" in ended
        self._ends.append((name, ended if failed else None))
        if failed:
            log.warning("job %s failed: %s", name, ended["error"])
        if self._format == "json":
            emit({"event": "failed" if failed else "finished", **ended})
        if self._file is not None:
            self._made.append(ended)
            write_report({"jobs": self._made}, self._file)
        if self._format == "json":
            return
        if failed:
            click.echo(f"job {name}: failed: {ended['error']}")
            return
        # Imported here, because a server that reports in JSON needs no tables.
        from asyncdmtl.report.run_tables import show_run

        click.echo(f"job {name}:")
        show_run(ended["report"])

    def finish(self, among: Collection[str] | None = None) -> None:
        """Raise the error of the first job that failed, if any did, under the names of all of them.

        Parameters
        ----------
        among : collection of str, optional
            The names of the jobs that count; default: all.
        """
        ended = [each for each in self._ends if among is None or each[0] in among]
        failed = [(name, error) for name, error in ended if error is not None]
        if not failed:
            return
        names, first = ", ".join(name for name, _ in failed), failed[0][1]
        error = AsyncDMTLError(
            f"{len(failed)} of {counted(len(ended), 'job')} failed ({names}); the first: {first['error']}"
        )
        error.exit_code = first["exit_code"]
        raise error


class OutcomePrinter(EndPrinter):
    """Prints the outcome of each job of a server.

    Parameters
    ----------
    format, report_file
        As for `EndPrinter`.
    report_of : callable
        The report of a job that has a record.
    """

    def __init__(
        self, format: str, report_file: Path | None, report_of: Callable[[JobOutcome], Report] = report_job
    ) -> None:
        super().__init__(format, report_file)
        self._report_of = report_of

    def note(self, outcome: JobOutcome) -> Mapping[str, Any]:
        """Print an outcome, and return it as for `print_end`."""
        name, error = outcome.job.name, outcome.error
        ended: Mapping[str, Any]
        if error is not None:
            ended = {"job": name, "error": str(error), "exit_code": error.exit_code}
        else:
            ended = {"job": name, "report": self._report_of(outcome)}
        self.print_end(ended)
        return ended


@dataclass(frozen=True)
class Serving:
    """How a server of a stream listens: its address, security and events, and the jobs that it takes.

    `read_job` is None for a server that takes no jobs of other programs.
    """

    address: tuple[str, int]
    security: ServerSecurity
    on_event: OnEvent
    read_job: ReadJob | None = None
    until_eof: bool = False


def serve_jobs(
    jobs: Sequence[Job], options: StreamOptions, serving: Serving, printer: OutcomePrinter
) -> None:
    """Make all jobs, and print their outcomes; raises the error of the first that failed.

    Those that other programs submitted are theirs to judge.
    """
    own = {job.name for job in jobs}

    async def serve() -> None:
        def note(outcome: JobOutcome) -> None:
            ended = printer.note(outcome)
            if made.submissions is not None:
                made.submissions.tell(ended)

        made = JobServer(options, serving.on_event, note, serving.security, serving.read_job)
        await made.make_all(jobs, *serving.address)

    run(serve(), until_eof=serving.until_eof)
    printer.finish(own)
