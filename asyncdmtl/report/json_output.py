"""JSON output: one object a line, with null for numbers that JSON cannot express."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncdmtl.errors import UsageError


def emit(event: Mapping[str, Any]) -> None:
    """Print one event as a JSON line on stdout and flush it. NaN and infinity become null."""
    print(json.dumps(finite(event), allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """`value` with None in place of every NaN and infinity; tuples become lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON, through to the disk. NaN and infinity become null.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(finite(report), indent=2, allow_nan=False) + "\n")
            file.flush()
            # Pipes and terminals cannot be flushed to a disk.
            if path.is_file():
                os.fsync(file.fileno())
    except OSError as error:
        raise UsageError("--report", f"must be writable ({error.strerror})", str(path)) from error
