"""Limits on the size of plans, for their maker and for every worker that builds one from a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.units import Units

# Where optimal rates have larger denominators than this, a little overhead must be allowed: more packets make
# matrices larger and messages smaller than they are worth.
MOST_SUBPACKETS = 256

# Entries (bytes) of a coded plan's matrices: 512 MB.
MOST_ENTRIES = 2**29

# Entries of a plan's matrices where nothing is coded, so that neither is multiplied: 1 GB.
MOST_PLAIN_ENTRIES = 2**30

# Byte operations of the rank checks of a plan: some ten minutes.
MOST_WORK = 10**13

# Rows that are sent to all workers together: their numbers take 16 bytes each in deliveries.
MOST_DELIVERED = 2**24

# Names of workers, and of partitions, in a recipe: a recipe with more is larger than any job that can be run.
MOST_NAMES = 2**14

# Draws of the last row of a downlink matrix. One serves K workers with probability `e^(−K/255)`.
MOST_LAST_ROWS = 4096


def check_size(units: Units, subpackets: int, uplink_rows: Sequence[int], *, coded: bool) -> None:
    """Raise PlanError at once for a plan that would take hours, or more memory than machines have."""
    blocks = len(units.holders) // units.merged
    held = [len(own) // units.merged * subpackets for own in units.held]
    columns, rows = subpackets * blocks, sum(uplink_rows)
    most_rows = columns - min(held)
    entries = rows * (columns + most_rows) + most_rows * columns
    # One elimination serves all workers; then each is checked by what it stores, or by what it lacks.
    work = most_rows**2 * columns + sum(min(own, columns - own) ** 3 for own in held)
    delivered = sum(columns - own for own in held)
    fits = entries <= MOST_ENTRIES and work <= MOST_WORK if coded else rows * columns <= MOST_PLAIN_ENTRIES
    if fits and delivered <= MOST_DELIVERED:
        return
    advice = ": allow some max_overhead, such as 1/100" if subpackets > 1 else ""
    raise PlanError(
        f"optimal matrices have {rows} rows and {columns} columns ({subpackets} packets per vector), "
        f"too many to check{advice}"
    )
