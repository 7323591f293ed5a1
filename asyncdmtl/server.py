"""`python -m asyncdmtl.server`: the server of a run."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asyncdmtl import data, report
from asyncdmtl.command import command, emit, execute
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.coupling import COUPLINGS
from asyncdmtl.learning.training import DTYPES, Settings
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import CHOICES
from asyncdmtl.runtime.coordinator import Coordinator
from asyncdmtl.runtime.loop import run
from asyncdmtl.runtime.records import RunOptions
from asyncdmtl.runtime.transport import format_address, parse_address

log = logging.getLogger(__name__)


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is trained, for all commands that start a run."""
    suits = "the one that suits --data"
    options = (
        click.option(
            "--strategy",
            type=click.Choice(CHOICES),
            default="relay",
            help="Who aggregates: workers (relay; uncoded, the baseline) or the server (central, personal). "
            "linear: only linear combinations travel, over the reals. auto: the cheapest exact one.",
        ),
        click.option(
            "--coupling",
            type=click.Choice(tuple(COUPLINGS)),
            show_default=suits,
            help="What ties the tasks' models together.",
        ),
        click.option("--strength", type=float, show_default=suits, help="λ, the weight of the coupling."),
        click.option(
            "--aggregate",
            type=click.Choice(tuple(AGGREGATES)),
            default="mean",
            help="How the updates of a task's partitions become one.",
        ),
        click.option("--rounds", type=int, show_default=suits, help="Rounds to train."),
        click.option(
            "--dtype", type=click.Choice(DTYPES), default="float32", help="Of models and exchanged vectors."
        ),
        click.option("--seed", type=int, default=0, help="Of the data: which rows train and which test."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_settings(dataset: data.Dataset, given: dict[str, Any]) -> Settings:
    """Settings from the training options, with those of the data set where an option was not given."""
    chosen = {**dataset.suggested, **{key: value for key, value in given.items() if value is not None}}
    return Settings(
        loss=dataset.loss,
        aggregate=chosen["aggregate"],
        coupling=chosen["coupling"],
        strength=chosen["strength"],
        rounds=chosen["rounds"],
        dtype=chosen["dtype"],
        intercept=dataset.intercept,
        seed=chosen["seed"],
    )


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
    "spec",
    default="digits",
    help="What the workers train on. The server loads no row of it: this only gives loss and defaults.",
)
@training_options
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
@click.option("--insecure", is_flag=True, help="Permit plaintext connections from other hosts.")
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    listen: str,
    workers: int | None,
    cover: Path | None,
    spec: str,
    report_file: Path | None,
    join_timeout: float,
    round_timeout: float,
    silence_timeout: float,
    insecure: bool,
    until_eof: bool,
    format: str,
    **given: Any,
) -> None:
    """Serve one run: wait for workers, plan, train, and report what travelled.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    host, port = parse_address(listen, "--listen")
    _check_exposure(host, insecure)
    dataset = data.load(spec, seed=given["seed"], only=(), test=False)
    partitions = Placement.read(cover).partitions if cover is not None else None
    if workers is None and partitions is None:
        partitions = dataset.ids
    options = RunOptions(
        make_settings(dataset, given),
        given["strategy"],
        workers,
        partitions,
        join_timeout,
        round_timeout,
        silence_timeout,
    )
    as_json = format == "json"
    record = run(_serve(options, host, port, as_json), until_eof=until_eof)
    made = report.traffic(record)
    if report_file is not None:
        report.write(made, report_file)
    if as_json:
        emit({"event": "finished", "report": made})
    else:
        report.show(made)


async def _serve(options: RunOptions, host: str, port: int, as_json: bool) -> Any:
    return await Coordinator(options, emit if as_json else _say).run(host, port)


def _say(event: dict[str, Any]) -> None:
    """Tell a person on stderr what an operator must know to go on; the rest is in the log."""
    if event["event"] == "listening":
        address = format_address(event["host"], event["port"])
        click.echo(f"run {event['run']}: listening on {address}", err=True)
    elif event["event"] == "joined":
        click.echo(f"worker {event['worker']} joined with {event['partitions']} partitions", err=True)


def _check_exposure(host: str, insecure: bool) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if loopback:
        return
    if not insecure:
        raise UsageError("--listen", "must be a loopback address unless --insecure permits plaintext", host)
    log.warning("listening on %s without encryption: anyone on the network can read and join this run", host)


if __name__ == "__main__":
    execute(main)
