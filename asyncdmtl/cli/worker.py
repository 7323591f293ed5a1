"""`python -m asyncdmtl.worker`: one worker of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.options import data_options
from asyncdmtl.data import loading
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.tables import TASK
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.json_output import emit
from asyncdmtl.worker.worker import Worker, WorkerOptions

# By name: run as a program, this module is called __main__.
log = logging.getLogger("asyncdmtl.worker")


@command("worker")
@click.option("--connect", default="127.0.0.1:7700", metavar="HOST:PORT", help="The server.")
@click.option("--name", required=True, help="Unique in the run.")
@data_options
@click.option("--seed", type=int, default=0, help="Of the data; the same at every worker.")
@click.option("--partitions", metavar="ID,ID…", help="The partitions that are stored here.")
@click.option(
    "--placement",
    type=click.Path(path_type=Path),
    help="Placement file: store what it says of --name. Without --placement and --partitions: everything; "
    "and in files each file's rows of a task are a partition, FILE/TASK.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write the models of all tasks here at the end (.npz)."
)
@click.option(
    "--max-wait",
    type=float,
    default=60.0,
    metavar="SECONDS",
    help="Wait this long for the server to be up, at the start and whenever the connection is lost.",
)
@click.option(
    "--start-timeout", type=float, default=3600.0, metavar="SECONDS", help="Wait this long for the start."
)
@click.option(
    "--round-timeout", type=float, default=600.0, metavar="SECONDS", help="Wait this long for a downlink."
)
@click.option(
    "--silence-timeout",
    type=float,
    default=10.0,
    metavar="SECONDS",
    help="A server silent for longer is lost.",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    help="Prove to know the secret in this file, and have the server prove it: one line, or in FILE.toml "
    "that of --name in the table [workers]. Also: ASYNCDMTL_SECRET in the environment.",
)
@click.option(
    "--tls-ca",
    type=click.Path(path_type=Path),
    help="Speak TLS with a server whose certificate this CA signed, PEM; it may be that certificate itself.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Show this certificate for --name, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM, unencrypted.")
@click.option(
    "--tls-server-name",
    metavar="NAME",
    show_default="the host of --connect",
    help="What the server's certificate must be for.",
)
@click.option(
    "--interface",
    metavar="NAME",
    default="",
    show_default="that of the connection",
    help="By which datagrams come if the server sends to a group: its name, or an address of it.",
)
@click.option("--insecure", is_flag=True, help="Permit a plaintext connection to another host.")
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    connect: str,
    name: str,
    partitions: str | None,
    placement: Path | None,
    save: Path | None,
    max_wait: float,
    start_timeout: float,
    round_timeout: float,
    silence_timeout: float,
    secret_file: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    interface: str,
    insecure: bool,
    until_eof: bool,
    format: str,
    **given: Any,
) -> None:
    """Take part in a run with the partitions that are stored here.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    host, port = parse_address(connect, "--connect")
    security = WorkerSecurity.from_files(name, secret_file, tls_ca, tls_cert, tls_key, tls_server_name)
    if (risk := security.check_exposure(host, insecure)) is not None:
        log.warning("%s", risk)
    options = WorkerOptions(name, max_wait, start_timeout, round_timeout, silence_timeout, interface)
    stored = loading.load_stored(given, _stored(name, partitions, placement))
    participant = Worker(options, stored, security)
    models = run(_take_part(participant, host, port), until_eof=until_eof)
    if save is not None:
        SavedModel(models, *participant.trained_with, given["task"] or TASK).save(save)
    if format == "json":
        emit({"event": "finished", "worker": name, "models": str(save) if save else None})
    else:
        click.echo(
            f"worker {name}: done, models of {len(models.tasks)} tasks" + (f" in {save}" if save else "")
        )


async def _take_part(participant: Worker, host: str, port: int) -> TaskModels:
    return await participant.run(host, port)


def _stored(name: str, partitions: str | None, placement: Path | None) -> list[str] | None:
    """The partitions that this worker stores; None for all."""
    if partitions is not None and placement is not None:
        raise UsageError("--partitions and --placement", "cannot both be given", (partitions, str(placement)))
    if partitions is not None:
        return [part for part in partitions.split(",") if part]
    if placement is None:
        return None
    stored = Placement.read(placement).as_dict()
    if name not in stored:
        raise UsageError("--name", f"must be a worker of {placement} ({', '.join(stored)})", name)
    return stored[name]
