"""`python -m asyncdmtl.server`: the server of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.options import downlink_options, make_multicast, make_settings, training_options
from asyncdmtl.data import loading, recipes
from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import format_address, parse_address
from asyncdmtl.net.authentication import ServerSecurity, is_loopback
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report import run_report
from asyncdmtl.report.json_output import emit
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.server import Server

# By name: run as a program, this module is called __main__.
log = logging.getLogger("asyncdmtl.server")


@command("server")
@click.option(
    "--listen", default="127.0.0.1:7700", metavar="HOST:PORT", help="Where to listen; port 0: a free one."
)
@click.option("--workers", type=int, help="Start when so many workers have joined.")
@click.option(
    "--cover",
    type=click.Path(path_type=Path),
    help="Placement file: start when each of its partitions has a holder; nobody may store others. "
    "Without --workers and --cover, the partitions of --data must be covered.",
)
@click.option(
    "--data",
    "recipe",
    show_default="digits, unless --loss is given",
    help="The recipe that the workers train on. The server makes no row of it: this only gives loss and "
    "defaults. For data in files give --loss, --strength and --workers instead.",
)
@training_options
@downlink_options
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the report here as JSON."
)
@click.option(
    "--join-timeout", type=float, default=300.0, metavar="SECONDS", help="Wait this long for workers."
)
@click.option(
    "--round-timeout", type=float, default=600.0, metavar="SECONDS", help="Wait this long for an uplink."
)
@click.option(
    "--silence-timeout",
    type=float,
    default=10.0,
    metavar="SECONDS",
    help="A worker silent for longer is lost.",
)
@click.option(
    "--rejoin-timeout",
    type=float,
    default=60.0,
    metavar="SECONDS",
    help="Wait this long for a replacement when nobody is left who holds a partition.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write down here where the training stands, so that --resume can go on with it.",
)
@click.option(
    "--checkpoint-every", type=int, default=10, metavar="ROUNDS", help="From one checkpoint to the next."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run that --checkpoint is of, with the options that it was started with; "
    "if there is none yet, start one.",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    help="Workers must prove that they know the secret in this file: one for all in a line, or in FILE.toml "
    "a table [workers] of one for each name. Also: ASYNCDMTL_SECRET in the environment.",
)
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), help="Speak TLS with this certificate (chain), PEM."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM, unencrypted.")
@click.option(
    "--tls-client-ca",
    type=click.Path(path_type=Path),
    help="Workers must show a certificate for their name that this CA signed, PEM.",
)
@click.option(
    "--insecure", is_flag=True, help="Listen beyond this machine without TLS or without proof who takes part."
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    help="Answer /healthz, /readyz and /metrics (Prometheus) over HTTP here; port 0: a free one. Plaintext.",
)
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    listen: str,
    workers: int | None,
    cover: Path | None,
    recipe: str | None,
    report_file: Path | None,
    join_timeout: float,
    round_timeout: float,
    silence_timeout: float,
    rejoin_timeout: float,
    checkpoint: Path | None,
    checkpoint_every: int,
    resume: bool,
    secret_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    insecure: bool,
    health: str | None,
    until_eof: bool,
    format: str,
    **given: Any,
) -> None:
    """Serve one run: wait for workers, plan, train, and report what travelled.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    host, port = parse_address(listen, "--listen")
    security = ServerSecurity.from_files(secret_file, tls_cert, tls_key, tls_client_ca)
    if (risk := security.check_exposure(host, insecure)) is not None:
        log.warning("%s", risk)
    observers = _check_health(health, insecure)
    partitions = Placement.read(cover).partitions if cover is not None else None
    defaults = loading.TABLE_DEFAULTS
    if recipe is not None or given["loss"] is None:
        dataset = recipes.load(recipe or "digits", seed=given["seed"], only=(), test=False)
        defaults = loading.recipe_defaults(dataset)
        if workers is None and partitions is None:
            partitions = dataset.ids
    options = RunOptions(
        make_settings(defaults, given),
        given["strategy"],
        workers,
        partitions,
        join_timeout,
        round_timeout,
        silence_timeout,
        rejoin_timeout,
        checkpoint,
        checkpoint_every,
        resume,
        make_multicast(given),
    )
    as_json = format == "json"
    # Where the log is JSON, nothing else may be said on the same file.
    tell = emit if as_json else _say if given["log_format"] == "text" else _keep_quiet
    record = run(_serve(options, security, (host, port), tell, observers), until_eof=until_eof)
    made = run_report.traffic(record)
    if report_file is not None:
        run_report.write(made, report_file)
    if as_json:
        emit({"event": "finished", "report": made})
    else:
        run_report.show(made)


async def _serve(
    options: RunOptions,
    security: ServerSecurity,
    address: tuple[str, int],
    tell: Callable[[dict[str, Any]], None],
    observers: tuple[str, int] | None,
) -> RunRecord:
    if observers is None:
        return await Server(options, tell, security).run(*address)
    # Here and not above: only those who ask for metrics wait for what makes them to be imported.
    from asyncdmtl.server.health import Health, Metrics

    def note(event: dict[str, Any]) -> None:
        metrics.note(event)
        tell(event)

    coordinator = Server(options, note, security)
    metrics = Metrics(options.settings.rounds, coordinator.ledger)
    health = Health(metrics)
    host, port = await health.listen(*observers)
    tell({"event": "health", "host": host, "port": port})
    try:
        return await coordinator.run(*address)
    finally:
        await health.close()


def _check_health(health: str | None, insecure: bool) -> tuple[str, int] | None:
    """Where health and metrics are to be had; in plaintext, and for everybody who gets there."""
    if health is None:
        return None
    host, port = parse_address(health, "--health")
    if not is_loopback(host):
        if not insecure:
            raise UsageError("--health", "must be a loopback address unless --insecure is given", host)
        log.warning("answering --health on %s: anyone on the network can read it", host)
    return host, port


def _keep_quiet(event: dict[str, Any]) -> None:
    """Tell nobody."""


def _say(event: dict[str, Any]) -> None:
    """Tell a person on stderr what an operator must know to go on; the rest is in the log."""
    if event["event"] == "listening":
        address = format_address(event["host"], event["port"])
        click.echo(f"run {event['run']}: listening on {address}", err=True)
    elif event["event"] == "joined":
        click.echo(f"worker {event['worker']} joined with {event['partitions']} partitions", err=True)
