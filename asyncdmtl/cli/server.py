"""`python -m asyncdmtl.server`: the server of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.blind_options import blind_option
from asyncdmtl.cli.command import command, seconds_option, together
from asyncdmtl.cli.dashboard_options import DashboardOptions, dashboard_options, page_options, show
from asyncdmtl.cli.health_option import health_address, health_option
from asyncdmtl.cli.job_options import check_alone, job_options, read_jobs, submitted_job
from asyncdmtl.cli.link_options import link_options, make_links
from asyncdmtl.cli.multicast_options import downlink_options, make_multicast, takes_from_peers
from asyncdmtl.cli.outputs import check_outputs, print_report
from asyncdmtl.cli.streams import OutcomePrinter, Serving, serve_jobs
from asyncdmtl.cli.tracker_options import Tracking, tracker_options
from asyncdmtl.cli.training_options import DEFAULT_STRATEGY, make_settings, training_options
from asyncdmtl.data import loading, recipes
from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import format_address, parse_address
from asyncdmtl.net.authentication import ServerSecurity
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.stragglers import check_copies
from asyncdmtl.report.json_output import emit, write_report
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.units import counted
from asyncdmtl.server.brought_jobs import brought_job, is_brought
from asyncdmtl.server.checkpointing import delete_checkpoints
from asyncdmtl.server.events import (
    DashboardListening,
    HealthListening,
    Joined,
    Listening,
    OnEvent,
    ServerEvent,
)
from asyncdmtl.server.jobs import Job, StreamOptions
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server

log = logging.getLogger("asyncdmtl.server")

_wait_options = together(
    seconds_option("--join-timeout", 300.0, "Wait this long for all workers to join."),
    seconds_option("--round-timeout", 600.0, "Wait this long for a worker's uplink."),
    seconds_option("--silence-timeout", 10.0, "Give a worker up that is silent for longer."),
    seconds_option(
        "--rejoin-timeout",
        60.0,
        "Wait this long for a replacement when no worker is left that holds a partition.",
    ),
)

_checkpoint_options = together(
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Save the state of the training in this directory, so that --resume can continue from it.",
    ),
    click.option(
        "--checkpoint-every",
        type=int,
        default=10,
        metavar="ROUNDS",
        help="Rounds from one checkpoint to the next.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue the run in the directory of --checkpoint, under the options that it was started with; "
        "if the directory has no checkpoint yet, start a run.",
    ),
)

_security_options = together(
    click.option(
        "--secret-file",
        type=click.Path(path_type=Path),
        help="Workers must prove knowledge of the secret in this file: one line for all workers, or in "
        "FILE.toml a table [workers] with a secret for each name. Also: ASYNCDMTL_SECRET in the environment.",
    ),
    click.option(
        "--tls-cert", type=click.Path(path_type=Path), help="Speak TLS with this certificate (chain), PEM."
    ),
    click.option(
        "--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM, unencrypted."
    ),
    click.option(
        "--tls-client-ca",
        type=click.Path(path_type=Path),
        help="Workers must show a certificate for their name that this CA signed, PEM.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Listen beyond this machine without TLS, or without proof of the workers' identity.",
    ),
)


@command("server")
@click.option(
    "--listen", default="127.0.0.1:7700", metavar="HOST:PORT", help="Where to listen; port 0: a free one."
)
@click.option("--workers", type=int, help="Start when so many workers have joined.")
@click.option(
    "--cover",
    type=click.Path(path_type=Path),
    help="Placement file: start when each of its partitions has a worker that stores it, or one more than "
    "--silent; each worker may store what the file says, and no more. Without --workers and --cover, the "
    "partitions of --data must be covered.",
)
@click.option(
    "--data",
    "recipe",
    show_default="digits, unless --loss is given",
    help="The recipe that the workers train on. The server makes no row of it, and takes only loss and "
    "defaults from it. For data in files give --loss, --strength and --workers instead.",
)
@training_options
@link_options
@click.option(
    "--test-fraction",
    type=float,
    metavar="SHARE",
    show_default="none",
    help="The share of the rows of each partition that its holders keep for tests. They tell sums of errors, "
    "from which the report has test scores; no row leaves its site.",
)
@downlink_options
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the report here as JSON."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw loads, training and test scores here."
)
@tracker_options
@job_options
@click.option(
    "--submissions",
    is_flag=True,
    help="Take jobs of `asyncdmtl submit` and of estimators, beside those of --jobs, if it is given, until "
    "a program submits with --end. The options given here are those of a job that does not set its own.",
)
@blind_option
@_wait_options
@_checkpoint_options
@_security_options
@health_option
@page_options
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    listen: str,
    workers: int | None,
    cover: Path | None,
    recipe: str | None,
    report_file: Path | None,
    plot_file: Path | None,
    jobs_file: Path | None,
    submissions: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    health: str | None,
    dashboard: str | None,
    dashboard_token_file: Path | None,
    until_eof: bool,
    format: str,
    **given: Any,
) -> None:
    """Serve one run, or a stream of --jobs: wait for workers, plan, train, and report what travelled.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    check_outputs({"--report": report_file, "--plot": plot_file})
    check_picture(plot_file)
    host, port = parse_address(listen, "--listen")
    security = ServerSecurity.from_files(given["secret_file"], tls_cert, tls_key, given["tls_client_ca"])
    if (risk := security.check_exposure(host, insecure)) is not None:
        log.warning("%s", risk)
    pages = _Pages(
        health_address(health, insecure),
        dashboard_options(dashboard, dashboard_token_file, tls_cert, tls_key, insecure=insecure),
    )
    partitions, permitted = _read_cover(cover, given["silent"])
    make = partial(_options, recipe, workers, partitions, permitted)
    # If the log on stderr is JSON lines, nothing else may be printed there.
    on_event: OnEvent = _emit if format == "json" else _say if given["log_format"] == "text" else _ignore
    if jobs_file is not None or submissions:
        check_alone({"--plot": plot_file, "--health": pages.health, "--dashboard": pages.dashboard}, given)

        def make_job(name: str, own: Mapping[str, Any], target: str) -> Job:
            return Job(name, make(own), target)

        # Options that no job replaces must suit a run before anyone submits one.
        template = make(given)

        def read_job(table: Mapping[str, Any]) -> Job:
            return (
                brought_job(table, template) if is_brought(table) else submitted_job(table, given, make_job)
            )

        jobs = [] if jobs_file is None else read_jobs(jobs_file, given, make_job)
        stream = StreamOptions(given["in_flight"], given["any_order"], given["silence_timeout"])
        reader = read_job if submissions else None
        serving = Serving((host, port), security, on_event, reader, until_eof)
        serve_jobs(jobs, stream, serving, OutcomePrinter(format, report_file))
        return
    options = make(given)
    with Tracking(given) as tracking:
        tracking.start(options)
        serve = _serve(options, security, (host, port), tracking.beside(on_event), pages)
        report = report_run(run(serve, until_eof=until_eof))
        if report_file is not None:
            write_report(report, report_file)
        tracking.finish(report)
    print_report(report, format, plot_file)
    delete_checkpoints(options)


def _options(
    recipe: str | None,
    workers: int | None,
    partitions: tuple[str, ...] | None,
    permitted: dict[str, list[str]] | None,
    given: Mapping[str, Any],
) -> RunOptions:
    """The options of a run, from the values of the command's options."""
    defaults, of_recipe = _read_recipe(recipe, given)
    if workers is None and partitions is None:
        partitions = of_recipe
    return RunOptions(
        make_settings(defaults, given),
        given["strategy"] or DEFAULT_STRATEGY,
        workers,
        partitions,
        permitted,
        given["join_timeout"],
        given["round_timeout"],
        given["silence_timeout"],
        given["rejoin_timeout"],
        given["checkpoint"],
        given["checkpoint_every"],
        given["resume"],
        make_multicast(given),
        make_links(given),
        given["silent"],
        takes_from_peers(given),
        blind=given["blind"],
    )


def _read_recipe(
    recipe: str | None, given: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, ...] | None]:
    """Defaults of the training, and the partitions of the recipe; None for data in files."""
    if recipe is not None and loading.is_table(recipe):
        rule = "must be a recipe; for data in files give --loss, --strength and --workers instead"
        raise UsageError("--data", rule, recipe)
    if recipe is None and given["loss"] is not None:
        return loading.TABLE_DEFAULTS, None
    dataset = recipes.load(recipe or "digits", seed=given["seed"], only=(), test=False)
    return loading.recipe_defaults(dataset), dataset.ids


def _read_cover(
    cover: Path | None, silent: int
) -> tuple[tuple[str, ...] | None, dict[str, list[str]] | None]:
    """All partitions of a placement file, and those that each worker may store; None without a file.

    PlacementError if no run under this placement could tolerate so many silent workers.
    """
    if cover is None:
        return None, None
    placement = Placement.read(cover)
    check_copies(placement, silent)
    return placement.partitions, placement.as_dict()


@dataclass(frozen=True)
class _Pages:
    """Where the server answers HTTP: the address of --health, and the options of --dashboard."""

    health: tuple[str, int] | None
    dashboard: DashboardOptions | None


async def _serve(
    options: RunOptions,
    security: ServerSecurity,
    address: tuple[str, int],
    on_event: OnEvent,
    pages: _Pages,
) -> RunRecord:
    """Run the server and, if addresses are given for them, answer health probes and browsers beside it."""
    notes = [on_event]

    def note(event: ServerEvent) -> None:
        for each in notes:
            each(event)

    server = Server(options, note, security)
    async with AsyncExitStack() as stack:
        if pages.health is not None:
            # Imported here, because the client library of Prometheus takes a moment to import.
            from asyncdmtl.server.health import Health
            from asyncdmtl.server.metrics import Metrics

            metrics = Metrics(options.settings.rounds, server.ledger)
            health = Health(metrics)
            notes.insert(0, metrics.note)
            on_event(HealthListening(*await health.listen(*pages.health)))
            stack.push_async_callback(health.close)
        if pages.dashboard is not None:
            notes.insert(0, await stack.enter_async_context(show(pages.dashboard, options, server, on_event)))
        return await server.run(*address)


def _emit(event: ServerEvent) -> None:
    """Print an event as a JSON line."""
    emit(event.as_json())


def _ignore(event: ServerEvent) -> None:
    """Print nothing: the log has the event."""


def _say(event: ServerEvent) -> None:
    """Print on stderr what an operator needs in order to go on. All other events are in the log."""
    if isinstance(event, Listening):
        address = format_address(event.host, event.port)
        click.echo(f"run {event.run}: listening on {address}", err=True)
    elif isinstance(event, DashboardListening):
        click.echo(f"dashboard: {event.url}", err=True)
    elif isinstance(event, Joined):
        click.echo(f"worker {event.worker} joined with {counted(event.partitions, 'partition')}", err=True)
