"""The placement of tables that lie at several workers, for `place --from WORKER=FILES`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from asyncdmtl.data import loading
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest, request_of

log = logging.getLogger(__name__)


def names_tables(start: Sequence[str]) -> bool:
    """Whether values of `--from` are WORKER=FILES, rather than one placement file.

    Raises
    ------
    UsageError
        They are neither.
    """
    if len(start) == 1 and "=" not in start[0]:
        return False
    for value in start:
        if not all(value.partition("=")[::2]):
            raise UsageError("--from", "must be one placement file, or WORKER=FILES for each worker", value)
    return True


def placement_of_tables(start: Sequence[str], given: Mapping[str, Any]) -> PlanRequest:
    """The placement that is there: what each worker would declare with its files.

    Parameters
    ----------
    start : sequence of str
        WORKER=FILES, one or more of each worker.
    given : mapping
        The options that say how tables are read.

    Raises
    ------
    PlacementError
        Partitions of one name have different rows. It is a DataError if a file cannot be read.
    """
    files: dict[str, list[str]] = {}
    for value in start:
        worker, _, pattern = value.partition("=")
        files.setdefault(worker, []).append(pattern)
    stored: dict[str, list[str]] = {}
    tasks: dict[str, str] = {}
    first: dict[str, tuple[str, bytes]] = {}
    for worker, patterns in files.items():
        parts: Sequence[Stored] = loading.load_stored({**given, "data": tuple(patterns)}, None)
        stored[worker] = [part.id for part in parts]
        for part in parts:
            declared = part.declaration()
            holder, digest = first.setdefault(part.id, (worker, declared.digest))
            if digest != declared.digest:
                rule = f"must have the same rows at {holder} as at {worker}, as copies of a file"
                advice = "rename one of the files, or use `worker --site NAME --declare FILE`"
                raise PlacementError(f"partition {part.id!r}", f"{rule} ({advice}); worker", worker)
            tasks[part.id] = declared.task
    placement = Placement(stored)
    of_tasks: dict[str, list[str]] = {}
    for partition in placement.partitions:
        of_tasks.setdefault(tasks[partition], []).append(partition)
    return request_of({"tasks": of_tasks}, placement, "--from")
