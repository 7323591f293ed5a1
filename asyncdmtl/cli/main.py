"""`asyncdmtl`: the one entry point."""

from __future__ import annotations

import click

from asyncdmtl._version import __version__
from asyncdmtl.cli import place, plan, predict, run, server, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="asyncdmtl")
def main() -> None:
    """Coded distributed multi-task learning over TCP: exact, load-optimal, every byte counted."""


main.add_command(run.main)
main.add_command(predict.main)
main.add_command(plan.main)
main.add_command(place.main)
main.add_command(server.main)
main.add_command(worker.main)
