"""`python -m asyncdmtl.worker`: one worker of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncdmtl.blinding.agreement import SecretProofs
from asyncdmtl.cli.blind_options import group_options
from asyncdmtl.cli.command import command, seconds_option, together
from asyncdmtl.cli.connection_options import connection_options
from asyncdmtl.cli.data_options import data_options
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.data import loading
from asyncdmtl.data.class_weights import BALANCED
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.partition_file import read_partition
from asyncdmtl.data.stored import Stored
from asyncdmtl.data.table import TASK
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.outcome import zero_words
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.addresses import parse_addresses
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.credentials import find_group_secret
from asyncdmtl.net.event_loop import run
from asyncdmtl.net.member_certificates import GROUP_CA_OPTION, CertificateProofs
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import declare_worker
from asyncdmtl.plan.validation import WANTS
from asyncdmtl.report.json_output import emit
from asyncdmtl.report.units import counted
from asyncdmtl.worker.jobs import ALONE, JobPlace, StreamOver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.stream_worker import stream_worker
from asyncdmtl.worker.worker import Worker

log = logging.getLogger("asyncdmtl.worker")

_wait_options = together(
    seconds_option(
        "--max-wait",
        60.0,
        "Wait this long for the server to be up, at the start and whenever the connection is lost.",
    ),
    seconds_option("--start-timeout", 3600.0, "Wait this long for the start of the training."),
    seconds_option(
        "--round-timeout",
        600.0,
        "Wait this long for the downlink of a round, and half as long again for a new plan without silent "
        "workers.",
    ),
    seconds_option("--silence-timeout", 10.0, "Give a server up that is silent for longer."),
)


@command("worker")
@click.option(
    "--connect",
    default="127.0.0.1:7700",
    metavar="HOST:PORT,…",
    help="The server, or a relay that leads to it. Of several addresses, those after the first are tried in "
    "this order when one does not serve.",
)
@click.option("--name", required=True, help="The worker's name, unique in the run.")
@data_options
@click.option(
    "--site",
    metavar="NAME",
    help="Begin the names of partitions with this name, so that files of one name at several sites are not "
    "taken for copies of each other.",
)
@click.option(
    "--least-rows",
    type=int,
    default=1,
    metavar="ROWS",
    help="Take no part, and tell nothing of the rows, if a partition here has fewer rows to train on; or a "
    "fold of it, where the run chooses λ.",
)
@click.option(
    "--wants",
    type=click.Choice(WANTS),
    show_default="what the strategy gives",
    help="The models that this worker receives. none: it only helps, with data and rows, and receives no "
    "vectors (--update statistics only). own: those of the tasks that it stores data of (--strategy personal "
    "or auto). all: those of all tasks.",
)
@click.option("--seed", type=int, default=0, help="Of the data; the same at every worker.")
@click.option("--partitions", metavar="ID,ID…", help="The partitions that are stored here.")
@click.option(
    "--placement",
    type=click.Path(path_type=Path),
    help="Placement file: store the partitions that it lists for --name. Without --placement and "
    "--partitions, the worker stores everything; each file's rows of a task are then a partition, FILE/TASK.",
)
@click.option(
    "--partition-file",
    "partition_files",
    type=click.Path(path_type=Path),
    multiple=True,
    hidden=True,
    help="A partition as asyncdmtl wrote it, instead of --data; may be given several times.",
)
@click.option(
    "--class-weight",
    type=click.Choice((BALANCED,)),
    hidden=True,
    help="As of run, which has the whole table.",
)
@click.option("--by-file", is_flag=True, hidden=True, help="--placement names partitions FILE/TASK.")
@click.option(
    "--share",
    hidden=True,
    help="K/N/C: store what worker K of N stores when each partition is stored cyclically at C workers.",
)
@click.option(
    "--declare",
    type=click.Path(path_type=Path),
    help="Write this worker and its partitions into this placement file, beside the workers that are in it, "
    "and end. `asyncdmtl plan` and `place --from` read the file.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write the models of all tasks here at the end (.npz)."
)
@_wait_options
@connection_options
@group_options
@click.option(
    "--interface",
    metavar="NAME",
    default="",
    show_default="that of the connection",
    help="The network interface that hears datagrams, if the server sends to a group: its name, or one of "
    "its addresses.",
)
@click.option(
    "--peer-listen",
    metavar="HOST:PORT",
    default="",
    show_default="a free port at the address of the connection",
    help="Where other workers take rows from this one, if the server says --downlink peers. none: nowhere; "
    "this worker then takes rows from others only.",
)
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    connect: str,
    name: str,
    least_rows: int,
    wants: str | None,
    partitions: str | None,
    placement: Path | None,
    partition_files: Sequence[Path],
    share: str | None,
    declare: Path | None,
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
    _check_files(save, declare, wants)
    addresses = parse_addresses(connect, "--connect")
    security = WorkerSecurity.from_files(name, secret_file, tls_ca, tls_cert, tls_key, tls_server_name)
    peer_listen = given["peer_listen"]
    _tell_risks(*security.check_exposures(addresses, insecure, peer_listen))
    names = _stored_names(name, partitions, placement)
    held_back = None
    if partition_files or (names is None and share is None and loading.is_table(given["data"])):
        # If files are partitions as they are, test rows are held out of each partition.
        held_back, given["test_fraction"] = given["test_fraction"], None
    waits = max_wait, start_timeout, round_timeout, silence_timeout
    options = WorkerOptions(name, *waits, interface, held_back, least_rows, wants or "", ALONE, peer_listen)
    options = _with_group(options, given, tls_cert, tls_key)
    load = partial(_load, partition_files, names, share, given)
    if declare is not None:
        _declare(declare, name, load(""))
        return

    def save_models(place: JobPlace, worker: Worker, models: TaskModels) -> None:
        if save is not None:
            file = save.with_name(f"{save.stem}-{place.job}{save.suffix}") if place.job else save
            SavedModel(models, *_trained_with(worker, blind=options.blind), given["task"] or TASK).save(file)

    worker = stream_worker(options, load, security, addresses, save_models)
    try:
        models = run(worker.run(*addresses[0], *addresses[1:]), until_eof=until_eof)
    except StreamOver as over:
        _tell_stream(name, over, format)
        return
    save_models(ALONE, worker, models)
    critical = worker.state.critical_strength
    if format == "json":
        event = {"event": "finished", "worker": name, "models": str(save) if save else None}
        emit(event if critical is None else {**event, "critical_strength": critical})
        return
    if len(models.tasks) and not models.coef_.any():
        click.echo(zero_words(worker.state.settings.strength or 0.0, critical))
    told = f"models of {counted(len(models.tasks), 'task')}" + (f" in {save}" if save else "")
    click.echo(f"worker {name}: done, {'has helped' if wants == 'none' else told}")


def _load(
    partition_files: Sequence[Path],
    names: list[str] | None,
    share: str | None,
    given: Mapping[str, Any],
    target: str,
) -> Sequence[Stored]:
    """The partitions that are stored here, for a column that is predicted; that of --target if it is empty.

    Raises
    ------
    AsyncDMTLError
        They cannot be loaded, or have no such column.
    """
    if target:
        if partition_files:
            raise UsageError("target of a job", "cannot be chosen for partitions as they are", target)
        given = {**given, "target": target}
    if partition_files:
        return [read_partition(file) for file in partition_files]
    if share is not None:
        return loading.load_share(given, *map(int, share.split("/")))
    return loading.load_stored(given, names)


def _declare(file: Path, name: str, stored: Sequence[Stored]) -> None:
    """Write a worker with its partitions into a placement file."""
    there = declare_worker(file, name, {part.id: part.task for part in stored})
    workers, partitions = counted(len(there.workers), "worker"), counted(len(there.partitions), "partition")
    click.echo(f"{file}: {workers}, {partitions}")


def _tell_stream(name: str, over: StreamOver, format: str) -> None:
    """Print the end of a stream of jobs, and raise the first error of a job that failed here."""
    if format == "json":
        emit({"event": "finished", "worker": name, "jobs": over.made, "failed": sorted(over.failed)})
    else:
        failed = f", of which {', '.join(over.failed)} failed here" if over.failed else ""
        click.echo(f"worker {name}: done, {counted(over.made, 'job')}{failed}")
    if over.failed:
        raise next(iter(over.failed.values()))


def _tell_risks(*risks: str | None) -> None:
    """Write the risks that there are into the log."""
    for risk in risks:
        if risk is not None:
            log.warning("%s", risk)


def _trained_with(worker: Worker, *, blind: bool) -> tuple[Encoding, Settings]:
    """The encoding and the settings of a run that is over.

    The server of a blind run does not know what was chosen, so that the settings of a file say it.
    """
    encoding, settings = worker.trained_with
    return encoding, worker.state.settings if blind else settings


def _with_group(
    options: WorkerOptions, given: Mapping[str, Any], tls_cert: Path | None, tls_key: Path | None
) -> WorkerOptions:
    """The options of a worker with those of its group; UsageError if these do not fit each other."""
    secret, ca = find_group_secret(given["group_secret_file"]), given["group_ca"]
    if ca is not None:
        if secret is not None:
            rule = "cannot be given together with --group-secret-file or ASYNCDMTL_GROUP_SECRET"
            raise UsageError(GROUP_CA_OPTION, rule, str(ca))
        if tls_cert is None or tls_key is None:
            raise UsageError(GROUP_CA_OPTION, "needs --tls-cert and --tls-key", str(ca))
        return replace(options, group_proofs=CertificateProofs(ca, tls_cert, tls_key))
    if not given["group_agree"]:
        return replace(options, group_secret=secret)
    if secret is None:
        rule = "needs --group-secret-file, by which workers prove themselves to each other, or --group-ca"
        raise UsageError("--group-agree", rule, None)
    return replace(options, group_proofs=SecretProofs(secret))


def _check_files(save: Path | None, declare: Path | None, wants: str | None) -> None:
    """UsageError if an output file cannot be written, or there will be no models to write."""
    check_outputs({"--save": save, "--declare": declare})
    if save is not None and wants == "none":
        rule = "cannot be given with --wants none, which leaves no models here"
        raise UsageError("--save", rule, str(save))


def _stored_names(name: str, partitions: str | None, placement: Path | None) -> list[str] | None:
    """The names of the partitions that this worker stores; None for all."""
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
