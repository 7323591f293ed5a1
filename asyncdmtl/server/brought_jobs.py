"""Jobs of a stream whose workers come with the program that submits them, such as an estimator in `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.server.jobs import Job
from asyncdmtl.server.membership import MAX_MEMBERS
from asyncdmtl.server.records import RunOptions

# What the table of such a job holds: its name, what is trained and how, and the number of its workers.
KEYS = ("name", "settings", "strategy", "workers")


def is_brought(table: Mapping[str, Any]) -> bool:
    """Whether this is the table of a job whose workers the program brings."""
    return "settings" in table


def brought_job(table: Mapping[str, Any], options: RunOptions) -> Job:
    """The job of a table that a program submitted, with the workers that it brings.

    Parameters
    ----------
    table : mapping
        Its `name`, its `settings` as of `Settings.as_dict`, its `strategy`, and the number of its `workers`.
        Nothing in it is trusted.
    options : RunOptions
        Those of the server, for all else.

    Raises
    ------
    UsageError
        Something is missing, or breaks a rule; the error names the job.
    """
    place = f"job {table['name']!r}"
    if set(table) != set(KEYS):
        raise UsageError(place, f"must be exactly {', '.join(KEYS)}", sorted(map(str, table)))
    settings, strategy, workers = (table[key] for key in KEYS[1:])
    if not isinstance(settings, dict) or not isinstance(strategy, str):
        raise UsageError(place, "must have a table of settings and a strategy", (settings, strategy))
    if type(workers) is not int or not 1 <= workers <= MAX_MEMBERS:
        raise UsageError(f"{place}: workers", f"must be a number from 1 to {MAX_MEMBERS}", workers)
    try:
        own = replace(
            options, settings=Settings.from_dict(settings), strategy=strategy, workers=workers, cover=None
        )
        return Job(table["name"], own, brought=True)
    except UsageError as error:
        raise UsageError(f"{place}: {error.argument}", error.rule, error.value) from error
