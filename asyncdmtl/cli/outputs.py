"""A check of output files before the work whose results they are to hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from asyncdmtl.errors import UsageError


def check_outputs(files: Mapping[str, Path | None]) -> None:
    """Check that files can be written, so that no hours of work are lost to a wrong path.

    Parameters
    ----------
    files : mapping of option to Path or None
        None where the option was not given.

    Raises
    ------
    UsageError
        Names the first option whose file cannot be written.
    """
    for option, path in files.items():
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UsageError(option, "must be in a directory that exists", str(path))
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise UsageError(option, "must be a writable file", str(path))
