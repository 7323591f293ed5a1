"""The command `asyncdmtl`, which imports the module of a subcommand only when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from asyncdmtl._version import __version__

# Every subcommand, in the order of the help, with the line that the help of `asyncdmtl` shows for it. The
# line stands here because the module that defines a command takes up to half a second to import.
COMMANDS = {
    "run": "Train on this machine: one server and worker processes that talk over TCP.",
    "predict": "Predict every row of FILES with the MODEL that --save wrote.",
    "report": "Show the report in FILE again: as tables, a picture, or a page for browsers.",
    "show": "Show the coefficients of the MODEL that --save wrote, for each task.",
    "export": "Write the MODEL that --save wrote as one model of ONNX, for other programs.",
    "plan": "Plan for the placement in FILE, and explain the plan.",
    "place": "Find a placement of least total load for given storage, with the bound over all placements "
    "beside it.",
    "server": "Serve one run, or a stream of --jobs: wait for workers, plan, train, and report what "
    "travelled.",
    "worker": "Take part in a run with the partitions that are stored here.",
    "submit": "Submit the jobs in FILE to a running server, and wait until they have ended.",
    "relay": "Stand for all workers of a site: a server towards them, one worker towards the server.",
    "launch": "Take part in a run that srun or mpiexec starts: rank 0 is the server, the others are workers.",
}


class LazyGroup(click.Group):
    """A group that imports the module of a subcommand, `asyncdmtl.cli.NAME`, when the subcommand is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of this name, or None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module: Any = import_module(f"asyncdmtl.cli.{cmd_name}")
        command: click.Command = module.main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands from `COMMANDS`, without importing their modules."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        rows = [
            (name, click.Command(name, help=text).get_short_help_str(room)) for name, text in COMMANDS.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="asyncdmtl")
def main() -> None:
    """Coded distributed multi-task learning over TCP: exact, load-optimal, every byte counted."""
