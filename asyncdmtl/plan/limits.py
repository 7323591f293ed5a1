"""Limits on the size of plans, for their maker and for every worker that builds one from a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.placement import Placement

# Where optimal rates have larger denominators than this, a little overhead must be allowed: more packets make
# matrices larger and messages smaller than they are worth.
MOST_SUBPACKETS = 256

# Entries (bytes) of a plan's matrices: 512 MB.
MOST_ENTRIES = 2**29

# Byte operations of the rank checks of a plan: some ten minutes.
MOST_WORK = 10**13

# Rows that are sent to all workers together: their numbers take 8 bytes each in a delivery.
MOST_DELIVERED = 2**21

# Names of workers, and of partitions, in a recipe: a recipe with more is larger than any job that can be run.
MOST_NAMES = 2**14


def check_size(placement: Placement, subpackets: int, uplink_rows: Sequence[int]) -> None:
    """Raise PlanError at once for a plan that would take hours to check."""
    partitions = len(placement.partitions)
    missing = [subpackets * (partitions - len(stored)) for stored in placement.stored]
    columns, rows = subpackets * partitions, sum(uplink_rows)
    entries = rows * (columns + max(missing)) + max(missing) * columns
    work = sum(count**3 for count in missing)
    if entries > MOST_ENTRIES or work > MOST_WORK or sum(missing) > MOST_DELIVERED:
        raise PlanError(
            f"optimal matrices have {rows} rows and {columns} columns ({subpackets} packets per vector), "
            "too many to check: allow some max_overhead, such as 1/100"
        )
