"""`python -m asyncdmtl.worker`: one worker of a run."""

from __future__ import annotations

from pathlib import Path

import click

from asyncdmtl import data
from asyncdmtl.command import command, emit, execute
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import Placement
from asyncdmtl.runtime.loop import run
from asyncdmtl.runtime.participant import Participant, WorkerOptions
from asyncdmtl.runtime.transport import parse_address


@command("worker")
@click.option("--connect", default="127.0.0.1:7700", metavar="HOST:PORT", help="The server.")
@click.option("--name", required=True, help="Unique in the run.")
@click.option(
    "--data", "spec", default="digits", help="What to train on: NAME or NAME:key=value,… or a recipe file."
)
@click.option("--seed", type=int, default=0, help="Of the data; the same at every worker.")
@click.option("--partitions", metavar="ID,ID…", help="The partitions that are stored here.")
@click.option(
    "--placement",
    type=click.Path(path_type=Path),
    help="Placement file: store what it says of --name. Without --placement and --partitions: everything.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write the models of all tasks here at the end (.npz)."
)
@click.option(
    "--max-wait", type=float, default=60.0, metavar="SECONDS", help="Wait this long for the server to be up."
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
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    connect: str,
    name: str,
    spec: str,
    seed: int,
    partitions: str | None,
    placement: Path | None,
    save: Path | None,
    max_wait: float,
    start_timeout: float,
    round_timeout: float,
    silence_timeout: float,
    until_eof: bool,
    format: str,
    **_: object,
) -> None:
    """Take part in a run with the partitions that are stored here.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    host, port = parse_address(connect, "--connect")
    options = WorkerOptions(name, max_wait, start_timeout, round_timeout, silence_timeout)
    dataset = data.load(spec, seed=seed, only=_stored(name, partitions, placement), test=False)
    models = run(_take_part(Participant(options, dataset.partitions), host, port), until_eof=until_eof)
    if save is not None:
        models.save(save)
    if format == "json":
        emit({"event": "finished", "worker": name, "models": str(save) if save else None})
    else:
        click.echo(
            f"worker {name}: done, models of {len(models.tasks)} tasks" + (f" in {save}" if save else "")
        )


async def _take_part(participant: Participant, host: str, port: int) -> TaskModels:
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


if __name__ == "__main__":
    execute(main)
