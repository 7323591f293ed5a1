"""Limits on the size of plans, for the planner and for every worker that builds a plan from a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.units import Units

# The most packets per vector. If optimal rates have a larger denominator, some overhead must be allowed: with
# more packets, matrices become too large and messages too small.
MOST_SUBPACKETS = 256

# The most entries (bytes) of a coded plan's matrices: 512 MB.
MOST_ENTRIES = 2**29

# The most entries (bytes) of an uncoded plan's matrices, which are never multiplied: 1 GB.
MOST_PLAIN_ENTRIES = 2**30

# The most byte operations of the rank checks of a plan: some ten minutes.
MOST_WORK = 10**13

# The most rows that are sent to all workers together: each takes 16 bytes in the deliveries.
MOST_DELIVERED = 2**24

# The most names of workers, and of partitions, in a recipe. No job with more could be run.
MOST_NAMES = 2**14

# The most draws of the last row of a downlink matrix. A draw serves all K workers with probability
# `e^(−K/255)`.
MOST_LAST_ROWS = 4096


def check_size(units: Units, subpackets: int, uplink_rows: Sequence[int], *, coded: bool) -> None:
    """Raise PlanError for a plan that would take hours, or more memory than machines have."""
    blocks = len(units.holders) // units.merged
    held = [len(own) // units.merged * subpackets for own in units.held]
    columns, rows = subpackets * blocks, sum(uplink_rows)
    most_rows = columns - min(held)
    entries = rows * (columns + most_rows) + most_rows * columns
    # One elimination serves all workers. Then each worker is checked by a matrix of the size of what it
    # stores, or of what it lacks.
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
