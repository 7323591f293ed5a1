"""Common parts of all commands: a decorator that adds the common options, configuration and logs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asyncdmtl._version import __version__
from asyncdmtl.cli.configuration import read_defaults
from asyncdmtl.cli.failure import CurrentCommand
from asyncdmtl.cli.logs import LOG_LEVELS, set_up_logs

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command(name: str, *, logs: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a click command, with the options that all commands share.

    Without `logs`, the options for logs are left to the function.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def configured(**values: Any) -> Any:
            if values.pop("show_config"):
                return print(json.dumps(values, default=str, indent=2))
            if logs:
                set_up_logs(values["log_level"], values["log_format"], values["log_file"])
            return function(**values)

        settings = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
        made: click.Command = click.command(name, context_settings=settings)(_common_options(configured))
        return made

    return decorate


def together(*options: Decorator) -> Decorator:
    """Combine several options into one decorator. The help shows them in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def seconds_option(name: str, default: float, help: str) -> Decorator:
    """An option that is a number of seconds."""
    return click.option(name, type=float, default=default, metavar="SECONDS", help=help)


def _configure(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The callback of `--config`, which click calls first: note the running command, read its defaults."""
    CurrentCommand.context = context
    return read_defaults(context, parameter, path)


_common_options = together(
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=_configure,
        help="TOML file with a table of options for each command. The command line overrides the file, "
        "the file overrides the environment (ASYNCDMTL_OPTION), the environment overrides defaults.",
    ),
    click.option(
        "--show-config", is_flag=True, help="Print the value of every option as JSON, and do nothing else."
    ),
    click.option(
        "--format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="The form of what is printed on stdout: text, or one JSON object a line.",
    ),
    click.option("--json", "format", flag_value="json", help="Short for --format json."),
    click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS),
        default="warning",
        help="The least level of log lines, which go to stderr.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="json logs one object a line: time, level, logger, message; run, round, worker where known.",
    ),
    click.option(
        "--log-file", type=click.Path(path_type=Path), help="Append log lines to this file as well."
    ),
    click.version_option(__version__, "-V", "--version", prog_name="asyncdmtl"),
)
