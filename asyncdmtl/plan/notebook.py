"""What notebooks show of plans and designs: loads beside their bounds, and what workers store and send."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from asyncdmtl.html_table import html_table
from asyncdmtl.plan.placement import Placement

# The most characters of the list of a worker's partitions.
_MOST_CHARACTERS = 80

# A load and its lower bound, in vectors.
Load = tuple[Fraction, Fraction]


def plan_as_html(
    title: str, placement: Placement, rates: Sequence[Fraction], uplink: Load, downlink: Load
) -> str:
    """Two tables: the loads, and for each worker its partitions and `rates`, the vectors that it sends."""
    loads = [("uplink", *uplink), ("downlink, as a broadcast", *downlink)]
    workers = []
    for worker, held, rate in zip(placement.workers, placement.stored, rates, strict=True):
        names = ", ".join(placement.partitions[n] for n in held)
        if len(names) > _MOST_CHARACTERS:
            names = f"{names[:_MOST_CHARACTERS]}… ({len(held)})"
        workers.append((worker, names, rate))
    return html_table(title, ("", "load in vectors", "lower bound"), loads) + html_table(
        f"{len(placement.workers)} workers, {len(placement.partitions)} partitions",
        ("worker", "stores", "sends, in vectors"),
        workers,
    )
