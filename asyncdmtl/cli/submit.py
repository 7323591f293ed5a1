"""`asyncdmtl submit`: jobs for a server that is running."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command, seconds_option
from asyncdmtl.cli.connection_options import connection_options
from asyncdmtl.cli.job_options import named_tables
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.cli.streams import EndPrinter
from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.event_loop import run
from asyncdmtl.protocol.messages.registry import JobEnded
from asyncdmtl.protocol.messages.streams import LONGEST_JOB, is_job_name
from asyncdmtl.worker.submission import SubmitOptions, submit

log = logging.getLogger("asyncdmtl.submit")


@command("submit")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--connect", default="127.0.0.1:7700", metavar="HOST:PORT", help="The server.")
@click.option("--name", default="submit", help="The name of this program, for which a secret is proven.")
@click.option("--end", is_flag=True, help="The server ends after these jobs and those that it has already.")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the reports here as JSON."
)
@seconds_option("--max-wait", 60.0, "Wait this long for the server to be up.")
@seconds_option("--silence-timeout", 10.0, "Give a server up that is silent for longer.")
@connection_options
def main(
    file: Path | None,
    connect: str,
    name: str,
    end: bool,
    report_file: Path | None,
    max_wait: float,
    silence_timeout: float,
    secret_file: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    insecure: bool,
    format: str,
    **_: object,
) -> None:
    """Submit the jobs in FILE to a running server, and wait until they have ended.

    FILE is as for `server --jobs`, and the server must have --submissions. What a job's table does not set
    is as the server's options say. Prints the report of each job. If this program is stopped, its jobs go on.

    Exit codes are those of `run`: that of the first job that failed, or of what stopped this program.
    """
    check_outputs({"--report": report_file})
    if file is None and not end:
        raise UsageError("FILE", "must be given, unless the server is only to end (--end)", None)
    host, port = parse_address(connect, "--connect")
    security = WorkerSecurity.from_files(name, secret_file, tls_ca, tls_cert, tls_key, tls_server_name)
    if (risk := security.check_exposure(host, insecure)) is not None:
        log.warning("%s", risk)
    jobs = [] if file is None else [_as_text(file, table) for table in named_tables(file, "FILE")]
    printer = EndPrinter(format, report_file)
    options = SubmitOptions(name, end, max_wait, silence_timeout)
    run(submit((host, port), jobs, options, security, lambda ended: printer.print_end(_as_mapping(ended))))
    printer.finish()


def _as_text(file: Path, table: Mapping[str, Any]) -> str:
    """The table of a job as it is sent."""
    place = f"{file}: job {table['name']!r}"
    if not is_job_name(table["name"]):
        raise UsageError(f"{place}: name", "must be 1 to 64 letters, digits, '-', '_' and '.'", table["name"])
    try:
        text = json.dumps(table)
    except TypeError as error:
        raise UsageError(place, "must hold numbers, text and lists only", str(error)) from error
    if len(text) > LONGEST_JOB:
        raise UsageError(place, f"must be at most {LONGEST_JOB} characters as JSON", len(text))
    return text


def _as_mapping(ended: JobEnded) -> Mapping[str, Any]:
    """The end of a job as `EndPrinter` takes it."""
    if ended.error or not ended.report:
        reason = ended.error or "its report is too long to be sent; the server's --report has it"
        return {"job": ended.job, "error": reason, "exit_code": ended.exit_code}
    try:
        return {"job": ended.job, "report": json.loads(ended.report)}
    except ValueError as error:
        raise UsageError("report of the server", "must be JSON", ended.job) from error
