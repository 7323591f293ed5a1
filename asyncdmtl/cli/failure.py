"""The end of a command: its exit code, its last message, and standard files that are safe to write to."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import Any

import click

from asyncdmtl.cli.logs import ENDING_LOG, PACKAGE_LOG
from asyncdmtl.errors import AsyncDMTLError, Terminated
from asyncdmtl.report.json_output import emit


class CurrentCommand:
    """The command that is running. Its options decide how a failure is reported."""

    context: click.Context | None = None

    @classmethod
    def option(cls, name: str) -> Any:
        """The value of one of its options; None before options were read."""
        return None if cls.context is None else cls.context.params.get(name)


def execute(main: click.Command) -> None:
    """Run a command as a program and end the process with the command's exit code."""
    open_standard_files()
    try:
        main.main(standalone_mode=False)
        code = 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 128 + signal.SIGINT
        _say_last("interrupted", code)
    except Terminated:
        code = 128 + signal.SIGTERM
        _say_last("terminated", code)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except OSError as error:
        code = AsyncDMTLError.exit_code
        # Imported here, since help texts must not wait for the import of asyncio.
        from asyncdmtl.net.open_files import limit_reached

        if reason := limit_reached(error):
            _say_last(reason, code, label="error: ")
        else:
            # The reader of the output has closed the pipe, or the disk is full.
            _say_last(f"cannot write the output: {error.strerror}", code, label="error: ")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except AsyncDMTLError as error:
        code = error.exit_code
        report_failure(str(error), code, error)
    except Exception as error:
        code = AsyncDMTLError.exit_code
        report_failure(f"internal error: {error!r} (--log-level debug shows where)", code, error)
    sys.exit(code)


def report_failure(message: str, exit_code: int, error: Exception) -> None:
    """Say once why a command failed: as an event under --format json, else on stderr; and in the log."""
    PACKAGE_LOG.debug("traceback", exc_info=error)
    if CurrentCommand.option("format") == "json":
        with contextlib.suppress(OSError):
            emit({"event": "failed", "error": message, "exit_code": exit_code})
        ENDING_LOG.error(message, extra={"exit_code": exit_code})
    else:
        _say_last(message, exit_code, label="error: ")


def open_standard_files() -> None:
    """Make stdin, stdout and stderr safe: open, with complete writes, and able to print any character.

    If the caller closed one of them, a socket would otherwise get its number. Under PYTHONUNBUFFERED, which
    many containers set, the rest of a write that a signal cut short would be lost.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        original = file is getattr(sys, f"__{name}__")
        if original and isinstance(file, io.TextIOWrapper) and isinstance(file.buffer, io.RawIOBase):
            buffer = io.BufferedWriter(io.FileIO(file.fileno(), "w", closefd=False))
            file = io.TextIOWrapper(buffer, file.encoding, file.errors, line_buffering=True)
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
        if original and isinstance(file, io.TextIOWrapper) and file.errors == "strict":
            # A terminal whose encoding lacks λ shows a question mark, rather than that an error loses the
            # result.
            file.reconfigure(errors="replace")


def _say_last(message: str, exit_code: int, label: str = "") -> None:
    """Log how the command ends, and print it on stderr, unless stderr carries a log of JSON lines."""
    ENDING_LOG.error(message, extra={"exit_code": exit_code})
    if CurrentCommand.option("log_format") != "json":
        print(f"{label}{message}", file=sys.stderr)
