"""What all commands share: where settings come from, how they log, how they fail."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import signal
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from asyncdmtl._version import __version__
from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.net.event_loop import Terminated
from asyncdmtl.report.json_output import emit, finite

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

COMMANDS = ("run", "predict", "plan", "place", "server", "worker")
LOG_LEVELS = ("debug", "info", "warning", "error")

log = logging.getLogger(__name__)

# What every record of `logging` has; all else came with the call as its `extra`.
_ORDINARY = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

# Before options are read, and where this is only imported, nobody has asked for logs.
_ROOT = logging.getLogger("asyncdmtl")
_ROOT.addHandler(logging.NullHandler())


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with the options that every command has, and settings from file and environment."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def configured(**values: Any) -> Any:
            if values.pop("show_config"):
                return print(json.dumps(values, default=str, indent=2))
            _set_up_logging(values["log_level"], values["log_format"], values["log_file"])
            return function(**values)

        decorated: Callable[..., Any] = configured
        for option in reversed(_COMMON):
            decorated = option(decorated)
        settings = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
        made: click.Command = click.command(name, context_settings=settings)(decorated)
        return made

    return decorate


def execute(main: click.Command) -> None:
    """Run a command as a program: every way to end has its exit code, and no traceback unless asked for."""
    _open_standard_files()
    try:
        main.main(standalone_mode=False)
        code = 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
        _complain("interrupted", code)
    except Terminated:
        code = 128 + signal.SIGTERM
        _complain("terminated", code)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except OSError as error:
        # Whoever read our output is gone, or the disk is full.
        code = AsyncDMTLError.exit_code
        _complain(f"cannot write the output: {error.strerror}", code, label="error: ")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except AsyncDMTLError as error:
        code = error.exit_code
        report_failure(str(error), code, error)
    except Exception as error:
        code = AsyncDMTLError.exit_code
        report_failure(f"internal error: {error!r} (--log-level debug shows where)", code, error)
    sys.exit(code)


def report_failure(message: str, exit_code: int, error: Exception) -> None:
    """Say once what went wrong: as an event where events are asked for, else on stderr; and in the log."""
    _ROOT.debug("traceback", exc_info=error)
    if _asked("format") == "json":
        with contextlib.suppress(OSError):
            emit({"event": "failed", "error": message, "exit_code": exit_code})
        log.error(message, extra={"exit_code": exit_code})
    else:
        _complain(message, exit_code, label="error: ")


def _complain(message: str, exit_code: int, label: str = "") -> None:
    """Tell the log how the command ends; and stderr, unless that is a log which must stay JSON."""
    log.error(message, extra={"exit_code": exit_code})
    if _asked("log_format") != "json":
        print(f"{label}{message}", file=sys.stderr)


def _asked(option: str) -> Any:
    return _Current.context.params.get(option) if _Current.context is not None else None


def _open_standard_files() -> None:
    """Where a standard file was closed by the caller, let no socket take its number; and write all of a line.

    With PYTHONUNBUFFERED, as in many containers, the rest of a write that a signal cut short would be lost.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        own = file is getattr(sys, f"__{name}__")
        if own and isinstance(file, io.TextIOWrapper) and isinstance(file.buffer, io.RawIOBase):
            buffer = io.BufferedWriter(io.FileIO(file.fileno(), "w", closefd=False))
            whole = io.TextIOWrapper(buffer, file.encoding, file.errors, line_buffering=True)
            setattr(sys, name, whole)
            setattr(sys, f"__{name}__", whole)


class _Current:
    """The context of the running command, for whoever reports how it failed."""

    context: click.Context | None = None


def _configure(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Defaults from the environment, overlaid with the file's table for this command."""
    _Current.context = context
    options = {
        max(option.opts, key=len).removeprefix("--"): option
        for option in context.command.params
        if isinstance(option, click.Option)
        and option.name not in ("config", "version", "help")
        and not option.hidden
        and "--json" not in option.opts
    }
    defaults: dict[str, Any] = {
        str(option.name): os.environ[variable]
        for name, option in options.items()
        if (variable := f"ASYNCDMTL_{name.upper().replace('-', '_')}") in os.environ
    }
    if path is not None:
        for option, value in _table(path, str(context.command.name)).items():
            if option not in options:
                known = ", ".join(sorted(options))
                raise UsageError(f"{path}: [{context.command.name}]", f"may set only {known}", option)
            defaults[str(options[option].name)] = _plain(
                f"{path}: [{context.command.name}] {option}", value, options[option]
            )
    context.default_map = defaults
    return path


def _plain(what: str, value: Any, option: click.Option) -> Any:
    """A value of the file as it would be given on the command line, where it is checked."""
    if isinstance(value, bool) == option.is_flag and isinstance(value, bool | int | float | str):
        return value if option.is_flag else str(value)
    wanted = "true or false" if option.is_flag else "text or a number"
    raise UsageError(what, f"must be {wanted}", value)


def _table(path: Path, command: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("--config", f"must be readable ({error.strerror})", str(path)) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError("--config", f"must be TOML ({error})", str(path)) from error
    if unknown := sorted(set(content) - set(COMMANDS)):
        raise UsageError(f"{path}", f"may have the tables {', '.join(COMMANDS)}; unknown", unknown)
    table = content.get(command, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {command}", "must be a table of options", table)
    return table


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and what the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _ORDINARY},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(finite(line), default=str, allow_nan=False)


def _set_up_logging(level: str, format: str, path: Path | None) -> None:
    """Log to stderr, and to a file if there is one; UsageError if it cannot be written."""
    for old in _ROOT.handlers[:]:
        _ROOT.removeHandler(old)
        old.close()
    _ROOT.setLevel(level.upper())
    stderr = logging.StreamHandler()
    if format == "text":
        # How a command ends is told there in any case, and in plain words.
        stderr.addFilter(lambda record: record.name != __name__)
    _add_handler(stderr, format)
    if path is not None:
        try:
            _add_handler(logging.FileHandler(path, encoding="utf-8"), format)
        except OSError as error:
            raise UsageError("--log-file", f"must be writable ({error.strerror})", str(path)) from error


def _add_handler(handler: logging.Handler, format: str) -> None:
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_JsonFormatter() if format == "json" else plain)
    _ROOT.addHandler(handler)


_COMMON = (
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=_configure,
        help="TOML file with a table of options for each command. The command line overrides the file, "
        "the file overrides the environment (ASYNCDMTL_OPTION), the environment overrides defaults.",
    ),
    click.option(
        "--show-config", is_flag=True, help="Print what all options come to, as JSON, and do nothing else."
    ),
    click.option(
        "--format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="What is printed on stdout; json prints one object a line.",
    ),
    click.option("--json", "format", flag_value="json", help="Short for --format json."),
    click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS),
        default="warning",
        help="On stderr.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="json logs one object a line: time, level, logger, message; run, round, worker where known.",
    ),
    click.option("--log-file", type=click.Path(path_type=Path), help="Log here as well."),
    click.version_option(__version__, "-V", "--version", prog_name="asyncdmtl"),
)
