"""Logs of the commands: on stderr and in a file, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from asyncdmtl.errors import UsageError
from asyncdmtl.report.json_output import finite

LOG_LEVELS = ("debug", "info", "warning", "error")

# The logger of the whole package. Until a command sets logs up, and where the package is only imported, its
# records go nowhere.
PACKAGE_LOG = logging.getLogger("asyncdmtl")
PACKAGE_LOG.addHandler(logging.NullHandler())

# The logger of the last record of a command that fails. In text format, stderr omits this record, since the
# command prints the same words there without a time and a level.
ENDING_LOG = logging.getLogger("asyncdmtl.cli.failure")

# The attributes that every record of `logging` has. Further attributes of a record come from `extra`.
_ORDINARY = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
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


def set_up_logs(level: str, format: str, path: Path | None) -> None:
    """Log to stderr, and to a file as well if one is given.

    Parameters
    ----------
    level : str
        One of `LOG_LEVELS`: records below it are dropped.
    format : str
        "text" or "json".
    path : Path or None
        The file, to which records are appended.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    for old in PACKAGE_LOG.handlers[:]:
        PACKAGE_LOG.removeHandler(old)
        old.close()
    PACKAGE_LOG.setLevel(level.upper())
    stderr = logging.StreamHandler()
    if format == "text":
        stderr.addFilter(lambda record: record.name != ENDING_LOG.name)
    _add(stderr, format)
    if path is not None:
        try:
            _add(logging.FileHandler(path, encoding="utf-8"), format)
        except OSError as error:
            raise UsageError("--log-file", f"must be writable ({error.strerror})", str(path)) from error


def _add(handler: logging.Handler, format: str) -> None:
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if format == "json" else plain)
    PACKAGE_LOG.addHandler(handler)
