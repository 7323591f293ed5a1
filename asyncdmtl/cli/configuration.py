"""Where the options of a command come from: the command line, a TOML file, the environment, and defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.main import COMMANDS
from asyncdmtl.documents import read_toml
from asyncdmtl.errors import UsageError


def read_defaults(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The callback of `--config`: fill the defaults of a command from the environment, then from the file.

    An option `--log-level` is `ASYNCDMTL_LOG_LEVEL` in the environment and `log-level` in the file's table
    for the command.

    Raises
    ------
    UsageError
        The file cannot be read, or sets a name that is no option of the command.
    """
    options = _configurable(context.command)
    defaults: dict[str, Any] = {
        str(option.name): [os.environ[variable]] if option.multiple else os.environ[variable]
        for name, option in options.items()
        if (variable := f"ASYNCDMTL_{name.upper().replace('-', '_')}") in os.environ
    }
    if path is not None:
        place = f"{path}: [{context.command.name}]"
        for name, value in _table(path, str(context.command.name)).items():
            if name not in options:
                raise UsageError(place, f"may set only {', '.join(sorted(options))}", name)
            defaults[str(options[name].name)] = as_given(f"{place} {name}", value, options[name])
    context.default_map = defaults
    return path


def _configurable(command: click.Command) -> dict[str, click.Option]:
    """The options that a file or the environment may set, keyed by their long name without leading dashes."""
    return {
        max(option.opts, key=len).removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        and option.name not in ("config", "version", "help")
        and not option.hidden
        and "--json" not in option.opts
    }


def as_given(what: str, value: Any, option: click.Option) -> Any:
    """Convert a value of the file to the form that the command line would give, which click then checks."""
    if option.multiple:
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) for each in values):
            raise UsageError(what, "must be text, or a list of texts", value)
        if isinstance(value, list) and len(values) == 1:
            # Several texts are one name each, but a single one may hold several names unless it is quoted.
            quoted = values[0].replace('"', '""')
            return [f'"{quoted}"']
        return values
    if isinstance(value, bool) == option.is_flag and isinstance(value, bool | int | float | str):
        return value if option.is_flag else str(value)
    raise UsageError(what, f"must be {'true or false' if option.is_flag else 'text or a number'}", value)


def _table(path: Path, command: str) -> dict[str, Any]:
    """The table of a command in a configuration file; empty if the file has none."""
    try:
        content = read_toml(path)
    except OSError as error:
        raise UsageError("--config", f"must be readable ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise UsageError("--config", f"must be TOML ({error})", str(path)) from error
    if unknown := sorted(set(content) - set(COMMANDS)):
        raise UsageError(f"{path}", f"may have the tables {', '.join(COMMANDS)}; unknown", unknown)
    table = content.get(command, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {command}", "must be a table of options", table)
    return table
